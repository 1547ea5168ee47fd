//! The ledger: what this runner has made and means to make, one JSON file a gitspace, one a spare sandbox, and one a gitspace that was
//! deleted not long ago.
//!
//! Invariants:
//! - What is to be made in Docker is written here first, and what was removed there is struck here last. So everything in Docker that
//!   carries this deployment's label and is not in the ledger is left over, and nothing is made twice.
//! - A file is whole or not there. One that cannot be read is put aside with the name `.damaged`, reported for as long as it lies there,
//!   and stops nothing else. What it held of a dev container is found again in the container's labels ([`adopt`]).
//! - A spare from an earlier run of the runner is given to nobody before it was looked at: the file may be older than what it says.
//! - The generation of a task is written before the task is carried out, and outlives the gitspace: no earlier one is taken after it.
//! - No secret is written.
//!
//! Older readers refuse a newer `format`; a newer reader fills what an older writer did not know with defaults.

mod adopt;
mod deleted;
mod files;
mod record;

pub(crate) use adopt::Adopted;
pub(crate) use files::Damaged;
pub(crate) use record::{CloneRecord, ContainerRecord, Hook, MachineRecord, Record, Spare};

use camino::{Utf8Path, Utf8PathBuf};
use deleted::Deleted;
use files::{load_dir, remove, write};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use wire::{
    failure::{Failure, FailureCode},
    ids::GitspaceUuid,
};

/// Of the files.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("cannot read the ledger's folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove `{path}` from the ledger")]
    Remove {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the ledger")]
    Write {
        #[source]
        source: daemon::WriteError,
    },
    #[error("cannot write a ledger entry as JSON")]
    Json {
        #[source]
        source: serde_json::Error,
    },
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let chain = daemon::ErrorChain(&error).to_string();
        let full = chain.to_lowercase().contains("no space left on device");
        let code = if full {
            FailureCode::DiskFull
        } else {
            FailureCode::Internal
        };
        let failure = Self::new(code, "cannot write the runner's ledger").detail(chain);
        if full {
            failure.hint("free space on the disk that holds the runner's state folder")
        } else {
            failure.hint("check the runner's state folder: its disk, owner and mode")
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    records: BTreeMap<GitspaceUuid, Record>,
    spares: BTreeMap<String, Spare>,
    deleted: BTreeMap<GitspaceUuid, Deleted>,
}

/// All entries, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Ledger {
    records_dir: Utf8PathBuf,
    spares_dir: Utf8PathBuf,
    deleted_dir: Utf8PathBuf,
    damaged: Vec<Damaged>,
    adopted: Mutex<Vec<Adopted>>,
    entries: Mutex<Entries>,
}

impl Ledger {
    /// Reads what is there.
    pub(crate) fn open(state_dir: &Utf8Path) -> Result<Self, LedgerError> {
        let records_dir = state_dir.join("gitspaces");
        let spares_dir = state_dir.join("spares");
        let deleted_dir = state_dir.join("deleted");
        let mut damaged = Vec::new();
        let records: Vec<Record> = load_dir(&records_dir, &mut damaged)?;
        let spares: Vec<Spare> = load_dir(&spares_dir, &mut damaged)?;
        let deleted: Vec<Deleted> = load_dir(&deleted_dir, &mut damaged)?;
        let mut entries = Entries {
            deleted: deleted.into_iter().map(|one| (one.gitspace, one)).collect(),
            ..Entries::default()
        };
        for record in records {
            // Claimed, and killed before the spare was struck.
            entries.records.insert(record.gitspace, record);
        }
        for mut spare in spares {
            spare.ready = false;
            entries.spares.insert(spare.key.clone(), spare);
        }
        let ledger = Self {
            records_dir,
            spares_dir,
            deleted_dir,
            damaged,
            adopted: Mutex::default(),
            entries: Mutex::new(entries),
        };
        let claimed: Vec<String> = {
            let entries = ledger.lock();
            let keys = machine_keys(&entries);
            entries
                .spares
                .keys()
                .filter(|key| keys.contains(*key))
                .cloned()
                .collect()
        };
        for key in claimed {
            ledger.remove_spare(&key)?;
        }
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Each change replaces one whole entry after it is on the disk.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    pub(crate) fn get(&self, gitspace: GitspaceUuid) -> Option<Record> {
        self.lock().records.get(&gitspace).cloned()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.lock().records.values().cloned().collect()
    }

    pub(crate) fn spares(&self) -> Vec<Spare> {
        self.lock().spares.values().cloned().collect()
    }

    /// Records and spares at one instant.
    pub(crate) fn snapshot(&self) -> (Vec<Record>, Vec<Spare>) {
        let entries = self.lock();
        (
            entries.records.values().cloned().collect(),
            entries.spares.values().cloned().collect(),
        )
    }

    /// Changes the record of a gitspace, on the disk first. The record is made where there is none.
    pub(crate) fn update(
        &self,
        gitspace: GitspaceUuid,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, LedgerError> {
        tokio::task::block_in_place(|| {
            let mut entries = self.lock();
            let mut record = entries
                .records
                .get(&gitspace)
                .cloned()
                .unwrap_or_else(|| Record::new(gitspace));
            change(&mut record);
            write(&self.records_dir, &gitspace.to_string(), &record)?;
            entries.records.insert(gitspace, record.clone());
            Ok(record)
        })
    }

    pub(crate) fn put_spare(&self, spare: &Spare) -> Result<(), LedgerError> {
        tokio::task::block_in_place(|| {
            let mut entries = self.lock();
            write(&self.spares_dir, &spare.key, spare)?;
            entries.spares.insert(spare.key.clone(), spare.clone());
            Ok(())
        })
    }

    pub(crate) fn remove_spare(&self, key: &str) -> Result<(), LedgerError> {
        tokio::task::block_in_place(|| {
            let mut entries = self.lock();
            remove(&self.spares_dir, key)?;
            entries.spares.remove(key);
            Ok(())
        })
    }

    /// Takes a spare out of what can be claimed, to remove it; `false` where somebody claimed it before.
    pub(crate) fn take_spare(&self, key: &str) -> bool {
        match self.lock().spares.get_mut(key) {
            Some(spare) => {
                spare.ready = false;
                true
            }
            None => false,
        }
    }

    /// Gives a ready spare that fits to a gitspace: written into its record before the spare is struck, so that no crash loses it or
    /// gives it twice.
    pub(crate) fn claim_spare(
        &self,
        gitspace: GitspaceUuid,
        fits: impl Fn(&Spare) -> bool,
    ) -> Result<Option<Record>, LedgerError> {
        let spare = {
            let mut entries = self.lock();
            let key = entries
                .spares
                .values()
                .find(|spare| spare.ready && fits(spare))
                .map(|spare| spare.key.clone());
            // Out of the memory first: nobody else can take it.
            key.and_then(|key| entries.spares.remove(&key))
        };
        let Some(spare) = spare else { return Ok(None) };
        let record = self.update(gitspace, |record| {
            record.machine = Some(MachineRecord {
                key: spare.key.clone(),
                sandbox: true,
            });
        });
        match record {
            Ok(record) => {
                self.remove_spare(&spare.key)?;
                Ok(Some(record))
            }
            Err(error) => {
                self.lock().spares.insert(spare.key.clone(), spare);
                Err(error)
            }
        }
    }
}

fn machine_keys(entries: &Entries) -> BTreeSet<String> {
    entries
        .records
        .values()
        .filter_map(|record| record.machine.as_ref())
        .map(|machine| machine.key.clone())
        .collect()
}

#[cfg(test)]
mod tests;
