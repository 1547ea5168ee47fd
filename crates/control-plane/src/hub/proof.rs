//! Whose connection this is.

use crate::origins::PublicOrigin;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::Timestamp;
use serde::Deserialize;
use store::DelegateRecord;
use token::{MAX_TOKEN, TokenError, VerifyingKey};
use wire::{
    control::{DisconnectCode, PROOF_PURPOSE, ProofClaims},
    ids::DelegateUuid,
};

pub(super) const ENROL_AGAIN: &str =
    "enrol the delegate again with a join token: `delegate-agent enroll`";

/// Bytes of an Ed25519 signature, which end the payload of a token.
const SIGNATURE: usize = 64;

/// Why a connection is refused, as the delegate is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: DisconnectCode,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: DisconnectCode, reason: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            code,
            reason: reason.into(),
            hint: hint.map(str::to_owned),
        }
    }
}

/// A nonce nobody can guess, 32 bytes.
pub(super) fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Who the proof says it is from. Nothing is verified: it only says whose key to verify with.
pub(super) fn claimed_delegate(proof: &str) -> Option<DelegateUuid> {
    #[derive(Deserialize)]
    struct Claimed {
        delegate: DelegateUuid,
    }
    if proof.len() > MAX_TOKEN {
        return None;
    }
    let payload = proof.strip_prefix("v4.public.")?.split('.').next()?;
    let bytes = BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
    let claims = bytes.get(..bytes.len().checked_sub(SIGNATURE)?)?;
    let claimed: Claimed = serde_json::from_slice(claims).ok()?;
    Some(claimed.delegate)
}

/// Checks the proof of `delegate` for this connection.
pub(super) fn check(
    proof: &str,
    delegate: &DelegateRecord,
    nonce: &str,
    public: &PublicOrigin,
    host: Option<&str>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let bad = |reason: String, hint| Refusal::new(DisconnectCode::BadProof, reason, hint);
    let key = VerifyingKey::from_bytes(&delegate.public_key).map_err(|error| {
        bad(
            format!("the delegate's registered key is damaged: {error}"),
            Some(ENROL_AGAIN),
        )
    })?;
    let claims: ProofClaims =
        token::verify(proof, [&key], PROOF_PURPOSE, now).map_err(|error| match error {
            TokenError::Expired { .. } | TokenError::NotYetValid { .. } => Refusal::new(
                DisconnectCode::ClockSkew,
                format!("{error}; the control plane's clock says {now}"),
                Some("set the clock of the delegate's host, or of the control plane's"),
            ),
            TokenError::TooLarge { .. }
            | TokenError::Malformed
            | TokenError::UnknownKey
            | TokenError::Forged
            | TokenError::Claims { .. }
            | TokenError::NoLifetime => bad(
                error.to_string(),
                Some("the delegate's key is not the one that was enrolled; enrol it again"),
            ),
        })?;
    if claims.delegate != delegate.id {
        return Err(bad("the proof names another delegate".to_owned(), None));
    }
    if claims.nonce != nonce {
        return Err(bad("the proof is of another connection".to_owned(), None));
    }
    if !public.is_same(&claims.audience, host) {
        return Err(bad(
            format!(
                "the proof is for `{}`, and this is `{}`",
                claims.audience,
                public.as_str()
            ),
            Some("set `control_plane_url` of the delegate to the control plane's public URL"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;
    use std::time::Duration;
    use token::{SigningKey, Validity};
    use wire::control::Epoch;

    fn record(key: &SigningKey) -> DelegateRecord {
        DelegateRecord {
            id: DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(1)),
            name: "d".to_owned(),
            tags: Vec::new(),
            public_key: key.public().as_bytes().try_into().unwrap(),
            revoked: false,
            version: None,
            inventory: None,
            last_seen: None,
            last_disconnect: None,
            epoch: Epoch(0),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn claims(now: Timestamp) -> ProofClaims {
        let Validity { iat, exp } = Validity::starting(now, Duration::from_secs(60));
        ProofClaims {
            delegate: DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(1)),
            audience: "http://localhost:7070".to_owned(),
            nonce: "n".to_owned(),
            iat,
            exp,
        }
    }

    fn now() -> Timestamp {
        "2026-11-24T00:00:00Z".parse().unwrap()
    }

    fn judge(
        claims: &ProofClaims,
        signer: &SigningKey,
        registered: &SigningKey,
    ) -> Result<(), DisconnectCode> {
        let proof = token::sign(claims, signer, PROOF_PURPOSE).unwrap();
        let public = PublicOrigin::parse("http://localhost:7070").unwrap();
        check(
            &proof,
            &record(registered),
            "n",
            &public,
            Some("localhost:7070"),
            now(),
        )
        .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_proof_names_its_delegate_before_it_is_checked() {
        let key = SigningKey::generate().unwrap();
        let proof = token::sign(&claims(now()), &key, PROOF_PURPOSE).unwrap();
        assert_eq!(claimed_delegate(&proof), Some(record(&key).id));
        for hostile in [
            "",
            "v4.public.",
            "v4.public.AAAA",
            "v4.local.AAAA",
            "x",
            "v4.public.é",
        ] {
            assert_eq!(claimed_delegate(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn only_the_registered_key_for_this_nonce_and_this_origin_gets_in() {
        let key = SigningKey::generate().unwrap();
        let other = SigningKey::generate().unwrap();
        assert_eq!(judge(&claims(now()), &key, &key), Ok(()));
        assert_eq!(
            judge(&claims(now()), &other, &key),
            Err(DisconnectCode::BadProof)
        );
        let replayed = ProofClaims {
            nonce: "old".to_owned(),
            ..claims(now())
        };
        assert_eq!(judge(&replayed, &key, &key), Err(DisconnectCode::BadProof));
        let relayed = ProofClaims {
            audience: "https://evil.example".to_owned(),
            ..claims(now())
        };
        assert_eq!(judge(&relayed, &key, &key), Err(DisconnectCode::BadProof));
        let twin = ProofClaims {
            delegate: DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(2)),
            ..claims(now())
        };
        assert_eq!(judge(&twin, &key, &key), Err(DisconnectCode::BadProof));
    }

    #[test]
    fn a_wrong_clock_is_named_as_that() {
        let key = SigningKey::generate().unwrap();
        let hour = Duration::from_secs(3_600);
        for then in [now() - hour, now() + hour] {
            assert_eq!(
                judge(&claims(then), &key, &key),
                Err(DisconnectCode::ClockSkew)
            );
        }
    }
}
