//! `GET /git-credentials`

use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use store::GitCredentialRecord;
use wire::{
    api::{GitCredentialInfo, Page},
    problem::Problem,
};

pub(super) fn show(record: GitCredentialRecord) -> GitCredentialInfo {
    GitCredentialInfo {
        id: record.id,
        scheme: record.scheme,
        host: record.host,
        username: record.username,
        created: record.created,
    }
}

/// List own Git credentials, without the secrets.
#[utoipa::path(get, path = "/git-credentials", tag = "users", params(PageQuery), responses(
    (status = 200, body = Page<GitCredentialInfo>),
    (status = 401, body = Problem),
))]
pub(crate) async fn list_git_credentials(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<GitCredentialInfo>>, ApiError> {
    query.page_of_all(state.store.git_credentials(caller.user.id).await?, show)
}
