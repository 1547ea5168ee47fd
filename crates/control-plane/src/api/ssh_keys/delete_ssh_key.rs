//! `DELETE /ssh-keys/{key}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::{caller::Caller, grants},
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use newtype_uuid::{GenericUuid as _, TypedUuid};
use wire::{gateway::RevokedSubject, ids::SshKeyUuid, problem::Problem};

/// Forget an SSH key of one's own; administrators forget anybody's.
///
/// Sessions that were opened with it end.
#[utoipa::path(delete, path = "/ssh-keys/{key}", tag = "users",
    params(("key" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn delete_ssh_key(
    State(state): State<AppState>,
    caller: Caller,
    Param(key): Param<SshKeyUuid>,
) -> Result<StatusCode, ApiError> {
    let not_found = ApiError::NotFound { what: "SSH key" };
    let owner = state.store.ssh_key_owner(key).await?;
    let Some(user) = owner.filter(|owner| *owner == caller.user.id || caller.is_admin()) else {
        return Err(not_found);
    };
    if !state.store.delete_ssh_key(key, user).await? {
        return Err(not_found);
    }
    // All grants of a key have its id.
    let grant = TypedUuid::from_untyped_uuid(key.into_untyped_uuid());
    grants::revoke(&state, RevokedSubject::Grant { grant }).await?;
    tracing::info!(by = %caller.user.id, %user, %key, "SSH key deleted");
    Ok(StatusCode::NO_CONTENT)
}
