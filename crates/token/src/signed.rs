//! Signed tokens.

use crate::{KeyId, SigningKey, VerifyingKey};
use jiff::{SignedDuration, Timestamp};
use pasetors::{
    Public,
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use wire::{
    control::{EnrolClaims, KeyClaims, ProofClaims},
    gateway::GrantClaims,
    tunnel::TunnelClaims,
};

/// The largest token: it has to fit a header beside others.
pub const MAX_TOKEN: usize = 4096;

/// How far two clocks may be apart.
pub const LEEWAY: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("cannot write the claims as JSON")]
    Json {
        #[source]
        source: serde_json::Error,
    },
    #[error("the token has {length} bytes, more than {MAX_TOKEN}")]
    TooLarge { length: usize },
    #[error("cannot sign with the key `{kid}`")]
    Key { kid: KeyId },
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token has {length} bytes, more than {MAX_TOKEN}")]
    TooLarge { length: usize },
    #[error("it is not a token")]
    Malformed,
    #[error("the token is signed by a key that is not known here")]
    UnknownKey,
    /// Forged, changed, or made for another purpose: these cannot be told apart.
    #[error("the signature of the token does not fit it and its purpose")]
    Forged,
    #[error("the claims of the token are not what its purpose has")]
    Claims {
        #[source]
        source: serde_json::Error,
    },
    #[error("the token ends before it begins")]
    NoLifetime,
    #[error("the token expired at {exp}")]
    Expired {
        iat: Timestamp,
        exp: Timestamp,
        now: Timestamp,
    },
    #[error("the token is of the future: it was issued at {iat}, and here it is {now}")]
    NotYetValid { iat: Timestamp, now: Timestamp },
}

/// From when to when claims hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub iat: Timestamp,
    pub exp: Timestamp,
}

impl Validity {
    /// From `now` on; to the end of time where that comes first.
    #[must_use]
    pub fn starting(now: Timestamp, lifetime: Duration) -> Self {
        Self {
            iat: now,
            exp: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
        }
    }

    /// # Errors
    /// Says on which side of it `now` is, more than [`LEEWAY`] away.
    pub fn check(&self, now: Timestamp) -> Result<(), TokenError> {
        if self.exp <= self.iat {
            return Err(TokenError::NoLifetime);
        }
        if now.duration_since(self.exp) >= LEEWAY {
            return Err(TokenError::Expired {
                iat: self.iat,
                exp: self.exp,
                now,
            });
        }
        if self.iat.duration_since(now) > LEEWAY {
            return Err(TokenError::NotYetValid { iat: self.iat, now });
        }
        Ok(())
    }
}

/// Claims say from when to when they hold, so that [`verify`] cannot forget to look.
pub trait Timed {
    fn validity(&self) -> Validity;
}

macro_rules! timed {
    ($($claims:ty),*) => {$(
        impl Timed for $claims {
            fn validity(&self) -> Validity {
                Validity { iat: self.iat, exp: self.exp }
            }
        }
    )*};
}
timed!(
    GrantClaims,
    ProofClaims,
    EnrolClaims,
    KeyClaims,
    TunnelClaims
);

/// Signs `claims` for one purpose.
///
/// # Errors
/// Fails where the token would be larger than [`MAX_TOKEN`].
pub fn sign<T: Serialize + Timed>(
    claims: &T,
    key: &SigningKey,
    purpose: &str,
) -> Result<String, SignError> {
    let payload = serde_json::to_vec(claims).map_err(|source| SignError::Json { source })?;
    let kid = key.public().kid();
    let token = PublicToken::sign(
        &key.secret,
        &payload,
        Some(kid.as_str().as_bytes()),
        Some(purpose.as_bytes()),
    )
    .map_err(|_| SignError::Key { kid: kid.clone() })?;
    if token.len() > MAX_TOKEN {
        return Err(SignError::TooLarge {
            length: token.len(),
        });
    }
    Ok(token)
}

/// The claims of a token that one of `keys` signed for `purpose` and that holds at `now`.
///
/// # Errors
/// See [`TokenError`].
pub fn verify<'k, T: DeserializeOwned + Timed>(
    token: &str,
    keys: impl IntoIterator<Item = &'k VerifyingKey>,
    purpose: &str,
    now: Timestamp,
) -> Result<T, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLarge {
            length: token.len(),
        });
    }
    let untrusted =
        UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::Malformed)?;
    let kid = untrusted.untrusted_footer();
    let key = keys
        .into_iter()
        .find(|key| key.kid().as_str().as_bytes() == kid)
        .ok_or(TokenError::UnknownKey)?;
    let trusted = PublicToken::verify(
        &key.public,
        &untrusted,
        Some(key.kid().as_str().as_bytes()),
        Some(purpose.as_bytes()),
    )
    .map_err(|_| TokenError::Forged)?;
    let claims: T =
        serde_json::from_str(trusted.payload()).map_err(|source| TokenError::Claims { source })?;
    claims.validity().check(now)?;
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    const PURPOSE: &str = "gitspaces test v1";

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Claims {
        who: String,
        iat: Timestamp,
        exp: Timestamp,
    }
    timed!(Claims);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            who: "ada".to_owned(),
            iat: at(0),
            exp: at(60),
        }
    }

    fn signed() -> (SigningKey, String) {
        let key = SigningKey::generate().unwrap();
        let token = sign(&claims(), &key, PURPOSE).unwrap();
        (key, token)
    }

    fn read(token: &str, key: &SigningKey, now: Timestamp) -> Result<Claims, TokenError> {
        verify(token, [key.public()], PURPOSE, now)
    }

    #[test]
    fn a_token_gives_back_its_claims() {
        let (key, token) = signed();
        assert!(token.starts_with("v4.public."));
        assert_eq!(read(&token, &key, at(1)).unwrap(), claims());
    }

    #[test]
    fn the_key_is_found_among_others() {
        let (key, token) = signed();
        let other = SigningKey::generate().unwrap();
        let keys = [other.public(), key.public()];
        assert!(verify::<Claims>(&token, keys, PURPOSE, at(1)).is_ok());
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let (_, token) = signed();
        let other = SigningKey::generate().unwrap();
        assert!(matches!(
            read(&token, &other, at(1)),
            Err(TokenError::UnknownKey)
        ));
    }

    #[test]
    fn a_token_that_claims_anothers_key_id_is_forged() {
        let (key, _) = signed();
        let forger = SigningKey::generate().unwrap();
        let payload = serde_json::to_vec(&claims()).unwrap();
        let token = PublicToken::sign(
            &forger.secret,
            &payload,
            Some(key.public().kid().as_str().as_bytes()),
            Some(PURPOSE.as_bytes()),
        )
        .unwrap();
        assert!(matches!(read(&token, &key, at(1)), Err(TokenError::Forged)));
    }

    #[test]
    fn a_token_for_another_purpose_is_refused() {
        let (key, token) = signed();
        assert!(matches!(
            verify::<Claims>(&token, [key.public()], "gitspaces other v1", at(1)),
            Err(TokenError::Forged)
        ));
    }

    #[test]
    #[expect(clippy::string_slice, reason = "tokens are ASCII")]
    fn no_character_can_be_changed_and_no_end_cut_off() {
        let (key, token) = signed();
        for index in 0..token.len() {
            assert!(
                read(&token[..index], &key, at(1)).is_err(),
                "cut at {index}"
            );
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(read(&changed, &key, at(1)).is_err(), "changed at {index}");
        }
        assert!(read(&format!("{token}A"), &key, at(1)).is_err());
        assert!(read(&format!("{token}.e30"), &key, at(1)).is_err());
    }

    #[test]
    fn a_token_holds_from_its_issue_to_its_end_within_the_leeway() {
        let (key, token) = signed();
        assert!(read(&token, &key, at(-30)).is_ok());
        assert!(matches!(
            read(&token, &key, at(-31)),
            Err(TokenError::NotYetValid { .. })
        ));
        assert!(read(&token, &key, at(89)).is_ok());
        assert!(matches!(
            read(&token, &key, at(90)),
            Err(TokenError::Expired { .. })
        ));
    }

    #[test]
    fn an_expired_forgery_is_called_forged() {
        let (key, token) = signed();
        assert!(matches!(
            verify::<Claims>(&token, [key.public()], "x", at(9999)),
            Err(TokenError::Forged)
        ));
    }

    #[test]
    fn a_large_token_is_neither_made_nor_read() {
        let key = SigningKey::generate().unwrap();
        let large = Claims {
            who: "x".repeat(MAX_TOKEN),
            ..claims()
        };
        assert!(matches!(
            sign(&large, &key, PURPOSE),
            Err(SignError::TooLarge { .. })
        ));
        assert!(matches!(
            read(&"x".repeat(MAX_TOKEN + 1), &key, at(0)),
            Err(TokenError::TooLarge { .. })
        ));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let key = SigningKey::generate().unwrap();
        for text in [
            "",
            "v4.public.",
            "v4.local.AAAA",
            "v4.public.é",
            "a.b.c.d.e",
        ] {
            assert!(
                matches!(read(text, &key, at(0)), Err(TokenError::Malformed)),
                "{text}"
            );
        }
    }

    #[test]
    fn claims_without_a_lifetime_are_refused() {
        let validity = Validity {
            iat: at(5),
            exp: at(5),
        };
        assert!(matches!(validity.check(at(5)), Err(TokenError::NoLifetime)));
        assert_eq!(Validity::starting(at(0), Duration::MAX).exp, Timestamp::MAX);
    }
}
