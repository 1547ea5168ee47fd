//! `GET /join-tokens`

use super::show_join_token;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{JoinToken, Page},
    problem::Problem,
};

/// List join tokens, without the tokens. For administrators.
#[utoipa::path(get, path = "/join-tokens", tag = "delegates", params(PageQuery), responses(
    (status = 200, body = Page<JoinToken>),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list_join_tokens(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<JoinToken>>, ApiError> {
    caller.require_admin()?;
    query.page_of_all(state.store.join_tokens().await?, show_join_token)
}
