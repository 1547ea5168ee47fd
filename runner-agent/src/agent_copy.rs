//! Copies of gitspace-agent, each in a folder that is named by its content.

use crate::{names::digest, shared::AgentCopy};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::Clock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs::Metadata, io, os::unix::fs::MetadataExt as _};

/// A debug build is some 60 MB.
const MAX_BINARY: u64 = 512 * 1024 * 1024;
const NAME: &str = "gitspace-agent";
/// Beside the copies: which file the last of them was made from.
const RECORD: &str = "installed.json";
/// Of times of change, in any file system that Docker runs on.
const GRAIN: SignedDuration = SignedDuration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentCopyError {
    #[error("cannot read the agent `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent `{path}` is not a program: it has {length} bytes")]
    Length { path: Utf8PathBuf, length: u64 },
    #[error("cannot make the folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy the agent")]
    Write {
        #[source]
        source: daemon::WriteError,
    },
}

/// Removes the copies that no container has mounted. One that stays for want of luck costs some megabytes, and no more.
pub(crate) fn collect(state_dir: &Utf8Path, used: &BTreeSet<String>) {
    let dir = state_dir.join("agent");
    let entries = match dir.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%dir, %error, "Cannot look for copies of the agent that are not used");
            return;
        }
    };
    for entry in entries.flatten() {
        // Beside the copies lies the record of the last one.
        let is_copy = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_copy || used.contains(entry.file_name()) {
            continue;
        }
        match std::fs::remove_dir_all(entry.path()) {
            Ok(()) => tracing::info!(
                copy = entry.file_name(),
                "A copy of the agent that is not used is removed"
            ),
            Err(error) => {
                tracing::warn!(copy = entry.file_name(), %error, "Cannot remove a copy of the agent");
            }
        }
    }
}

/// Copies the configured agent into the state folder, unless the same is there.
pub(crate) fn install(
    binary: &Utf8Path,
    state_dir: &Utf8Path,
    clock: &dyn Clock,
) -> Result<AgentCopy, AgentCopyError> {
    let read = |source| AgentCopyError::Read {
        path: binary.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(binary).map_err(read)?;
    let length = metadata.len();
    if length == 0 || length > MAX_BINARY {
        return Err(AgentCopyError::Length {
            path: binary.to_owned(),
            length,
        });
    }
    let agents = state_dir.join("agent");
    let record = agents.join(RECORD);
    let file = FileIdentity::of(&metadata);
    if let Some(known) = Installed::read(&record).filter(|known| known.file == file) {
        let copy = AgentCopy {
            dir: agents.join(&known.hash),
            hash: known.hash,
        };
        if is_whole(&copy, length) {
            return Ok(copy);
        }
    }
    let bytes = std::fs::read(binary).map_err(read)?;
    let hash = digest(&bytes, 64);
    let dir = agents.join(&hash);
    std::fs::create_dir_all(&dir).map_err(|source| AgentCopyError::Folder {
        path: dir.clone(),
        source,
    })?;
    let copy = AgentCopy { dir, hash };
    let write = |source| AgentCopyError::Write { source };
    if !is_whole(&copy, length) {
        daemon::write_atomic(&copy.dir.join(NAME), &bytes, 0o755).map_err(write)?;
    }
    // A file that changes while it is read, or right after, could look the same as what was read.
    let after = std::fs::metadata(binary).map_err(read)?;
    if FileIdentity::of(&after) == file && is_settled(&after, clock) {
        let installed = Installed {
            file,
            hash: copy.hash.clone(),
        };
        daemon::write_atomic(&record, &installed.to_json(), 0o600).map_err(write)?;
    }
    Ok(copy)
}

fn is_whole(copy: &AgentCopy, length: u64) -> bool {
    std::fs::metadata(copy.dir.join(NAME)).is_ok_and(|found| found.len() == length)
}

/// What was found to have which hash, so that a start need not read it again.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Installed {
    file: FileIdentity,
    hash: String,
}

impl Installed {
    /// One that cannot be read, or that another version wrote, costs the time to hash the agent.
    fn read(record: &Utf8Path) -> Option<Self> {
        let installed: Self = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        let is_hash = installed.hash.len() == 64
            && installed.hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(installed)
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "file": self.file, "hash": self.hash })
            .to_string()
            .into_bytes()
    }
}

/// A file with the same of all of these has the same content: whoever writes into a file, or replaces it, changes its time of change,
/// which no program can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileIdentity {
    device: u64,
    inode: u64,
    length: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        let nanos =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether the file was last changed longer ago than the grain of a file system's clock. Where this host's clock stepped back it was not,
/// and the next start reads it again.
fn is_settled(metadata: &Metadata, clock: &dyn Clock) -> bool {
    Timestamp::from_second(metadata.ctime())
        .is_ok_and(|changed| clock.now().duration_since(changed) > GRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::SystemClock;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().to_path_buf()).unwrap();
        (dir, path)
    }

    #[test]
    fn an_agent_that_was_replaced_by_another_of_the_same_length_and_time_is_copied_again() {
        let (_guard, dir) = folder();
        let binary = dir.join("source");
        std::fs::write(&binary, "first").unwrap();
        let first = install(&binary, &dir, &SystemClock).unwrap();
        let record = |copy: &AgentCopy| {
            let installed = Installed {
                file: FileIdentity::of(&std::fs::metadata(&binary).unwrap()),
                hash: copy.hash.clone(),
            };
            std::fs::write(dir.join("agent").join(RECORD), installed.to_json()).unwrap();
        };
        record(&first);
        assert_eq!(
            install(&binary, &dir, &SystemClock).unwrap().hash,
            first.hash
        );

        let modified = std::fs::metadata(&binary).unwrap().modified().unwrap();
        std::fs::write(dir.join("other"), "other").unwrap();
        std::fs::rename(dir.join("other"), &binary).unwrap();
        let file = std::fs::File::options().write(true).open(&binary).unwrap();
        file.set_modified(modified).unwrap();
        let second = install(&binary, &dir, &SystemClock).unwrap();
        assert_ne!(second.hash, first.hash);
        assert_eq!(
            std::fs::read_to_string(second.dir.join(NAME)).unwrap(),
            "other"
        );
    }

    #[test]
    fn what_is_recorded_is_not_read_again_but_a_copy_that_is_gone_is_made_again() {
        let (_guard, dir) = folder();
        let binary = dir.join("source");
        std::fs::write(&binary, "agent").unwrap();
        let copy = install(&binary, &dir, &SystemClock).unwrap();
        let installed = Installed {
            file: FileIdentity::of(&std::fs::metadata(&binary).unwrap()),
            hash: "0".repeat(64),
        };
        let record = dir.join("agent").join(RECORD);
        std::fs::write(&record, installed.to_json()).unwrap();
        let claimed = dir.join("agent").join(&installed.hash);
        std::fs::create_dir(&claimed).unwrap();
        assert_eq!(
            install(&binary, &dir, &SystemClock).unwrap().hash,
            copy.hash,
            "there is no copy of what the record names"
        );
        std::fs::write(claimed.join(NAME), "12345").unwrap();
        assert_eq!(
            install(&binary, &dir, &SystemClock).unwrap().hash,
            installed.hash
        );
        std::fs::write(&record, "{").unwrap();
        assert_eq!(
            install(&binary, &dir, &SystemClock).unwrap().hash,
            copy.hash
        );
        collect(&dir, &BTreeSet::from([copy.hash.clone()]));
        assert!(record.exists() && copy.dir.exists() && !claimed.exists());
    }
}
