//! `GET /tokens`

use super::show_token;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{AccessToken, Page},
    problem::Problem,
};

/// List own personal access tokens, without the tokens.
#[utoipa::path(get, path = "/tokens", tag = "users", params(PageQuery), responses(
    (status = 200, body = Page<AccessToken>),
    (status = 401, body = Problem),

))]
pub(crate) async fn list_tokens(
    State(state): State<AppState>,
    caller: Caller,

    Params(query): Params<PageQuery>,
) -> Result<Json<Page<AccessToken>>, ApiError> {
    let user = caller.user.id;
    query.page_of_all(state.store.access_tokens(user).await?, show_token)
}
