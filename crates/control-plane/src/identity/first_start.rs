//! What a control plane has from its first start: an administrator with a token, an infra provider, machines.
//!
//! Safe to repeat, and to be cut off anywhere: each part is made where it is missing.

use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Clock, Ids, IdsExt as _};
use jiff::Timestamp;
use std::time::Duration;
use store::{AccessTokenRecord, InfraProviderRecord, MachineRecord, Store, StoreError, UserRecord};
use token::{OpaqueToken, RandomError, TokenKind};
use wire::{
    api::{InfraProviderKind, Role},
    gitspace::Resources,
};

/// Name of the first administrator.
pub(crate) const ADMIN: &str = "admin";
/// File in the state directory that holds the first administrator's token.
pub(crate) const ADMIN_TOKEN_FILE: &str = "admin-token";
const ADMIN_TOKEN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

const CATALOG_SETTING: &str = "default_catalog";
const GIB: u64 = 1024 * 1024 * 1024;
/// Name, thousandths of a CPU, GiB, processes, whether it is the default.
const MACHINES: [(&str, u32, u64, u32, bool); 3] = [
    ("small", 1000, 1, 512, false),
    ("standard", 2000, 4, 2048, true),
    ("large", 4000, 8, 4096, false),
];

#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    #[error("cannot store what a control plane starts with")]
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
}

impl From<StoreError> for FirstStartError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

/// Makes what is missing. Blocks on the disk for one small file, at the first start.
pub(crate) async fn make(
    store: &dyn Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
    state_dir: &Utf8Path,
) -> Result<(), FirstStartError> {
    make_admin(store, clock, ids, state_dir).await?;
    make_catalog(store, clock, ids).await
}

async fn make_admin(
    store: &dyn Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
    state_dir: &Utf8Path,
) -> Result<(), FirstStartError> {
    let now = clock.now();
    let admin = match store.user_by_name(ADMIN).await? {
        Some(admin) => admin,
        None if store.count_users().await? > 0 => return Ok(()),
        None => {
            let admin = UserRecord {
                id: ids.typed(),
                name: ADMIN.to_owned(),
                email: None,
                role: Role::Admin,
                disabled: false,
                created: now,
            };
            match store.create_user(&admin).await {
                Ok(()) => admin,
                // Another replica was first, and makes the token too.
                Err(StoreError::Conflict { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    // Tokens are never deleted: none at all means that a first start was cut off here.
    if !store.access_tokens(admin.id).await?.is_empty() {
        return Ok(());
    }
    let token = OpaqueToken::generate(TokenKind::PersonalAccess)
        .map_err(|source| FirstStartError::Random { source })?;
    let path = state_dir.join(ADMIN_TOKEN_FILE);
    // The file first: a token that nobody has would leave nobody a way in.
    daemon::write_atomic(&path, format!("{}\n", token.expose()).as_bytes(), 0o600).map_err(
        |source| FirstStartError::Write {
            path: path.clone(),
            source,
        },
    )?;
    store
        .create_access_token(&AccessTokenRecord {
            id: ids.typed(),
            user: admin.id,
            name: "first administrator".to_owned(),
            hash: *token.hash().as_bytes(),
            exp: now.checked_add(ADMIN_TOKEN_LIFE).unwrap_or(Timestamp::MAX),
            revoked: false,
            last_used: None,
            created: now,
        })
        .await?;
    tracing::info!(user = ADMIN, file = %path, "Made the first administrator; the file holds the token");
    Ok(())
}

async fn make_catalog(
    store: &dyn Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
) -> Result<(), FirstStartError> {
    // What an operator deleted does not come back.
    if store.setting(CATALOG_SETTING).await?.is_some() {
        return Ok(());
    }
    let provider = match store
        .infra_providers()
        .await?
        .into_iter()
        .find(|provider| provider.name == "host")
    {
        Some(provider) => provider,
        None => {
            let provider = InfraProviderRecord {
                id: ids.typed(),
                name: "host".to_owned(),
                kind: InfraProviderKind::Host,
                selectors: Vec::new(),
                created: clock.now(),
            };
            match store.create_infra_provider(&provider).await {
                Ok(()) => provider,
                Err(StoreError::Conflict { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    for (name, cpu_millis, memory, pids, is_default) in MACHINES {
        let machine = MachineRecord {
            id: ids.typed(),
            name: name.to_owned(),
            infra_provider: provider.id,
            infra_provider_name: provider.name.clone(),
            resources: Resources {
                cpu_millis,
                memory_bytes: memory * GIB,
                pids,
            },
            is_default,
            created: clock.now(),
        };
        match store.create_machine(&machine).await {
            Ok(()) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    store.put_setting(CATALOG_SETTING, b"1").await?;
    Ok(())
}
