//! What a control plane has from its first start: an administrator with a token, an infra provider, machines.
//!
//! Safe to repeat, and to be cut off anywhere: each part is made where it is missing.

use super::bootstrap::{Bootstrap, BootstrapError};
use daemon::{Clock, Ids, IdsExt as _};
use store::{InfraProviderRecord, MachineRecord, Store, StoreError};
use wire::{api::InfraProviderKind, gitspace::Resources};

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
    #[error("cannot make the first administrator's way in")]
    Bootstrap {
        #[source]
        source: BootstrapError,
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
    bootstrap: &Bootstrap,
) -> Result<(), FirstStartError> {
    let failed = |source| FirstStartError::Bootstrap { source };
    bootstrap.make_first().await.map_err(failed)?;
    make_catalog(store, clock, ids).await
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
