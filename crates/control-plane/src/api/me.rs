//! `GET /me`

use super::{error::ApiError, users::show_user};
use crate::identity::caller::{CSRF_HEADER, Caller, Via};
use axum::Json;
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::{api::User, problem::Problem};

/// Who the credentials belong to.
///
/// For a browser's session the answer's header `gitspaces-csrf` has the token that requests with effects have to repeat.
#[utoipa::path(get, path = "/me", tag = "users", responses(
    (status = 200, body = User),
    (status = 401, body = Problem),
))]
pub(crate) async fn me(caller: Caller) -> Result<(HeaderMap, Json<User>), ApiError> {
    let mut headers = HeaderMap::new();
    if let Via::Session { csrf, .. } = &caller.via {
        let value = HeaderValue::try_from(csrf)
            .map_err(|error| ApiError::internal("reading a session", error))?;
        headers.insert(HeaderName::from_static(CSRF_HEADER), value);
    }
    Ok((headers, Json(show_user(caller.user))))
}
