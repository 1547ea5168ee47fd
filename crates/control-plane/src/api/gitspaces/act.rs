//! `POST /gitspaces/{gitspace}/actions`

use super::{resolve, show_record};
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
        guard::Trace,
    },
    identity::{caller::Caller, grants},
    state::AppState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use store::GitspaceRecord;
use wire::{
    api::{ActionRequest, Gitspace, GitspaceAction},
    gateway::RevokedSubject,
    problem::Problem,
};

/// Start, stop, reset, cancel or delete a gitspace.
#[utoipa::path(post, path = "/gitspaces/{gitspace}/actions", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")),
    request_body = ActionRequest, responses(
    (status = 202, description = "It is under way; events tell how it goes.", body = Gitspace),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "Something else is under way. Cancel and delete are always taken.", body = Problem),
))]
pub(crate) async fn act_on_gitspace(
    State(state): State<AppState>,
    caller: Caller,
    trace: Trace,
    Param(gitspace): Param<String>,
    Body(body): Body<ActionRequest>,
) -> Result<(StatusCode, Json<Gitspace>), ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    carry_out(&state, &caller, trace, record, body.action).await
}

pub(super) async fn carry_out(
    state: &AppState,
    caller: &Caller,
    trace: Trace,
    record: GitspaceRecord,
    action: GitspaceAction,
) -> Result<(StatusCode, Json<Gitspace>), ApiError> {
    let record = state
        .orchestrator
        .act(record.id, action, &caller.user.name, trace.0)
        .await?;
    if action == GitspaceAction::Delete {
        grants::revoke(
            state,
            RevokedSubject::Gitspace {
                gitspace: record.id,
            },
        )
        .await?;
    }
    Ok((StatusCode::ACCEPTED, Json(show_record(state, record))))
}
