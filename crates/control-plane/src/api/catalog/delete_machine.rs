//! `DELETE /machines/{machine}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{ids::MachineUuid, problem::Problem};

/// Delete a machine. Gitspaces made of it keep what they have. For administrators.
#[utoipa::path(delete, path = "/machines/{machine}", tag = "catalog",
    params(("machine" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn delete_machine(
    State(state): State<AppState>,
    caller: Caller,
    Param(machine): Param<MachineUuid>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    if state.store.delete_machine(machine).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound { what: "machine" })
    }
}
