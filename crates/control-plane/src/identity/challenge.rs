//! Nonces over HTTP: signed with the control plane's own key, so that nothing has to be kept of those that are never used.
//!
//! One holds for a minute and may be seen twice within it: what is signed over it has to be safe to repeat.

use super::grants::GrantIssuer;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use token::{SignError, Timed, TokenError, Validity};

const LIFE: Duration = Duration::from_secs(60);
const PURPOSE: &str = "gitspaces control plane nonce v1";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    #[error("cannot get randomness from the operating system")]
    Random {
        #[source]
        source: getrandom::Error,
    },
    #[error("cannot sign the nonce")]
    Sign {
        #[source]
        source: SignError,
    },
}

#[derive(Serialize, Deserialize)]
struct NonceClaims {
    random: String,
    iat: Timestamp,
    exp: Timestamp,
}

impl Timed for NonceClaims {
    fn validity(&self) -> Validity {
        Validity {
            iat: self.iat,
            exp: self.exp,
        }
    }
}

/// A fresh nonce.
pub(crate) fn make(issuer: &GrantIssuer, now: Timestamp) -> Result<String, ChallengeError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|source| ChallengeError::Random { source })?;
    let Validity { iat, exp } = Validity::starting(now, LIFE);
    let claims = NonceClaims {
        random: HEXLOWER.encode(&random),
        iat,
        exp,
    };
    token::sign(&claims, issuer.key(), PURPOSE).map_err(|source| ChallengeError::Sign { source })
}

/// Whether it was made here, lately.
pub(crate) fn check(issuer: &GrantIssuer, nonce: &str, now: Timestamp) -> Result<(), TokenError> {
    token::verify::<NonceClaims>(nonce, [issuer.key().public()], PURPOSE, now).map(drop)
}
