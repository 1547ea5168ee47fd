//! `PUT /delegates/{delegate}/key`

use super::key::{bad_proof, find, signed, subject};
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::delegate_keys::{self, Refusal},
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::{ErrorChain, fail_point};
use http::HeaderMap;
use store::KeyProposed;
use wire::{
    control::{DisconnectCode, KEY_PROPOSAL_PURPOSE, KeyClaims, KeyProposal, KeyState},
    ids::DelegateUuid,
    problem::Problem,
};

/// Propose a delegate's next key, signed by the key in force and by the next one.
///
/// Both get in until the next one is used. The same may be proposed again; another one takes the place of one that was not used.
#[utoipa::path(put, path = "/delegates/{delegate}/key", tag = "delegates",
    params(("delegate" = uuid::Uuid, Path)), request_body = Object, responses(
    (status = 200, body = KeyState),
    (status = 400, body = Problem),
    (status = 403, description = "A proof is not taken; the code is that of a refused link.", body = Problem),
    (status = 409, description = "The next key is or was one already.", body = Problem),
), security(()))]
pub(crate) async fn propose_delegate_key(
    State(state): State<AppState>,
    headers: HeaderMap,
    Param(delegate): Param<DelegateUuid>,
    Body(body): Body<KeyProposal>,
) -> Result<Json<KeyState>, ApiError> {
    let record = find(&state, delegate).await?;
    let by_current = signed(
        &state,
        &record,
        &headers,
        &body.by_current,
        KEY_PROPOSAL_PURPOSE,
    )
    .await?;
    let (next, next_key) = subject(&by_current.claims)?;
    let now = state.now();
    let by_next: KeyClaims = token::verify(&body.by_next, [&next], KEY_PROPOSAL_PURPOSE, now)
        .map_err(|error| bad_proof(format!("that of the next key: {}", ErrorChain(&error))))?;
    if by_next != by_current.claims {
        return Err(bad_proof("the two keys signed different claims"));
    }
    if record.next_key == Some(by_current.by) && next_key != by_current.by {
        // Its holder works with it already.
        state.store.use_key(delegate, &by_current.by, now).await?;
    }
    fail_point("control-plane.propose-key.before");
    let proposed = state
        .store
        .propose_key(delegate, &by_current.by, &next_key)
        .await?;
    fail_point("control-plane.propose-key.after");
    match proposed {
        KeyProposed::Accepted => {}
        KeyProposed::NotInForce => {
            return Err(Refusal::new(
                DisconnectCode::SupersededKey,
                "the key was superseded meanwhile",
                Some("run `delegate-agent rotate` again"),
            )
            .into());
        }
        KeyProposed::Taken => {
            return Err(ApiError::Taken {
                what: "the key".to_owned(),
                hint: Some("each key is made for one rotation".to_owned()),
            });
        }
    }
    let record = find(&state, delegate).await?;
    tracing::info!(%delegate, name = record.name, next = %next.kid(), "A delegate proposed its next key");
    Ok(Json(delegate_keys::state(&record)))
}
