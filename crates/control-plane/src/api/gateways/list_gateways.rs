//! `GET /gateways`

use super::show;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Gateway, Page},
    problem::Problem,
};

/// List gateways, without their tokens. For administrators.
#[utoipa::path(get, path = "/gateways", tag = "gateways", params(PageQuery), responses(
    (status = 200, body = Page<Gateway>),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list_gateways(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Gateway>>, ApiError> {
    caller.require_admin()?;
    let rows = state.store.gateways().await?;
    query.page_of_all(rows, |row| show(&state, row))
}
