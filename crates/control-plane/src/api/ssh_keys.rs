//! SSH public keys, with which users come to gateways.

pub(crate) mod create_ssh_key;
pub(crate) mod delete_ssh_key;
pub(crate) mod list_ssh_keys;

use data_encoding::BASE64_NOPAD;
use sha2::{Digest as _, Sha256};
use store::{Hash, SshKeyRecord};
use wire::{api::SshKey, text::SshPublicKey};

/// Of the blob, as OpenSSH makes it.
pub(crate) fn fingerprint(key: &SshPublicKey) -> Hash {
    Sha256::digest(key.blob()).into()
}

fn show(record: SshKeyRecord) -> SshKey {
    SshKey {
        id: record.id,
        name: record.name,
        key_type: record.key.key_type().to_owned(),
        fingerprint: format!("SHA256:{}", BASE64_NOPAD.encode(&record.fingerprint)),
        last_used: record.last_used,
        created: record.created,
    }
}
