//! `DELETE /delegates/{delegate}/unaccounted-gitspaces/{unaccounted}`

use super::show_delegate::find;
use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    orchestrator::RemovalDenied,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{ids::GitspaceUuid, problem::Problem};

/// Remove what a delegate's host holds of a gitspace that no record accounts for, with its disk. For administrators.
///
/// The order is kept: it is carried out as soon as the delegate is connected, and the same order again changes nothing.
#[utoipa::path(delete, path = "/delegates/{delegate}/unaccounted-gitspaces/{unaccounted}", tag = "delegates",
    params(("delegate" = String, Path, description = "Id or name."), ("unaccounted" = uuid::Uuid, Path, description = "Id of the gitspace.")), responses(
    (status = 202, description = "Ordered; `unaccounted_gitspaces` of the delegate says when it is gone."),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "There is a record of the gitspace.", body = Problem),
))]
pub(crate) async fn remove_unaccounted(
    State(state): State<AppState>,
    caller: Caller,
    Param((delegate, gitspace)): Param<(String, GitspaceUuid)>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    let delegate = find(&state, &delegate).await?.id;
    match state
        .orchestrator
        .remove(delegate, gitspace, caller.user.id)
        .await
    {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(RemovalDenied::NotFound) => Err(ApiError::NotFound {
            what: "unaccounted gitspace of this delegate",
        }),
        Err(denied @ RemovalDenied::Known) => Err(ApiError::Refused {
            code: "gitspace_known",
            message: "the gitspace is not unaccounted for".to_owned(),
            why: Some(denied.to_string()),
            hint: Some(
                "delete the gitspace itself: its owner can, and any administrator".to_owned(),
            ),
        }),
        Err(RemovalDenied::Orchestrator(error)) => Err(error.into()),
    }
}
