//! `GET /gitspaces`

use super::show_record;
use crate::{
    api::{
        error::ApiError,
        extract::Params,
        page::{page_of, page_request, probe},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use store::GitspaceFilter;
use wire::{
    api::{Gitspace, Page},
    problem::Problem,
};

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 100; 100 where missing.
    #[serde(default)]
    limit: Option<u32>,
    /// Everybody's, for administrators.
    #[serde(default)]
    all: bool,
}

/// List own gitspaces, oldest first.
#[utoipa::path(get, path = "/gitspaces", tag = "gitspaces", params(ListQuery), responses(
    (status = 200, body = Page<Gitspace>),
    (status = 401, body = Problem),
    (status = 403, description = "`all` is for administrators.", body = Problem),
))]
pub(crate) async fn list_gitspaces(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Gitspace>>, ApiError> {
    if query.all {
        caller.require_admin()?;
    }
    let page = page_request(query.cursor.as_deref(), query.limit)?;
    let filter = GitspaceFilter {
        owner: (!query.all).then_some(caller.user.id),
    };
    let rows = state.store.gitspaces(filter, probe(page)).await?;
    Ok(Json(page_of(page, rows, |row| show_record(&state, row))))
}
