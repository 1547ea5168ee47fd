//! What the control plane keeps: models and the traits of their storage. No SQL, no clock, no randomness.
//!
//! Use it through `Arc<dyn Store>`: the methods of all the traits below are callable on it.
//!
//! | trait | keeps |
//! |---|---|
//! | [`UserStore`] | users |
//! | [`AccessStore`] | access tokens, browser sessions, one-time codes, idempotency keys, Git credentials |
//! | [`SshKeyStore`] | users' SSH public keys |
//! | [`PortStore`] | ports that gitspaces share |
//! | [`DelegateStore`] | join tokens and delegates |
//! | [`CatalogStore`] | infra providers, machines, gateways, settings, revocations |
//! | [`GitspaceStore`] | gitspaces with their tasks, timeline and logs |
//!
//! Invariants: each method is one transaction. Times come from the caller and are kept to the microsecond. Secrets are never stored, only hashes of
//! tokens and bytes that the caller sealed.

mod access;
mod catalog;
mod delegates;
mod error;
mod gitspaces;
mod page;
mod ports;
mod ssh_keys;
mod users;

pub use access::{
    AccessStore, AccessTokenRecord, Claimed, CodeRecord, GitCredentialRecord, IdempotencyClaim,
    SessionRecord,
};
pub use catalog::{CatalogStore, GatewayRecord, InfraProviderRecord, MachineRecord};
pub use delegates::{
    DelegateNote, DelegateRecord, DelegateSeen, DelegateStore, EndedKey, Enrolment,
    EnrolmentDenied, JoinTokenRecord, KeyProposed, MAX_ENDED_KEYS,
};
pub use error::{Cause, StoreError};
pub use gitspaces::{
    GitspaceCommit, GitspaceFilter, GitspaceRecord, GitspaceStore, MAX_LOG_ENTRIES,
    MAX_TIMELINE_EVENTS, MachineSnapshot, NewLogEntry, NewTimelineEvent, RemovalRecord, TaskRecord,
    TaskState,
};
pub use page::{Cursor, CursorError, PageRequest};
pub use ports::{PortStore, SharedPortRecord};
pub use ssh_keys::{SshKeyRecord, SshKeyStore};
pub use users::{UserRecord, UserStore};

use std::pin::Pin;

/// What every method answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// SHA-256 of a token; `token::TokenHash::as_bytes` gives it.
pub type Hash = [u8; 32];

/// All of it behind one handle.
pub trait Store:
    UserStore
    + AccessStore
    + SshKeyStore
    + DelegateStore
    + CatalogStore
    + GitspaceStore
    + PortStore
    + Send
    + Sync
    + 'static
{
    /// Drops what has expired: sessions, codes, idempotency keys, revocations, and join tokens expired for a month.
    fn drop_expired(&self, now: jiff::Timestamp) -> Answer<'_, u64>;

    /// Whether the database answers.
    fn ping(&self) -> Answer<'_, ()>;
}
