//! `POST /delegates/{delegate}/key/challenge`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::challenge,
    state::AppState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use wire::{control::KeyChallenge, ids::DelegateUuid, problem::Problem};

/// Get a nonce, over which a delegate proves one of its keys.
///
/// Anybody may: it says nothing about the delegate.
#[utoipa::path(post, path = "/delegates/{delegate}/key/challenge", tag = "delegates",
    params(("delegate" = uuid::Uuid, Path)), responses(
    (status = 201, description = "`{\"nonce\": …, \"now\": …}`", body = Object),
    (status = 404, body = Problem),
), security(()))]
pub(crate) async fn challenge_delegate_key(
    State(state): State<AppState>,
    Param(_delegate): Param<DelegateUuid>,
) -> Result<(StatusCode, Json<KeyChallenge>), ApiError> {
    let now = state.now();
    let nonce = challenge::make(&state.grants, now)
        .map_err(|error| ApiError::internal("making a nonce", error))?;
    Ok((StatusCode::CREATED, Json(KeyChallenge { nonce, now })))
}
