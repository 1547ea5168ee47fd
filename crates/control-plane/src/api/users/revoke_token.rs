//! `DELETE /tokens/{token}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::{caller::Caller, grants},
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{gateway::RevokedSubject, ids::AccessTokenUuid, problem::Problem};

/// Revoke a personal access token of one's own; administrators revoke anybody's.
///
/// What was made with it ends too: its user's grants and browser sessions.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "users",
    params(("token" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn revoke_token(
    State(state): State<AppState>,
    caller: Caller,
    Param(token): Param<AccessTokenUuid>,
) -> Result<StatusCode, ApiError> {
    let owner = state.store.access_token_owner(token).await?;
    let user = owner
        .filter(|owner| *owner == caller.user.id || caller.is_admin())
        .ok_or(ApiError::NotFound { what: "token" })?;
    if !state.store.revoke_access_token(token, Some(user)).await? {
        return Err(ApiError::NotFound { what: "token" });
    }
    state.store.delete_sessions_of(user).await?;
    grants::revoke(&state, RevokedSubject::User { user }).await?;
    tracing::info!(by = %caller.user.id, %user, %token, "Personal access token revoked");
    Ok(StatusCode::NO_CONTENT)
}
