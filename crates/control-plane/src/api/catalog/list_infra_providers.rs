//! `GET /infra-providers`

use super::show_infra_provider;
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{InfraProvider, Page},
    problem::Problem,
};

/// List infra providers.
#[utoipa::path(get, path = "/infra-providers", tag = "catalog", params(PageQuery), responses(
    (status = 200, body = Page<InfraProvider>),
    (status = 401, body = Problem),

))]
pub(crate) async fn list_infra_providers(
    State(state): State<AppState>,
    _caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<InfraProvider>>, ApiError> {
    query.page_of_all(state.store.infra_providers().await?, show_infra_provider)
}
