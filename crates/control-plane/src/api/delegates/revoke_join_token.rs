//! `DELETE /join-tokens/{join_token}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{ids::JoinTokenUuid, problem::Problem};

/// Revoke a join token. Delegates that enrolled with it stay. For administrators.
#[utoipa::path(delete, path = "/join-tokens/{join_token}", tag = "delegates",
    params(("join_token" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn revoke_join_token(
    State(state): State<AppState>,
    caller: Caller,
    Param(join_token): Param<JoinTokenUuid>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    if state.store.revoke_join_token(join_token).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound { what: "join token" })
    }
}
