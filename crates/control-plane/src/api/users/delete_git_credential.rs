//! `DELETE /git-credentials/{credential}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{ids::GitCredentialUuid, problem::Problem};

/// Delete a Git credential of one's own.
#[utoipa::path(delete, path = "/git-credentials/{credential}", tag = "users",
    params(("credential" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn delete_git_credential(
    State(state): State<AppState>,
    caller: Caller,
    Param(credential): Param<GitCredentialUuid>,
) -> Result<StatusCode, ApiError> {
    let user = caller.user.id;
    if state.store.delete_git_credential(user, credential).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound {
            what: "Git credential",
        })
    }
}
