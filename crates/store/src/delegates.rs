//! Delegates and the tokens they join with.

use crate::{Answer, Hash};
use jiff::Timestamp;
use wire::{
    control::{Disconnect, Epoch, Inventory},
    ids::{DelegateUuid, JoinTokenUuid},
};

/// Of one delegate, that are told from keys which never were one.
pub const MAX_ENDED_KEYS: u32 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    pub id: JoinTokenUuid,
    pub comment: Option<String>,
    /// The revoked delegate that comes back by it; `None` where it makes delegates.
    pub delegate: Option<DelegateUuid>,
    pub hash: Hash,
    pub uses_left: u32,
    pub exp: Timestamp,
    pub revoked: bool,
    pub created: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DelegateRecord {
    pub id: DelegateUuid,
    /// Unique.
    pub name: String,
    pub tags: Vec<String>,
    /// Ed25519.
    pub public_key: Hash,
    /// Since when that is its key.
    pub key_since: Timestamp,
    /// Proposed by the delegate and not used yet; its first use ends `public_key`.
    pub next_key: Option<Hash>,
    pub revoked: bool,
    /// Of its software, from its last hello.
    pub version: Option<String>,
    pub inventory: Option<Inventory>,
    pub last_seen: Option<Timestamp>,
    /// Why its last connection ended.
    pub last_disconnect: Option<Disconnect>,
    /// Of its last accepted connection.
    pub epoch: Epoch,
    pub created: Timestamp,
}

/// A key that another one has taken the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedKey {
    pub public_key: Hash,
    pub ended: Timestamp,
}

/// What became of a proposed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProposed {
    /// Both keys get in until it is used. Also where it was proposed before.
    Accepted,
    /// The key that proposed it is not in force any more, or the delegate is revoked or gone.
    NotInForce,
    /// It is, was or will be a key already.
    Taken,
}

/// Something about a delegate's connections that is kept.
#[derive(Clone, Debug)]
pub enum DelegateNote {
    Seen {
        id: DelegateUuid,
        seen: Box<DelegateSeen>,
    },
    Disconnected {
        id: DelegateUuid,
        disconnect: Disconnect,
        at: Timestamp,
    },
}

/// What a delegate says of itself in a hello.
#[derive(Clone, Debug)]
pub struct DelegateSeen {
    pub version: String,
    pub tags: Vec<String>,
    pub inventory: Inventory,
    pub at: Timestamp,
}

/// How an enrolment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// The join token was used and the delegate registered.
    Enrolled(DelegateUuid),
    /// The same name and key are registered already (an answer got lost): the token was not used.
    Already(DelegateUuid),
    /// A revoked delegate of that name has a fresh key and is valid again; it keeps its id, so its gitspaces stay reachable.
    Renewed(DelegateUuid),
    Denied(EnrolmentDenied),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentDenied {
    #[error("the join token is not known")]
    UnknownToken,
    #[error("the join token is revoked")]
    Revoked,
    #[error("the join token has expired")]
    Expired,
    #[error("the join token is used up")]
    UsedUp,
    #[error("another delegate has this name")]
    NameTaken,
    #[error("the delegate of this name was revoked, and the join token is not for its return")]
    NotForReturn,
    #[error("the join token is for the return of another delegate")]
    OtherDelegate,
    #[error("another delegate has this key")]
    KeyTaken,
}

pub trait DelegateStore {
    fn create_join_token<'a>(&'a self, token: &'a JoinTokenRecord) -> Answer<'a, ()>;
    /// Newest first.
    fn join_tokens(&self) -> Answer<'_, Vec<JoinTokenRecord>>;
    /// Whether there was one.
    fn revoke_join_token(&self, id: JoinTokenUuid) -> Answer<'_, bool>;

    /// Checks the token, counts it down and registers the delegate in one transaction.
    fn enrol_delegate<'a>(
        &'a self,
        join_token: &'a Hash,
        delegate: &'a DelegateRecord,
        now: Timestamp,
    ) -> Answer<'a, Enrolment>;
    fn delegate(&self, id: DelegateUuid) -> Answer<'_, Option<DelegateRecord>>;
    fn delegate_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<DelegateRecord>>;
    /// By name.
    fn delegates(&self) -> Answer<'_, Vec<DelegateRecord>>;
    /// Counts each one's epoch up and answers with it, in order. `None` where there is no such delegate or it is revoked.
    fn next_epochs<'a>(&'a self, ids: &'a [DelegateUuid]) -> Answer<'a, Vec<Option<Epoch>>>;
    /// Keeps all of them or none, in order.
    fn note_delegates<'a>(&'a self, notes: &'a [DelegateNote]) -> Answer<'a, ()>;
    fn delegate_inventory<'a>(
        &'a self,
        id: DelegateUuid,
        inventory: &'a Inventory,
        at: Timestamp,
    ) -> Answer<'a, ()>;
    /// Keeps `next` beside `current`, in place of one that was proposed before.
    fn propose_key<'a>(
        &'a self,
        id: DelegateUuid,
        current: &'a Hash,
        next: &'a Hash,
    ) -> Answer<'a, KeyProposed>;
    /// `key` was proposed and is in use: from `now` on it is the only one. Whether it was proposed.
    fn use_key<'a>(&'a self, id: DelegateUuid, key: &'a Hash, now: Timestamp) -> Answer<'a, bool>;
    /// The newest ones first, [`MAX_ENDED_KEYS`] at most.
    fn ended_keys(&self, id: DelegateUuid) -> Answer<'_, Vec<EndedKey>>;
    /// Whether there was one.
    fn revoke_delegate(&self, id: DelegateUuid) -> Answer<'_, bool>;
}
