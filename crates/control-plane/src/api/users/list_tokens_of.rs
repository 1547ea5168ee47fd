//! `GET /users/{user}/tokens`

use super::show_token;
use crate::{
    api::{
        error::ApiError,
        extract::{Param, Params},
        page::PageQuery,
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{AccessToken, Page},
    ids::UserUuid,
    problem::Problem,
};

/// List a user's personal access tokens, without the tokens. For administrators.
#[utoipa::path(get, path = "/users/{user}/tokens", tag = "users", params(("user" = uuid::Uuid, Path), PageQuery), responses(
    (status = 200, body = Page<AccessToken>),
    (status = 401, body = Problem),
    (status = 403, body = Problem),(status = 404, body = Problem),
))]
pub(crate) async fn list_tokens_of(
    State(state): State<AppState>,
    caller: Caller,
    Param(user): Param<UserUuid>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<AccessToken>>, ApiError> {
    caller.require_admin()?;
    if state.store.user(user).await?.is_none() {
        return Err(ApiError::NotFound { what: "user" });
    }
    query.page_of_all(state.store.access_tokens(user).await?, show_token)
}
