//! Whose connection this is.

use crate::{identity::delegate_keys::Refusal, origins::PublicOrigin};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::Deserialize;
use token::MAX_TOKEN;
use wire::{
    control::{DisconnectCode, ProofClaims},
    ids::DelegateUuid,
};

/// Bytes of an Ed25519 signature, which end the payload of a token.
const SIGNATURE: usize = 64;

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

/// Whether what was signed is about this connection of `delegate`.
pub(super) fn check(
    claims: &ProofClaims,
    delegate: DelegateUuid,
    nonce: &str,
    public: &PublicOrigin,
    host: Option<&str>,
) -> Result<(), Refusal> {
    let bad = |reason: String, hint| Refusal::new(DisconnectCode::BadProof, reason, hint);
    if claims.delegate != delegate {
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
    use jiff::Timestamp;
    use newtype_uuid::GenericUuid as _;
    use std::time::Duration;
    use token::{SigningKey, Validity};
    use wire::control::PROOF_PURPOSE;

    fn delegate(number: u128) -> DelegateUuid {
        DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
    }

    fn claims() -> ProofClaims {
        let now = "2026-11-24T00:00:00Z".parse::<Timestamp>().unwrap();
        let Validity { iat, exp } = Validity::starting(now, Duration::from_secs(60));
        ProofClaims {
            delegate: delegate(1),
            audience: "http://localhost:7070".to_owned(),
            nonce: "n".to_owned(),
            iat,
            exp,
        }
    }

    fn judge(claims: &ProofClaims) -> Result<(), DisconnectCode> {
        let public = PublicOrigin::parse("http://localhost:7070").unwrap();
        check(claims, delegate(1), "n", &public, Some("localhost:7070"))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_proof_names_its_delegate_before_it_is_checked() {
        let key = SigningKey::generate().unwrap();
        let proof = token::sign(&claims(), &key, PROOF_PURPOSE).unwrap();
        assert_eq!(claimed_delegate(&proof), Some(delegate(1)));
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
    fn only_a_proof_for_this_nonce_this_origin_and_this_delegate_gets_in() {
        assert_eq!(judge(&claims()), Ok(()));
        let replayed = ProofClaims {
            nonce: "old".to_owned(),
            ..claims()
        };
        let relayed = ProofClaims {
            audience: "https://evil.example".to_owned(),
            ..claims()
        };
        let twin = ProofClaims {
            delegate: delegate(2),
            ..claims()
        };
        for bad in [replayed, relayed, twin] {
            assert_eq!(judge(&bad), Err(DisconnectCode::BadProof), "{bad:?}");
        }
    }
}
