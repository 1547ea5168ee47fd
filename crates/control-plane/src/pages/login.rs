//! `GET /login`, `POST /login`: from a personal access token to a session.

use super::html::{error_page, escape, page, redirect};
use crate::{
    api::{
        error::ApiError,
        extract::read_body,
        guard::{PeerAddress, is_own_origin},
    },
    identity::{
        caller::{by_token, refuse},
        sessions,
    },
    origins::ReturnPath,
    state::AppState,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{StatusCode, header};
use url::form_urlencoded;

/// Of the query or the form, the one field of this name.
pub(super) fn field(encoded: &[u8], name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(encoded)
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Where the login goes on to, on this origin.
fn next_of(encoded: &[u8]) -> ReturnPath {
    field(encoded, "next")
        .and_then(|text| ReturnPath::parse(&text).ok())
        .unwrap_or_else(ReturnPath::root)
}

pub(super) fn login_path(next: &str) -> String {
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    format!("/login?next={next}")
}

pub(super) async fn form(State(state): State<AppState>, request: Request) -> Response {
    let next = next_of(request.uri().query().unwrap_or_default().as_bytes());
    show(&state, StatusCode::OK, &next, None)
}

fn show(state: &AppState, status: StatusCode, next: &ReturnPath, error: Option<&str>) -> Response {
    let error = error.map_or_else(String::new, |error| {
        format!("<p class=\"error\" role=\"alert\">{}</p>", escape(error))
    });
    let body = format!(
        "{error}<form method=\"post\" action=\"/login\">\
         <label for=\"token\">Personal access token</label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"off\" spellcheck=\"false\" maxlength=\"128\" required autofocus>\
         <input name=\"next\" type=\"hidden\" value=\"{}\">\
         <button>Log in</button></form>\
         <p class=\"hint\"><code>gitspace token create --name browser</code> makes one. Where no administrator has one, \
         <code>gitspaces-control-plane admin-token</code> on the control plane's host writes one to a file \
         (<code>delegate-agent admin-token</code> where it is embedded).</p>",
        escape(next.as_str())
    );
    page(state, status, "Log in", &body)
}

pub(super) async fn submit(State(state): State<AppState>, request: Request) -> Response {
    match log_in(&state, request).await {
        Ok(response) => response,
        Err(error) => error_page(&state, &error),
    }
}

async fn log_in(state: &AppState, request: Request) -> Result<Response, ApiError> {
    // Else any page could log its visitor in as somebody else.
    if !is_own_origin(state, request.headers()) {
        return Err(ApiError::CrossSite);
    }
    let from = PeerAddress::of(&request);
    let form = read_body(request).await?;
    let next = next_of(&form);
    let token = field(&form, "token").unwrap_or_default();
    let Some(caller) = by_token(state, token.trim(), state.now()).await? else {
        let error = refuse(state, from);
        let words = match &error {
            ApiError::TooManyFailures { .. } => "Too many failed logins; try again in a moment",
            _ => "This token is not valid",
        };
        return Ok(show(state, error.status(), &next, Some(words)));
    };
    let cookie = sessions::begin(state, &caller.user).await?;
    tracing::info!(user = %caller.user.id, "Browser logged in");
    let mut response = redirect(StatusCode::SEE_OTHER, next.as_str());
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
