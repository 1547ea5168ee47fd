//! `POST /delegates/{delegate}/key/use`

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
use daemon::fail_point;
use http::HeaderMap;
use wire::{
    control::{KEY_USE_PURPOSE, KeyProof, KeyState},
    ids::DelegateUuid,
    problem::Problem,
};

/// Show that a delegate's proposed key is in use, which ends the one before.
///
/// The link that the claims name goes on; another one of this delegate is not the sender's, and is ended.
#[utoipa::path(post, path = "/delegates/{delegate}/key/use", tag = "delegates",
    params(("delegate" = uuid::Uuid, Path)), request_body = Object, responses(
    (status = 200, body = KeyState),
    (status = 403, description = "The proof is not taken; the code is that of a refused link.", body = Problem),
), security(()))]
pub(crate) async fn use_delegate_key(
    State(state): State<AppState>,
    headers: HeaderMap,
    Param(delegate): Param<DelegateUuid>,
    Body(body): Body<KeyProof>,
) -> Result<Json<KeyState>, ApiError> {
    let record = find(&state, delegate).await?;
    let signed = signed(&state, &record, &headers, &body.proof, KEY_USE_PURPOSE).await?;
    about_own(&signed)?;
    if record.next_key == Some(signed.by) {
        fail_point("control-plane.use-key.before");
        state
            .store
            .use_key(delegate, &signed.by, state.now())
            .await?;
        fail_point("control-plane.use-key.after");
        tracing::info!(%delegate, name = record.name, "A delegate's next key is in use; the one before has ended");
        state.hub.key_rotated(delegate, signed.claims.link);
    }
    let record = find(&state, delegate).await?;
    Ok(Json(delegate_keys::state(&record)))
}
