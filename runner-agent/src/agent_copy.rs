//! Copies of gitspace-agent, each in a folder that is named by its content.

use crate::{names::digest, shared::AgentCopy};
use camino::{Utf8Path, Utf8PathBuf};
use std::{collections::BTreeSet, io};

/// A debug build is some 60 MB.
const MAX_BINARY: u64 = 512 * 1024 * 1024;
const NAME: &str = "gitspace-agent";

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
        if used.contains(entry.file_name()) {
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
) -> Result<AgentCopy, AgentCopyError> {
    let read = |source| AgentCopyError::Read {
        path: binary.to_owned(),
        source,
    };
    let length = std::fs::metadata(binary).map_err(read)?.len();
    if length == 0 || length > MAX_BINARY {
        return Err(AgentCopyError::Length {
            path: binary.to_owned(),
            length,
        });
    }
    let bytes = std::fs::read(binary).map_err(read)?;
    let hash = digest(&bytes, 64);
    let dir = state_dir.join("agent").join(&hash);
    std::fs::create_dir_all(&dir).map_err(|source| AgentCopyError::Folder {
        path: dir.clone(),
        source,
    })?;
    let target = dir.join(NAME);
    let same = std::fs::metadata(&target).is_ok_and(|found| found.len() == length);
    if !same {
        daemon::write_atomic(&target, &bytes, 0o755)
            .map_err(|source| AgentCopyError::Write { source })?;
    }
    Ok(AgentCopy { dir, hash })
}
