//! `GET /ssh-keys`

use super::show;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Page, SshKey},
    problem::Problem,
};

/// List own SSH keys.
#[utoipa::path(get, path = "/ssh-keys", tag = "users", params(PageQuery), responses(
    (status = 200, body = Page<SshKey>),
    (status = 401, body = Problem),
))]
pub(crate) async fn list_ssh_keys(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<SshKey>>, ApiError> {
    query.page_of_all(state.store.ssh_keys(caller.user.id).await?, show)
}
