//! What the endpoints about a delegate's key have in common: who signed, for whom, over which nonce.

use crate::{
    api::error::ApiError,
    identity::{
        challenge,
        delegate_keys::{self, Refusal, Signed},
    },
    state::AppState,
};
use daemon::ErrorChain;
use http::{HeaderMap, header};
use store::{DelegateRecord, Hash};
use token::VerifyingKey;
use wire::{
    control::{DisconnectCode, KeyClaims},
    ids::DelegateUuid,
};

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, reason, hint } = refusal;
        match code {
            DisconnectCode::Overloaded => Self::Unavailable {
                what: "the delegate's key",
                why: reason,
                hint,
            },
            code => Self::DelegateKey {
                code: code.as_str(),
                why: reason,
                hint,
            },
        }
    }
}

pub(super) fn bad_proof(why: impl Into<String>) -> ApiError {
    Refusal::new(DisconnectCode::BadProof, why, None).into()
}

pub(super) async fn find(
    state: &AppState,
    delegate: DelegateUuid,
) -> Result<DelegateRecord, ApiError> {
    let known = state.store.delegate(delegate).await?;
    Ok(known.ok_or_else(Refusal::unknown)?)
}

/// Claims of `delegate`, signed by a key of its own that is in force, for this control plane over one of its nonces.
pub(super) async fn signed(
    state: &AppState,
    delegate: &DelegateRecord,
    headers: &HeaderMap,
    proof: &str,
    purpose: &str,
) -> Result<Signed<KeyClaims>, ApiError> {
    let now = state.now();
    let signed =
        delegate_keys::signed::<KeyClaims>(&*state.store, delegate, proof, purpose, now).await?;
    let claims = &signed.claims;
    if claims.delegate != delegate.id {
        return Err(bad_proof("it names another delegate"));
    }
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    if !state.public.is_same(&claims.audience, host) {
        return Err(bad_proof("it was made for another control plane"));
    }
    challenge::check(&state.grants, &claims.nonce, now)
        .map_err(|error| bad_proof(format!("its nonce: {}", ErrorChain(&error))))?;
    Ok(signed)
}

/// The key that the claims are about.
pub(super) fn subject(claims: &KeyClaims) -> Result<(VerifyingKey, Hash), ApiError> {
    let key: VerifyingKey = claims
        .public_key
        .parse()
        .map_err(|error: token::KeyError| ApiError::invalid("`public_key`", error.to_string()))?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(key.as_bytes());
    Ok((key, bytes))
}

/// Where the signer says something about a key, it is its own.
pub(super) fn about_own(signed: &Signed<KeyClaims>) -> Result<(), ApiError> {
    let (_, about) = subject(&signed.claims)?;
    if about == signed.by {
        Ok(())
    } else {
        Err(bad_proof(
            "it is about another key than the one that signed",
        ))
    }
}
