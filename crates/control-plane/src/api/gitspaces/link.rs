//! `POST /gitspaces/{gitspace}/links`

use super::resolve;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::{
        caller::Caller,
        grants::{CodeUse, make_code},
    },
    origins::ReturnPath,
    state::AppState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use wire::{
    api::{CreateLink, Link},
    problem::Problem,
};

/// Make a URL that opens a gitspace once, in a browser that is not logged in.
#[utoipa::path(post, path = "/gitspaces/{gitspace}/links", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")),
    request_body = CreateLink, responses(
    (status = 201, body = Link),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn create_link(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
    Body(body): Body<CreateLink>,
) -> Result<(StatusCode, Json<Link>), ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    if body.port == Some(0) {
        return Err(ApiError::invalid("`port`", "1 to 65535 are taken"));
    }
    let path = match &body.path {
        None => ReturnPath::root(),
        Some(path) => ReturnPath::parse(path)
            .map_err(|error| ApiError::invalid("`path`", error.to_string()))?,
    };
    let (url, exp) = make_code(
        &state,
        caller.user.id,
        &record,
        body.port,
        &path,
        CodeUse::Link,
    )
    .await?;
    Ok((StatusCode::CREATED, Json(Link { url, exp })))
}
