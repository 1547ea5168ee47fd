//! Who a caller is, and the secrets that say so.
//!
//! Invariants: tokens, sessions and codes are stored as hashes and shown once; what has to be read again (the grant key, Git
//! credentials, kept answers) is sealed with the key in `seal.key`. Unknown, expired, revoked and disabled all get the same answer.

pub(crate) mod bootstrap;
pub(crate) mod caller;
pub(crate) mod challenge;
pub(crate) mod credentials;
pub(crate) mod delegate_keys;
pub(crate) mod failures;
pub(crate) mod first_start;
pub(crate) mod grants;
pub(crate) mod seal;
pub(crate) mod sessions;
pub(crate) mod spec;
