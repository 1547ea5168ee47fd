//! `GET /delegates`

use super::{placed, show};
use crate::{
    api::{error::ApiError, extract::Params, page::PageQuery},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Delegate, Page},
    problem::Problem,
};

/// List delegates. For administrators.
#[utoipa::path(get, path = "/delegates", tag = "delegates", params(PageQuery), responses(
    (status = 200, body = Page<Delegate>),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list_delegates(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Delegate>>, ApiError> {
    caller.require_admin()?;
    let counts = placed(&state).await?;
    query.page_of_all(state.store.delegates().await?, |row| {
        let gitspaces = counts.get(&row.id).copied().unwrap_or_default();
        let data_path = state.hub.brief_data_path(row.id);
        show(&state, row, gitspaces, data_path)
    })
}
