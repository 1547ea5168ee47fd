//! Tokens: signed ones, which are checked without asking anybody, and opaque ones, which are looked up by their hash.
//!
//! Signed: PASETO `v4.public` (Ed25519). The purpose is the implicit assertion: it is signed but not sent, so a token
//! made for one purpose is worth nothing for another. The footer is the id of the key.
//!
//! Invariants:
//! - [`verify`] gives claims only after signature, purpose and time were checked, in this order.
//! - No secret is in any `Debug` or error text.
//!
//! It knows no user and no revocation: whoever verifies asks for those.

mod key;
mod opaque;
mod signed;

pub use key::{KeyError, KeyId, SigningKey, VerifyingKey};
pub use opaque::{OpaqueError, OpaqueToken, TokenHash, TokenKind};
pub use signed::{LEEWAY, MAX_TOKEN, SignError, Timed, TokenError, Validity, sign, verify};

/// The operating system has no randomness to give.
#[derive(Debug, thiserror::Error)]
#[error("cannot get randomness from the operating system")]
pub struct RandomError {
    #[source]
    source: getrandom::Error,
}

fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|source| RandomError { source })?;
    Ok(bytes)
}
