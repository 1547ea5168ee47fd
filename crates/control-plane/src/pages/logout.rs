//! `POST /logout`

use super::html::{error_page, redirect};
use crate::{
    api::{error::ApiError, guard::is_own_origin},
    identity::sessions,
    state::AppState,
};
use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode, header};

pub(super) async fn submit(State(state): State<AppState>, headers: HeaderMap) -> Response {
    match log_out(&state, &headers).await {
        Ok(response) => response,
        Err(error) => error_page(&state, &error),
    }
}

async fn log_out(state: &AppState, headers: &HeaderMap) -> Result<Response, ApiError> {
    if !is_own_origin(state, headers) {
        return Err(ApiError::CrossSite);
    }
    if let Some(token) = sessions::cookie(state, headers) {
        state.store.delete_session(token.hash().as_bytes()).await?;
    }
    let mut response = redirect(StatusCode::SEE_OTHER, "/login");
    response
        .headers_mut()
        .insert(header::SET_COOKIE, sessions::forget(state)?);
    Ok(response)
}
