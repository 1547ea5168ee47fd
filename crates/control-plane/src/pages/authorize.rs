//! `GET /authorize?gitspace=<slug>[&port=<n>][&return=<path or own URL>]`: gives a browser with a session a one-time code for one origin.

use super::{
    home::session_caller,
    html::{error_page, problem, redirect},
    login::{field, login_path},
};
use crate::{
    api::{error::ApiError, gitspaces::resolve_port},
    identity::grants::{CodeUse, make_code},
    origins::{Destination, ReturnPath},
    state::AppState,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use wire::text::Slug;

const MAX_QUERY: usize = 4096;

pub(super) async fn authorize(State(state): State<AppState>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match go_on(&state, request.headers(), &query).await {
        Ok(response) => response,
        Err(error) => error_page(&state, &error),
    }
}

async fn go_on(state: &AppState, headers: &HeaderMap, query: &str) -> Result<Response, ApiError> {
    // A frame, image or script of some page is not a person who opens a gitspace.
    let is_embedded = headers
        .get("sec-fetch-dest")
        .is_some_and(|value| value != "document");
    if is_embedded {
        return Err(ApiError::CrossSite);
    }
    let bad = |why: &str| {
        Ok(problem(
            state,
            StatusCode::BAD_REQUEST,
            why,
            "Open the gitspace from its own address or from your list",
        ))
    };
    if query.len() > MAX_QUERY {
        return bad("The address is too long");
    }
    let Some(slug) = field(query.as_bytes(), "gitspace").and_then(|text| text.parse::<Slug>().ok())
    else {
        return bad("The address names no gitspace");
    };
    let port = match field(query.as_bytes(), "port").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match text.parse::<u16>().ok().filter(|port| *port != 0) {
            Some(port) => Some(port),
            None => return bad("The address names a port that is none"),
        },
    };
    let wanted = field(query.as_bytes(), "return").unwrap_or_else(|| "/".to_owned());
    let Ok(Destination { port, path }) = state.gateway_origins.destination(&slug, port, &wanted)
    else {
        return bad("The address leads away from the gitspace");
    };
    let Some(caller) = session_caller(state, headers).await? else {
        return Ok(redirect(
            StatusCode::SEE_OTHER,
            &login_path(&own_path(&slug, port, &path)),
        ));
    };
    let (record, _) = resolve_port(state, &caller.user, &slug, port).await?;
    let (url, _) = make_code(
        state,
        caller.user.id,
        &record,
        port,
        &path,
        CodeUse::Redirect,
    )
    .await?;
    Ok(redirect(StatusCode::FOUND, url.expose()))
}

/// This page's address for what was checked, to come back to after the login.
fn own_path(slug: &Slug, port: Option<u16>, path: &ReturnPath) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("gitspace", slug.as_str());
    if let Some(port) = port {
        query.append_pair("port", &port.to_string());
    }
    query.append_pair("return", path.as_str());
    format!("/authorize?{}", query.finish())
}
