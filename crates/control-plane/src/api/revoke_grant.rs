//! `DELETE /grants/{grant}`

use super::{error::ApiError, extract::Param};
use crate::{identity::caller::Caller, identity::grants, state::AppState};
use axum::extract::State;
use http::StatusCode;
use wire::{gateway::RevokedSubject, ids::GrantUuid, problem::Problem};

/// Make a grant void before it expires.
///
/// Grants are not stored: whoever knows a grant's random id got it with the grant, and may end it.
#[utoipa::path(delete, path = "/grants/{grant}", tag = "gitspaces",
    params(("grant" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
))]
pub(crate) async fn revoke_grant(
    State(state): State<AppState>,
    caller: Caller,
    Param(grant): Param<GrantUuid>,
) -> Result<StatusCode, ApiError> {
    grants::revoke(&state, RevokedSubject::Grant { grant }).await?;
    tracing::info!(user = %caller.user.id, %grant, "Grant revoked");
    Ok(StatusCode::NO_CONTENT)
}
