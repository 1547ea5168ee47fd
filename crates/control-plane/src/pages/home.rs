//! `GET /`: own gitspaces, to open them.

use super::{
    html::{error_page, escape, page, redirect},
    login::login_path,
};
use crate::{
    api::error::ApiError,
    identity::{caller::Caller, sessions},
    orchestrator,
    state::AppState,
};
use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use store::{GitspaceFilter, PageRequest, UserRecord};
use wire::api::MAX_PAGE;

/// The user of the browser's session. Tokens are for programs.
pub(super) async fn session_caller(
    state: &AppState,
    headers: &HeaderMap,
) -> Result<Option<Caller>, ApiError> {
    let Some(token) = sessions::cookie(state, headers) else {
        return Ok(None);
    };
    let hash = token.hash();
    let found = sessions::find(state, hash, state.now()).await?;
    Ok(found.map(|(session, user)| Caller::of_session(user, hash, session.csrf)))
}

pub(super) async fn home(State(state): State<AppState>, headers: HeaderMap) -> Response {
    match session_caller(&state, &headers).await {
        Ok(None) => redirect(StatusCode::SEE_OTHER, &login_path("/")),
        Ok(Some(caller)) => show(&state, &caller.user)
            .await
            .unwrap_or_else(|error| error_page(&state, &error)),
        Err(error) => error_page(&state, &error),
    }
}

async fn show(state: &AppState, user: &UserRecord) -> Result<Response, ApiError> {
    let filter = GitspaceFilter {
        owner: Some(user.id),
    };
    let gitspaces = state
        .store
        .gitspaces(filter, PageRequest::first(MAX_PAGE))
        .await?;
    let mut list = String::new();
    for gitspace in &gitspaces {
        let (slug, name) = (
            escape(gitspace.slug.as_str()),
            escape(gitspace.name.as_str()),
        );
        let shown = orchestrator::visible_state(gitspace);
        let repo = escape(gitspace.repo.url.as_str());
        list.push_str(&format!(
            "<li><a href=\"/authorize?gitspace={slug}\">{name}</a> {shown} <span class=\"hint\">{repo}</span></li>\n"
        ));
    }
    let list = if list.is_empty() {
        "<p class=\"hint\">There are none. <code>gitspace create URL</code> makes one.</p>"
            .to_owned()
    } else {
        format!("<ul>{list}</ul>")
    };
    let body = format!(
        "{list}<form method=\"post\" action=\"/logout\"><button>Log out {}</button></form>",
        escape(&user.name)
    );
    Ok(page(state, StatusCode::OK, "Your gitspaces", &body))
}
