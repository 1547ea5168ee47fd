//! `DELETE /gitspaces/{gitspace}`

use super::{act::carry_out, resolve};
use crate::{
    api::{error::ApiError, extract::Param, guard::Trace},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use wire::{
    api::{Gitspace, GitspaceAction},
    problem::Problem,
};

/// Delete a gitspace with its disk. Taken in every state.
#[utoipa::path(delete, path = "/gitspaces/{gitspace}", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")), responses(
    (status = 202, description = "It is being deleted.", body = Gitspace),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn delete_gitspace(
    State(state): State<AppState>,
    caller: Caller,
    trace: Trace,
    Param(gitspace): Param<String>,
) -> Result<(StatusCode, Json<Gitspace>), ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    carry_out(&state, &caller, trace, record, GitspaceAction::Delete).await
}
