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

pub(crate) use adopt::Adopted;

use camino::{Utf8Path, Utf8PathBuf};
use deleted::Deleted;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use wire::{
    agent::CommandLine,
    failure::{Failure, FailureCode},
    gitspace::{Generation, GitspaceSpec},
    ids::GitspaceUuid,
};

/// Of the files.
pub(crate) const FORMAT: u32 = 1;
/// A record is a few kilobytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the runner knows of one gitspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) gitspace: GitspaceUuid,
    /// Of the last task that ended.
    #[serde(default)]
    pub(crate) generation: Generation,
    /// Highest of any task that was taken, also of one that was cancelled.
    #[serde(default)]
    pub(crate) taken: Generation,
    /// Without secrets.
    #[serde(default)]
    pub(crate) spec: Option<GitspaceSpec>,
    #[serde(default)]
    pub(crate) machine: Option<MachineRecord>,
    /// Name of the clone's folder, once the clone is whole.
    #[serde(default)]
    pub(crate) clone: Option<CloneRecord>,
    #[serde(default)]
    pub(crate) container: Option<ContainerRecord>,
}

/// Network, volume and sandbox, all named by one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub(crate) key: String,
    /// Whether the sandbox is wanted.
    #[serde(default)]
    pub(crate) sandbox: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloneRecord {
    /// Absolute, inside the container.
    pub(crate) folder: String,
    /// User the files belong to, once they were given to one.
    #[serde(default)]
    pub(crate) owner: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    /// `None` until Docker has made it.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// Hash of the agent that is mounted into it.
    #[serde(default)]
    pub(crate) agent: String,
    pub(crate) image: String,
    pub(crate) remote_user: String,
    pub(crate) workspace_folder: String,
    #[serde(default)]
    pub(crate) remote_env: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(crate) forward_ports: Vec<u16>,
    #[serde(default)]
    pub(crate) on_create: Option<CommandLine>,
    #[serde(default)]
    pub(crate) post_create: Option<CommandLine>,
    #[serde(default)]
    pub(crate) post_start: Option<CommandLine>,
    /// Once-only commands that ended well.
    #[serde(default)]
    pub(crate) done: BTreeSet<Hook>,
    /// Docker's start time of the run that `postStartCommand` ended well in.
    #[serde(default)]
    pub(crate) post_started: Option<String>,
    /// Whether it is meant to run: an end that nobody asked for is told from one that somebody did.
    #[serde(default)]
    pub(crate) wanted_running: bool,
}

impl ContainerRecord {
    pub(crate) fn initialized(&self) -> bool {
        [
            (Hook::OnCreate, &self.on_create),
            (Hook::PostCreate, &self.post_create),
        ]
        .iter()
        .all(|(hook, command)| command.is_none() || self.done.contains(hook))
    }
}

/// Commands that run once for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hook {
    OnCreate,
    PostCreate,
}

impl Record {
    pub(crate) fn new(gitspace: GitspaceUuid) -> Self {
        Self {
            format: FORMAT,
            gitspace,
            generation: Generation::default(),
            taken: Generation::default(),
            spec: None,
            machine: None,
            clone: None,
            container: None,
        }
    }
}

/// A sandbox that waits for a gitspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spare {
    format: u32,
    pub(crate) key: String,
    /// What it was made of: one of another image or agent is not used.
    pub(crate) image: String,
    pub(crate) agent: String,
    /// Whether it is whole.
    pub(crate) ready: bool,
}

impl Spare {
    pub(crate) fn new(key: String, image: String, agent: String) -> Self {
        Self {
            format: FORMAT,
            key,
            image,
            agent,
            ready: false,
        }
    }
}

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

/// A file that could not be read and was put aside.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Damaged {
    pub(crate) file: Utf8PathBuf,
    pub(crate) cause: String,
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

fn write<T: Serialize>(dir: &Utf8Path, name: &str, value: &T) -> Result<(), LedgerError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|source| LedgerError::Json { source })?;
    daemon::fail_point("runner.ledger.write.before");
    daemon::write_atomic(&dir.join(format!("{name}.json")), &bytes, 0o600)
        .map_err(|source| LedgerError::Write { source })?;
    daemon::fail_point("runner.ledger.write.after");
    Ok(())
}

fn remove(dir: &Utf8Path, name: &str) -> Result<(), LedgerError> {
    let path = dir.join(format!("{name}.json"));
    daemon::fail_point("runner.ledger.remove.before");
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LedgerError::Remove { path, source })
        }
        Ok(()) | Err(_) => {
            daemon::fail_point("runner.ledger.remove.after");
            Ok(())
        }
    }
}

/// Every readable entry of a folder, which is made where it is missing.
fn load_dir<T: DeserializeOwned>(
    dir: &Utf8Path,
    damaged: &mut Vec<Damaged>,
) -> Result<Vec<T>, LedgerError> {
    let folder = |source| LedgerError::Folder {
        path: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(folder)?;
    let mut found = Vec::new();
    // All names first: what is renamed meanwhile is not read again.
    let mut paths = Vec::new();
    for entry in dir.read_dir_utf8().map_err(folder)? {
        paths.push(entry.map_err(folder)?.into_path());
    }
    for path in paths {
        if path.file_name().is_some_and(|name| name.starts_with('.')) {
            continue;
        }
        match path.extension() {
            Some("json") => {}
            // Told until somebody has looked at it and removed it.
            Some("damaged") => {
                damaged.push(Damaged {
                    file: path,
                    cause: "it was put aside at an earlier start".to_owned(),
                });
                continue;
            }
            _ => continue,
        }
        match load(&path) {
            Ok(value) => found.push(value),
            Err(cause) => {
                tracing::error!(file = %path, cause, "A damaged ledger entry is put aside");
                let aside = Utf8PathBuf::from(format!("{path}.damaged"));
                if let Err(error) = std::fs::rename(&path, &aside) {
                    tracing::error!(file = %path, %error, "Cannot put a damaged ledger entry aside");
                }
                // One of this name from before is replaced.
                damaged.retain(|known: &Damaged| known.file != aside);
                damaged.push(Damaged { file: aside, cause });
            }
        }
    }
    Ok(found)
}

fn load<T: DeserializeOwned>(path: &Utf8Path) -> Result<T, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > MAX_FILE {
        return Err(format!("it has {length} bytes, more than {MAX_FILE}"));
    }
    parse(&std::fs::read(path).map_err(|error| error.to_string())?)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.format != FORMAT {
        return Err(format!(
            "it has format {}, and this version reads {FORMAT}",
            head.format
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::IdsExt as _;

    pub(super) fn temp() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    pub(super) fn ready(key: &str) -> Spare {
        Spare {
            ready: true,
            ..Spare::new(key.to_owned(), "i".to_owned(), "a".to_owned())
        }
    }

    #[test]
    fn a_record_is_found_again_after_a_restart() {
        let (_guard, dir) = temp();
        let id = daemon::SequentialIds::default().typed();
        let ledger = Ledger::open(&dir).unwrap();
        ledger
            .update(id, |record| record.generation = Generation(7))
            .unwrap();
        let again = Ledger::open(&dir).unwrap();
        assert_eq!(again.get(id).unwrap().generation, Generation(7));
        again.remove(id, jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert!(Ledger::open(&dir).unwrap().get(id).is_none());
    }

    #[test]
    fn a_damaged_entry_is_put_aside_and_the_others_are_read() {
        let (_guard, dir) = temp();
        let id = daemon::SequentialIds::default().typed();
        Ledger::open(&dir).unwrap().update(id, |_| {}).unwrap();
        let bad = dir.join("gitspaces/bad.json");
        std::fs::write(&bad, "{\"format\": 1, \"gitsp").unwrap();
        let future = dir.join("gitspaces/future.json");
        std::fs::write(&future, "{\"format\": 99}").unwrap();
        let ledger = Ledger::open(&dir).unwrap();
        assert!(ledger.get(id).is_some());
        assert_eq!(ledger.damaged().len(), 2);
        assert!(!bad.exists() && dir.join("gitspaces/bad.json.damaged").exists());
    }

    /// Every way in which a file can be cut is told, and takes nothing else with it.
    #[test]
    fn an_entry_cut_at_any_byte_is_told_and_never_read_as_another() {
        let (_guard, dir) = temp();
        let ids = daemon::SequentialIds::default();
        let (cut, kept) = (ids.typed(), ids.typed());
        let ledger = Ledger::open(&dir).unwrap();
        for id in [cut, kept] {
            ledger
                .update(id, |record| {
                    record.taken = Generation(12);
                    record.machine = Some(MachineRecord {
                        key: format!("{id}"),
                        sandbox: false,
                    });
                })
                .unwrap();
        }
        ledger.put_spare(&ready("k1")).unwrap();
        ledger
            .remove(ids.typed(), jiff::Timestamp::UNIX_EPOCH)
            .unwrap();
        let files: Vec<Utf8PathBuf> = ["gitspaces", "spares", "deleted"]
            .iter()
            .flat_map(|folder| dir.join(folder).read_dir_utf8().unwrap())
            .map(|entry| entry.unwrap().into_path())
            .filter(|path| !path.as_str().contains(&kept.to_string()))
            .collect();
        assert_eq!(files.len(), 3);
        for file in files {
            let whole = std::fs::read(&file).unwrap();
            for end in 0..whole.len() {
                std::fs::write(&file, whole.get(..end).unwrap()).unwrap();
                let ledger = Ledger::open(&dir).unwrap();
                assert_eq!(ledger.damaged().len(), 1, "{file} cut at {end}");
                assert!(ledger.get(kept).is_some(), "{file} cut at {end}");
                let found = ledger.records().len() + ledger.spares().len() + ledger.deleted().len();
                assert_eq!(found, 3, "{file} cut at {end}: the others alone");
                let aside = format!("{file}.damaged");
                let again = Ledger::open(&dir).unwrap();
                assert_eq!(again.damaged().len(), 1, "told until it is removed");
                std::fs::remove_file(aside).unwrap();
                std::fs::write(&file, &whole).unwrap();
            }
            assert!(Ledger::open(&dir).unwrap().damaged().is_empty());
        }
    }

    #[test]
    fn a_spare_of_an_earlier_run_is_given_to_nobody_before_it_was_looked_at() {
        let (_guard, dir) = temp();
        let ids = daemon::SequentialIds::default();
        Ledger::open(&dir).unwrap().put_spare(&ready("k1")).unwrap();
        let again = Ledger::open(&dir).unwrap();
        assert!(again.claim_spare(ids.typed(), |_| true).unwrap().is_none());
        assert_eq!(again.spares().len(), 1);
    }

    #[test]
    fn a_spare_is_given_once() {
        let (_guard, dir) = temp();
        let ids = daemon::SequentialIds::default();
        let ledger = Ledger::open(&dir).unwrap();
        ledger.put_spare(&ready("k1")).unwrap();
        let claimed = ledger.claim_spare(ids.typed(), |_| true).unwrap().unwrap();
        assert_eq!(claimed.machine.unwrap().key, "k1");
        assert!(ledger.claim_spare(ids.typed(), |_| true).unwrap().is_none());
        assert!(Ledger::open(&dir).unwrap().spares().is_empty());
    }

    #[test]
    fn a_spare_that_was_claimed_before_a_crash_is_not_a_spare_any_more() {
        let (_guard, dir) = temp();
        let ids = daemon::SequentialIds::default();
        let ledger = Ledger::open(&dir).unwrap();
        ledger.claim_spare(ids.typed(), |_| true).unwrap();
        ledger
            .update(ids.typed(), |record| {
                record.machine = Some(MachineRecord {
                    key: "k1".to_owned(),
                    sandbox: true,
                });
            })
            .unwrap();
        // As a kill between the two writes leaves it.
        ledger.put_spare(&ready("k1")).unwrap();
        assert!(Ledger::open(&dir).unwrap().spares().is_empty());
    }
}
