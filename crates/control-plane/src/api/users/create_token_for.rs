//! `POST /users/{user}/tokens`

use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
        idempotency::ShownOnce,
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Extension, Json, extract::State};
use http::StatusCode;
use wire::{
    api::{AccessToken, CreateAccessToken},
    ids::UserUuid,
    problem::Problem,
};

/// Make a personal access token for a user. For administrators. It is shown once.
#[utoipa::path(post, path = "/users/{user}/tokens", tag = "users",
    params(("user" = uuid::Uuid, Path)), request_body = CreateAccessToken, responses(
    (status = 201, body = AccessToken),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn create_token_for(
    State(state): State<AppState>,
    caller: Caller,
    Param(user): Param<UserUuid>,
    Body(body): Body<CreateAccessToken>,
) -> Result<(StatusCode, Extension<ShownOnce>, Json<AccessToken>), ApiError> {
    caller.require_admin()?;
    if state.store.user(user).await?.is_none() {
        return Err(ApiError::NotFound { what: "user" });
    }
    super::create_token::make(&state, user, body).await
}
