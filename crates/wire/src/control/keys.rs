//! Rotation of a delegate's key, over HTTP: it needs no link, and disturbs none.
//!
//! `POST /api/v1/delegates/{id}/key/challenge` gives a nonce. `PUT …/key` proposes the next key, signed by the key in force and by the next one.
//! Both get in from there on, until `POST …/key/use`, or a link, shows that the next one is in use: the one before has ended then.

use super::Epoch;
use crate::ids::DelegateUuid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Purpose that a proposal is signed for, by both keys.
pub const KEY_PROPOSAL_PURPOSE: &str = "gitspaces delegate key proposal v1";

/// Purpose that the first use of a key is signed for.
pub const KEY_USE_PURPOSE: &str = "gitspaces delegate key use v1";

/// Purpose of a question whether a key would be let in; it changes nothing.
pub const KEY_CHECK_PURPOSE: &str = "gitspaces delegate key check v1";

/// What has to be signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyChallenge {
    /// Good for about a minute.
    pub nonce: String,
    pub now: Timestamp,
}

/// What a delegate signs about one of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyClaims {
    pub delegate: DelegateUuid,
    /// As in [`ProofClaims::audience`](super::ProofClaims::audience).
    pub audience: String,
    /// Of the [`KeyChallenge`].
    pub nonce: String,
    /// The key that is proposed, used or asked about: Ed25519, base64url without padding.
    pub public_key: String,
    /// The sender's own link, which outlives the key that it was opened with. Another one of this delegate is not the sender's, and ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Epoch>,
    pub iat: Timestamp,
    pub exp: Timestamp,
}

/// Body of `PUT …/key`. Both sign the same [`KeyClaims`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProposal {
    /// By the key in force: it may name its successor.
    pub by_current: String,
    /// By the next key: the sender has it.
    pub by_next: String,
}

/// Body of `POST …/key/use` and `POST …/key/check`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProof {
    /// Signed [`KeyClaims`].
    pub proof: String,
}

/// A delegate's keys. Each is named by its fingerprint: 16 hexadecimal digits of its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyState {
    pub fingerprint: String,
    /// Since when it is in force.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Accepted and not used yet: both get in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
