//! `GET /gitspaces/{gitspace}`

use super::{resolve, show_record};
use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{api::Gitspace, problem::Problem};

/// Show a gitspace, by name, id or slug.
#[utoipa::path(get, path = "/gitspaces/{gitspace}", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")), responses(
    (status = 200, body = Gitspace),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn show_gitspace(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
) -> Result<Json<Gitspace>, ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    Ok(Json(show_record(&state, record)))
}
