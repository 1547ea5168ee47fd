//! `POST /delegates/{delegate}/key/check`

use super::key::{about_own, find, signed};
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::delegate_keys,
    state::AppState,
};
use axum::{Json, extract::State};
use http::HeaderMap;
use wire::{
    control::{KEY_CHECK_PURPOSE, KeyProof, KeyState},
    ids::DelegateUuid,
    problem::Problem,
};

/// Ask whether a delegate would be let in. Nothing is changed by it.
#[utoipa::path(post, path = "/delegates/{delegate}/key/check", tag = "delegates",
    params(("delegate" = uuid::Uuid, Path)), request_body = Object, responses(
    (status = 200, body = KeyState),
    (status = 403, description = "It would not; the code is that of a refused link.", body = Problem),
), security(()))]
pub(crate) async fn check_delegate_key(
    State(state): State<AppState>,
    headers: HeaderMap,
    Param(delegate): Param<DelegateUuid>,
    Body(body): Body<KeyProof>,
) -> Result<Json<KeyState>, ApiError> {
    let record = find(&state, delegate).await?;
    let signed = signed(&state, &record, &headers, &body.proof, KEY_CHECK_PURPOSE).await?;
    about_own(&signed)?;
    Ok(Json(delegate_keys::state(&record)))
}
