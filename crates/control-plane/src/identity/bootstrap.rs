//! The bootstrap token: the way in for the first administrator, and back in for one who is locked out.
//!
//! It lies in a file of the state directory that only this process's user and root can read, holds for [`LIFE`], and ends with the first use of
//! another token of an administrator: whoever logs in with it makes a token to keep. (With the first use, not when it is made: an answer that is
//! lost on its way must not lock anybody out.)
//!
//! Invariant: at most one holds at a time, and no file is left of one that does not.

use crate::state::SharedStore;
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Clock, ErrorChain, Ids, IdsExt as _};
use jiff::Timestamp;
use std::{io, sync::Arc, time::Duration};
use store::{AccessTokenRecord, StoreError, UserRecord};
use token::{OpaqueToken, RandomError, TokenKind};
use tokio::sync::Mutex;
use wire::{api::Role, ids::AccessTokenUuid};

/// Name of the first administrator.
pub(crate) const ADMIN: &str = "admin";
/// File in the state directory that holds the token.
const FILE: &str = "admin-token";
const LIFE: Duration = Duration::from_hours(24);
/// Under which its id is stored, from its making to its end.
const SETTING: &str = "bootstrap_token";

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("cannot store the first administrator or the token")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("cannot make the first administrator's token")]
    Random {
        #[source]
        source: RandomError,
    },
    #[error("cannot write the first administrator's token to `{path}`")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: daemon::WriteError,
    },
    #[error("cannot remove the bootstrap token's file `{path}`")]
    Remove {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<StoreError> for BootstrapError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

/// Makes and ends the bootstrap token. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    store: SharedStore,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    path: Utf8PathBuf,
    /// File and record are changed by one at a time.
    turn: Arc<Mutex<()>>,
}

impl Bootstrap {
    pub(crate) fn new(
        store: SharedStore,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        state_dir: &Utf8Path,
    ) -> Self {
        Self {
            store,
            clock,
            ids,
            path: state_dir.join(FILE),
            turn: Arc::default(),
        }
    }

    /// Where the token lies.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// At the first start, and where that was cut off before its token was stored. Blocks on the disk for one small file.
    pub(crate) async fn make_first(&self) -> Result<(), BootstrapError> {
        let admin = self.store.user_by_name(ADMIN).await?;
        let wanted = match &admin {
            // Tokens are never deleted.
            Some(admin) => self.store.access_tokens(admin.id).await?.is_empty(),
            None => self.store.count_users().await? == 0,
        };
        if wanted {
            self.mint().await?;
            tracing::info!(user = ADMIN, file = %self.path, "Made the first administrator; the file holds a token to log in with");
        }
        Ok(())
    }

    /// A bootstrap token in place of the one before, for the first administrator, who is made, enabled and given the role where that is missing:
    /// whoever can ask for this owns the host, and with it all that the control plane stores. Answers with the file that holds it.
    ///
    /// # Errors
    /// It cannot be made, stored or written.
    pub async fn mint(&self) -> Result<Utf8PathBuf, BootstrapError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let admin = self.admin(now).await?;
        self.revoke(&admin).await?;
        let token = OpaqueToken::generate(TokenKind::Bootstrap)
            .map_err(|source| BootstrapError::Random { source })?;
        // The file first: a token that nobody has would leave nobody a way in.
        let line = format!("{}\n", token.expose());
        daemon::write_atomic(&self.path, line.as_bytes(), 0o600).map_err(|source| {
            BootstrapError::Write {
                path: self.path.clone(),
                source,
            }
        })?;
        let record = AccessTokenRecord {
            id: self.ids.typed(),
            user: admin.id,
            name: "bootstrap".to_owned(),
            hash: *token.hash().as_bytes(),
            exp: now.checked_add(LIFE).unwrap_or(Timestamp::MAX),
            revoked: false,
            last_used: None,
            created: now,
        };
        self.store
            .put_setting(SETTING, record.id.to_string().as_bytes())
            .await?;
        self.store.create_access_token(&record).await?;
        tracing::warn!(user = ADMIN, file = %self.path, "Made a bootstrap token");
        Ok(self.path.clone())
    }

    async fn admin(&self, now: Timestamp) -> Result<UserRecord, BootstrapError> {
        if let Some(admin) = self.store.user_by_name(ADMIN).await? {
            if admin.disabled || admin.role != Role::Admin {
                tracing::warn!(user = ADMIN, "Enabled as an administrator again");
                return Ok(self
                    .store
                    .update_user(admin.id, Some(Role::Admin), Some(false))
                    .await?);
            }
            return Ok(admin);
        }
        let admin = UserRecord {
            id: self.ids.typed(),
            name: ADMIN.to_owned(),
            email: None,
            role: Role::Admin,
            disabled: false,
            created: now,
        };
        self.store.create_user(&admin).await?;
        Ok(admin)
    }

    async fn outstanding(&self) -> Result<Option<AccessTokenUuid>, BootstrapError> {
        let stored = self.store.setting(SETTING).await?;
        Ok(stored.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
    }

    async fn revoke(&self, admin: &UserRecord) -> Result<(), BootstrapError> {
        if let Some(id) = self.outstanding().await? {
            self.store.revoke_access_token(id, Some(admin.id)).await?;
        }
        Ok(())
    }

    /// A token to keep of this user's is used for the first time: an administrator needs the bootstrap token no more.
    pub(crate) async fn first_use_of_another(&self, user: &UserRecord) {
        if user.role != Role::Admin {
            return;
        }
        if let Err(error) = self.end().await {
            tracing::warn!(error = %ErrorChain(&error), "Cannot end the bootstrap token; it ends when it expires");
        }
    }

    async fn end(&self) -> Result<(), BootstrapError> {
        let _turn = self.turn.lock().await;
        let Some(id) = self.outstanding().await? else {
            return Ok(());
        };
        if self.store.revoke_access_token(id, None).await? {
            tracing::info!("The bootstrap token is revoked: an administrator has another one");
        }
        self.remove_file()
    }

    /// Removes the file of a token that does not hold any more.
    pub(crate) async fn tidy(&self) -> Result<(), BootstrapError> {
        let _turn = self.turn.lock().await;
        let (Some(id), Some(admin)) = (
            self.outstanding().await?,
            self.store.user_by_name(ADMIN).await?,
        ) else {
            return Ok(());
        };
        let now = self.clock.now();
        let tokens = self.store.access_tokens(admin.id).await?;
        let holds = tokens
            .iter()
            .any(|token| token.id == id && !token.revoked && token.exp > now);
        if holds { Ok(()) } else { self.remove_file() }
    }

    fn remove_file(&self) -> Result<(), BootstrapError> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(BootstrapError::Remove {
                path: self.path.clone(),
                source,
            }),
        }
    }
}
