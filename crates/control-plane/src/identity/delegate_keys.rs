//! Which of a delegate's keys signed something, and why another one is not taken.
//!
//! In force are its key and, until that one is used, the next one it proposed. A key that has ended is named as that: whoever has it has an
//! old copy of the identity.

use daemon::ErrorChain;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use store::{DelegateRecord, Hash, Store};
use token::{KeyError, Timed, TokenError, VerifyingKey};
use wire::{
    control::{DisconnectCode, KeyState},
    shown,
};

/// What makes a delegate of a host that has an identity which nobody knows.
const ENROL: &str = "to let this host in: stop delegate-agent, make a join token with `gitspace join-token create`, run `delegate-agent enroll --again --join-token-file FILE`, and start delegate-agent";

/// What lets a revoked delegate in again.
pub(crate) const ENROL_AGAIN: &str = "to let this host in again: stop delegate-agent, make a join token with `gitspace join-token create --delegate NAME`, run `delegate-agent enroll --again --join-token-file FILE`, and start delegate-agent";

/// What gives a delegate that is not revoked another key than the one it has lost.
const GIVE_ANOTHER_KEY: &str = "run `gitspace delegate revoke NAME` and `gitspace join-token create --delegate NAME`, then stop delegate-agent, run `delegate-agent enroll --again --join-token-file FILE`, and start it";

/// Of two clocks that are apart.
pub(crate) const SET_CLOCK: &str = "set the one that is wrong, on the delegate's host or on the control plane's: `timedatectl set-ntp true`";

const SUPERSEDED_KEY: &str = "put the newest `identity.json` back into the delegate's state folder, and restart delegate-agent, which reads it at its start; where there is none, run `gitspace delegate revoke NAME` and `gitspace join-token create --delegate NAME`, then stop delegate-agent, run `delegate-agent enroll --again --join-token-file FILE`, and start it";

/// Why a delegate is refused, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: DisconnectCode,
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: DisconnectCode, reason: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            code,
            reason: reason.into(),
            hint: hint.map(str::to_owned),
        }
    }

    pub(crate) fn unknown() -> Self {
        Self::new(
            DisconnectCode::UnknownDelegate,
            "this control plane does not know the delegate",
            Some(ENROL),
        )
    }

    pub(crate) fn revoked() -> Self {
        Self::new(
            DisconnectCode::Revoked,
            "the delegate was revoked",
            Some(ENROL_AGAIN),
        )
    }

    /// Its key ended at `ended`, and `now` is another one's.
    fn superseded(ended: Timestamp, now: &str) -> Self {
        Self::new(
            DisconnectCode::SupersededKey,
            format!(
                "this key of the delegate was superseded at {ended} by `{now}`: the identity is an old copy"
            ),
            Some(SUPERSEDED_KEY),
        )
    }

    /// The delegate's link is another process's than the one that uses its new key.
    pub(crate) fn key_rotated() -> Self {
        Self::new(
            DisconnectCode::SupersededKey,
            "the delegate's key was rotated by another process",
            Some(SUPERSEDED_KEY),
        )
    }

    fn damaged(error: &KeyError) -> Self {
        Self::new(
            DisconnectCode::BadProof,
            format!("the delegate's registered key is damaged: {error}"),
            Some(GIVE_ANOTHER_KEY),
        )
    }

    /// The control plane cannot say yes or no.
    pub(crate) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = %ErrorChain(error), "Cannot greet a delegate");
        Self::new(
            DisconnectCode::Overloaded,
            format!("the control plane cannot greet now: {}", ErrorChain(error)),
            None,
        )
    }

    /// What the delegate made at `iat` by its clock, a moment ago, does not hold at `now` by ours.
    pub(crate) fn clock_skew(iat: Timestamp, now: Timestamp) -> Self {
        let behind_ms = i64::try_from(now.duration_since(iat).as_millis()).unwrap_or(i64::MAX);
        Self::new(
            DisconnectCode::ClockSkew,
            format!(
                "{}, which says {now}",
                shown::clocks("the delegate's", "the control plane's", behind_ms)
            ),
            Some(SET_CLOCK),
        )
    }

    pub(super) fn of_token(error: &TokenError, now: Timestamp) -> Self {
        match error {
            TokenError::Expired { iat, .. } | TokenError::NotYetValid { iat, .. } => {
                Self::clock_skew(*iat, now)
            }
            TokenError::TooLarge { .. }
            | TokenError::Malformed
            | TokenError::UnknownKey
            | TokenError::Forged
            | TokenError::Claims { .. }
            | TokenError::NoLifetime => Self::new(
                DisconnectCode::BadProof,
                error.to_string(),
                Some(GIVE_ANOTHER_KEY),
            ),
        }
    }
}

/// Claims that a key of the delegate signed for their purpose.
#[derive(Debug)]
pub(crate) struct Signed<T> {
    pub(crate) claims: T,
    pub(crate) by: Hash,
}

fn verify<T: DeserializeOwned + Timed>(
    token: &str,
    keys: impl IntoIterator<Item = Hash>,
    purpose: &str,
    now: Timestamp,
) -> Result<Signed<T>, Refusal> {
    let mut result = Err(TokenError::UnknownKey);
    for by in keys {
        let key = VerifyingKey::from_bytes(&by).map_err(|error| Refusal::damaged(&error))?;
        result = token::verify(token, [&key], purpose, now).map(|claims| Signed { claims, by });
        if !matches!(result, Err(TokenError::UnknownKey)) {
            break;
        }
    }
    result.map_err(|error| Refusal::of_token(&error, now))
}

/// # Errors
/// It is signed by none of the delegate's keys that are in force, does not hold, or the delegate is revoked.
pub(crate) async fn signed<T: DeserializeOwned + Timed>(
    store: &dyn Store,
    delegate: &DelegateRecord,
    token: &str,
    purpose: &str,
    now: Timestamp,
) -> Result<Signed<T>, Refusal> {
    let in_force = [Some(delegate.public_key), delegate.next_key];
    let refusal = match verify(token, in_force.into_iter().flatten(), purpose, now) {
        Ok(_) if delegate.revoked => return Err(Refusal::revoked()),
        Ok(signed) => return Ok(signed),
        Err(refusal) => refusal,
    };
    if refusal.code != DisconnectCode::BadProof {
        return Err(refusal);
    }
    let ended = store
        .ended_keys(delegate.id)
        .await
        .map_err(|error| Refusal::unavailable(&error))?;
    let keys = ended.iter().map(|key| key.public_key);
    match verify::<T>(token, keys, purpose, now) {
        Ok(Signed { by, .. }) => Err(ended
            .iter()
            .find(|key| key.public_key == by)
            .map_or(refusal, |key| {
                Refusal::superseded(key.ended, &fingerprint(&delegate.public_key))
            })),
        Err(_) => Err(refusal),
    }
}

/// A damaged one has none.
fn fingerprint(key: &Hash) -> String {
    VerifyingKey::from_bytes(key)
        .map(|key| key.kid().to_string())
        .unwrap_or_default()
}

/// For the API.
pub(crate) fn state(delegate: &DelegateRecord) -> KeyState {
    KeyState {
        fingerprint: fingerprint(&delegate.public_key),
        since: delegate.key_since,
        next: delegate.next_key.as_ref().map(fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;
    use std::time::Duration;
    use token::{SigningKey, Validity};
    use wire::{
        control::{PROOF_PURPOSE, ProofClaims},
        ids::DelegateUuid,
    };

    fn now() -> Timestamp {
        "2026-11-24T00:00:00Z".parse().unwrap()
    }

    fn bytes(key: &SigningKey) -> Hash {
        key.public().as_bytes().try_into().unwrap()
    }

    fn judge(
        signer: &SigningKey,
        purpose: &str,
        at: Timestamp,
        keys: &[&SigningKey],
    ) -> Result<Hash, DisconnectCode> {
        let Validity { iat, exp } = Validity::starting(at, Duration::from_secs(60));
        let claims = ProofClaims {
            delegate: DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(1)),
            audience: "http://localhost:7070".to_owned(),
            nonce: "n".to_owned(),
            iat,
            exp,
        };
        let proof = token::sign(&claims, signer, purpose).unwrap();
        let keys = keys.iter().map(|key| bytes(key));
        verify::<ProofClaims>(&proof, keys, PROOF_PURPOSE, now())
            .map(|signed| signed.by)
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn each_key_in_force_gets_in_and_is_told_from_the_other() {
        let [key, next, other] = [(); 3].map(|()| SigningKey::generate().unwrap());
        for signer in [&key, &next] {
            let by = judge(signer, PROOF_PURPOSE, now(), &[&key, &next]);
            assert_eq!(by, Ok(bytes(signer)));
        }
        for (signer, purpose) in [(&other, PROOF_PURPOSE), (&key, "another purpose")] {
            assert_eq!(
                judge(signer, purpose, now(), &[&key, &next]),
                Err(DisconnectCode::BadProof)
            );
        }
    }

    #[test]
    fn a_wrong_clock_is_named_as_that() {
        let key = SigningKey::generate().unwrap();
        let hour = Duration::from_secs(3_600);
        for then in [now() - hour, now() + hour] {
            assert_eq!(
                judge(&key, PROOF_PURPOSE, then, &[&key]),
                Err(DisconnectCode::ClockSkew)
            );
        }
    }
}
