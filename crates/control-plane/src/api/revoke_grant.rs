//! `DELETE /grants/{grant}`

use super::{error::ApiError, extract::Param};
use crate::{identity::caller::Caller, identity::grants, state::AppState};
use axum::extract::State;
use http::StatusCode;
use newtype_uuid::{GenericUuid as _, TypedUuid};
use wire::{gateway::RevokedSubject, ids::GrantUuid, problem::Problem};

/// Make a grant void before it expires.
///
/// Grants are not stored: whoever knows a grant's random id got it with the grant, and may end it. Those of an SSH key have the key's id, which
/// others see (in logs, for one); they are for the key's owner and administrators.
#[utoipa::path(delete, path = "/grants/{grant}", tag = "gitspaces",
    params(("grant" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 404, description = "It is of somebody else's SSH key.", body = Problem),
))]
pub(crate) async fn revoke_grant(
    State(state): State<AppState>,
    caller: Caller,
    Param(grant): Param<GrantUuid>,
) -> Result<StatusCode, ApiError> {
    let key = TypedUuid::from_untyped_uuid(grant.into_untyped_uuid());
    if let Some(owner) = state.store.ssh_key_owner(key).await?
        && owner != caller.user.id
        && !caller.is_admin()
    {
        return Err(ApiError::NotFound { what: "grant" });
    }
    grants::revoke(&state, RevokedSubject::Grant { grant }).await?;
    tracing::info!(user = %caller.user.id, %grant, "Grant revoked");
    Ok(StatusCode::NO_CONTENT)
}
