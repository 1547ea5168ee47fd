//! `GET /machines`

use super::show_machine;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Machine, Page},
    problem::Problem,
};

/// List machines: the resource classes a gitspace can be made of.
#[utoipa::path(get, path = "/machines", tag = "catalog", params(PageQuery), responses(
    (status = 200, body = Page<Machine>),
    (status = 401, body = Problem),

))]
pub(crate) async fn list_machines(
    State(state): State<AppState>,
    _caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Machine>>, ApiError> {
    query.page_of_all(state.store.machines().await?, show_machine)
}
