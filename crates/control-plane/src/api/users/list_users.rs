//! `GET /users`

use super::show_user;
use crate::{
    api::{
        error::ApiError,
        extract::Params,
        page::{PageQuery, page_of, probe},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Page, User},
    problem::Problem,
};

/// List users. For administrators.
#[utoipa::path(get, path = "/users", tag = "users", params(PageQuery), responses(
    (status = 200, body = Page<User>),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list_users(
    State(state): State<AppState>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<User>>, ApiError> {
    caller.require_admin()?;
    let page = query.request()?;
    let rows = state.store.users(probe(page)).await?;
    Ok(Json(page_of(page, rows, show_user)))
}
