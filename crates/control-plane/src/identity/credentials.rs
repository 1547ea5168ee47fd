//! Users' Git credentials, sealed in the store.

use super::seal::{Label, SealError, SealKey};
use crate::state::SharedStore;
use std::sync::Arc;
use store::StoreError;
use wire::{
    gitspace::{GitCredential, GitScheme},
    ids::UserUuid,
    secret::Secret,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("cannot read the Git credentials of user `{user}`")]
    Store {
        user: UserUuid,
        #[source]
        source: StoreError,
    },
    #[error("cannot open the Git credential of user `{user}` for `{host}`")]
    Open {
        user: UserUuid,
        host: String,
        #[source]
        source: SealError,
    },
    #[error("the Git credential of user `{user}` for `{host}` is not text")]
    NotText { user: UserUuid, host: String },
}

/// Opens Git credentials for the tasks that need them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CredentialVault {
    store: SharedStore,
    seal: Arc<SealKey>,
}

pub(crate) fn seal_credential(
    seal: &SealKey,
    user: UserUuid,
    (scheme, host): (GitScheme, &str),
    secret: &Secret,
) -> Result<Vec<u8>, SealError> {
    let owner = user.to_string();
    // The scheme is sealed in: who can write to the database cannot have it sent in the clear.
    let name = scheme.spell(host);
    seal.seal(label(&owner, &name), secret.expose().as_bytes())
}

fn label<'a>(owner: &'a str, name: &'a str) -> Label<'a> {
    Label {
        what: "a Git credential",
        owner,
        name,
    }
}

impl CredentialVault {
    pub(crate) fn new(store: SharedStore, seal: Arc<SealKey>) -> Self {
        Self { store, seal }
    }

    /// All of `user`'s, opened.
    ///
    /// # Errors
    /// Fails where the store does, or where one was sealed with another key.
    pub(crate) async fn of(&self, user: UserUuid) -> Result<Vec<GitCredential>, CredentialsError> {
        let records = self
            .store
            .git_credentials(user)
            .await
            .map_err(|source| CredentialsError::Store { user, source })?;
        let owner = user.to_string();
        records
            .into_iter()
            .map(|record| {
                let name = record.scheme.spell(&record.host);
                let plain = self
                    .seal
                    .open(label(&owner, &name), &record.sealed)
                    .map_err(|source| CredentialsError::Open {
                        user,
                        host: record.host.clone(),
                        source,
                    })?;
                let secret = String::from_utf8(plain).map_err(|_| CredentialsError::NotText {
                    user,
                    host: record.host.clone(),
                })?;
                Ok(GitCredential {
                    scheme: record.scheme,
                    host: record.host,
                    username: record.username,
                    secret: Secret::new(secret),
                })
            })
            .collect()
    }
}
