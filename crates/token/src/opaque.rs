//! Opaque tokens: a prefix that says the kind, and 32 random bytes. Shown once, stored as a hash.
//!
//! The hash is a plain SHA-256: 256 random bits cannot be guessed, so there is nothing that a slow hash would slow down.

use crate::RandomError;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;
use wire::secret::Secret;

const RANDOM: usize = 32;
/// 32 bytes in base32.
const BODY: usize = 52;

/// What a token opens. The prefix is for people and for secret scanners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A user's, for the API.
    PersonalAccess,
    /// The first administrator's, for the API, until there is another.
    Bootstrap,
    /// Lets a delegate enrol.
    Join,
    /// Becomes a cookie at a gateway, once.
    OneTimeCode,
    /// A gateway's, for its link to the control plane.
    Gateway,
    /// A browser's, in a cookie of the control plane.
    Session,
}

impl TokenKind {
    pub const ALL: [Self; 6] = [
        Self::PersonalAccess,
        Self::Bootstrap,
        Self::Join,
        Self::OneTimeCode,
        Self::Gateway,
        Self::Session,
    ];

    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::PersonalAccess => "gsp_",
            Self::Bootstrap => wire::api::BOOTSTRAP_PREFIX,
            Self::Join => "gsj_",
            Self::OneTimeCode => "gsc_",
            Self::Gateway => "gsg_",
            Self::Session => "gss_",
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PersonalAccess => "personal access token",
            Self::Bootstrap => "bootstrap token",
            Self::Join => "join token",
            Self::OneTimeCode => "one-time code",
            Self::Gateway => "gateway token",
            Self::Session => "session",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueError {
    #[error("this is a {}, and a {} is needed", found.name(), wanted.name())]
    OtherKind { found: TokenKind, wanted: TokenKind },
    #[error("this is not a {}", wanted.name())]
    Malformed { wanted: TokenKind },
}

/// A token as its holder has it.
#[derive(Clone)]
pub struct OpaqueToken {
    kind: TokenKind,
    text: SecretString,
}

impl OpaqueToken {
    /// # Errors
    /// Fails where the operating system has no randomness.
    pub fn generate(kind: TokenKind) -> Result<Self, RandomError> {
        Ok(Self::from_random(kind, crate::random()?))
    }

    /// From randomness of the caller's.
    #[must_use]
    pub fn from_random(kind: TokenKind, random: [u8; RANDOM]) -> Self {
        let mut text = BASE32_NOPAD.encode(&random);
        text.make_ascii_lowercase();
        Self {
            kind,
            text: format!("{}{text}", kind.prefix()).into(),
        }
    }

    /// Checks the form only: whether the token is known is a question for the store.
    ///
    /// # Errors
    /// Says which kind it is instead; never repeats it.
    pub fn parse(text: &str, wanted: TokenKind) -> Result<Self, OpaqueError> {
        let malformed = OpaqueError::Malformed { wanted };
        let Some((kind, body)) = TokenKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?)))
        else {
            return Err(malformed);
        };
        if kind != wanted {
            return Err(OpaqueError::OtherKind {
                found: kind,
                wanted,
            });
        }
        let plausible = body.len() == BODY
            && body.bytes().all(|byte| !byte.is_ascii_uppercase())
            && BASE32_NOPAD
                .decode(body.to_ascii_uppercase().as_bytes())
                .is_ok();
        if !plausible {
            return Err(malformed);
        }
        Ok(Self {
            kind,
            text: text.to_owned().into(),
        })
    }

    #[must_use]
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The token itself, for the one place that shows or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    #[must_use]
    pub fn to_secret(&self) -> Secret {
        Secret::new(self.expose())
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.expose().as_bytes()).into())
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[redacted]", self.kind.prefix())
    }
}

/// The hash of a token. Compares in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart in a log.
        let (start, _) = self.0.split_at(4);
        write!(f, "TokenHash({}..)", HEXLOWER.encode(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_has_the_same_hash() {
        for kind in TokenKind::ALL {
            let token = OpaqueToken::generate(kind).unwrap();
            assert_eq!(token.expose().len(), 4 + BODY);
            let read = OpaqueToken::parse(token.expose(), kind).unwrap();
            assert_eq!(read.hash(), token.hash());
        }
    }

    #[test]
    fn two_tokens_differ() {
        let (one, two) = (
            OpaqueToken::generate(TokenKind::Join).unwrap(),
            OpaqueToken::generate(TokenKind::Join).unwrap(),
        );
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn the_same_randomness_for_two_kinds_makes_two_hashes() {
        let one = OpaqueToken::from_random(TokenKind::Join, [7; 32]);
        let two = OpaqueToken::from_random(TokenKind::Gateway, [7; 32]);
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn another_kind_is_refused_by_name() {
        let token = OpaqueToken::generate(TokenKind::Join).unwrap();
        assert_eq!(
            OpaqueToken::parse(token.expose(), TokenKind::PersonalAccess)
                .unwrap_err()
                .to_string(),
            "this is a join token, and a personal access token is needed"
        );
    }

    #[test]
    #[expect(clippy::string_slice, reason = "tokens are ASCII")]
    fn what_is_no_token_is_refused() {
        let good = OpaqueToken::from_random(TokenKind::Join, [7; 32]);
        let good = good.expose();
        let truncated = &good[..good.len() - 1];
        let long = format!("{good}a");
        let upper = format!("gsj_{}", good[4..].to_uppercase());
        // The last character of 32 bytes has four bits that must be zero.
        let loose = format!("{truncated}b");
        for text in ["", "gsj_", "gsx_abc", truncated, &long, &upper, &loose] {
            assert_eq!(
                OpaqueToken::parse(text, TokenKind::Join).unwrap_err(),
                OpaqueError::Malformed {
                    wanted: TokenKind::Join
                },
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_never_prints_itself() {
        let token = OpaqueToken::generate(TokenKind::PersonalAccess).unwrap();
        assert_eq!(format!("{token:?}"), "gsp_[redacted]");
    }
}
