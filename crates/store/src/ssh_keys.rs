//! SSH public keys, with which users come to gateways.

use crate::{Answer, Hash, UserRecord};
use jiff::Timestamp;
use wire::{
    ids::{SshKeyUuid, UserUuid},
    text::SshPublicKey,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKeyRecord {
    pub id: SshKeyUuid,
    pub user: UserUuid,
    pub name: String,
    pub key: SshPublicKey,
    /// SHA-256 of the key's blob; unique, because a key says who somebody is.
    pub fingerprint: Hash,
    pub last_used: Option<Timestamp>,
    pub created: Timestamp,
}

pub trait SshKeyStore {
    /// `Conflict` where anybody has that key.
    fn create_ssh_key<'a>(&'a self, key: &'a SshKeyRecord) -> Answer<'a, ()>;
    /// With its user. Whether that one is disabled is for the caller to see.
    fn ssh_key_by_fingerprint<'a>(
        &'a self,
        fingerprint: &'a Hash,
    ) -> Answer<'a, Option<(SshKeyRecord, UserRecord)>>;
    /// A user's, newest first.
    fn ssh_keys(&self, user: UserUuid) -> Answer<'_, Vec<SshKeyRecord>>;
    /// Whose it is.
    fn ssh_key_owner(&self, id: SshKeyUuid) -> Answer<'_, Option<UserUuid>>;
    /// Whether that user had it.
    fn delete_ssh_key(&self, id: SshKeyUuid, user: UserUuid) -> Answer<'_, bool>;
    /// Never goes back.
    fn touch_ssh_key(&self, id: SshKeyUuid, at: Timestamp) -> Answer<'_, ()>;
}
