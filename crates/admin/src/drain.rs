//! Taking nothing more, until told otherwise: kept on the disk, because a host that is being emptied may well restart.

use camino::{Utf8Path, Utf8PathBuf};
use daemon::{ErrorChain, Hint as _};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use wire::problem::Problem;

const FORMAT: u32 = 1;
/// The file is a few dozen bytes.
const MAX_FILE: u64 = 4096;

/// Body of `POST /drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// After so many seconds, what still runs is handed back. Without it everything may take its time.
    #[serde(default)]
    pub deadline_s: Option<u64>,
}

/// Body of `GET /drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainState {
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Tasks that are not finished.
    pub left: usize,
}

impl DrainState {
    /// Nothing runs, and nothing comes.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.draining && self.left == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    format: u32,
    since: Timestamp,
    deadline: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum DrainFileError {
    #[error("cannot read whether this host is drained from `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` does not say whether this host is drained")]
    Damaged { path: Utf8PathBuf },
    #[error("cannot keep that this host is drained")]
    Write {
        #[source]
        source: daemon::WriteError,
    },
    #[error("cannot remove `{path}`")]
    Remove {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DrainFileError {
    /// As the answer of a daemon that could not begin or end its drain.
    #[must_use]
    pub fn problem(&self) -> (StatusCode, Problem) {
        let mut problem = Problem::new("drain_not_kept", "whether it is drained is as it was")
            .cause(ErrorChain(self).to_string());
        problem.hint = self.hint();
        (StatusCode::INTERNAL_SERVER_ERROR, problem)
    }
}

impl daemon::Hint for DrainFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path } => {
                Some(format!("remove `{path}`, then drain again if it should be"))
            }
            Self::Read { path, .. } | Self::Remove { path, .. } => {
                Some(format!("check the owner and mode of `{path}`"))
            }
            Self::Write { .. } => Some("check that the disk has space".to_owned()),
        }
    }
}

/// Whether the daemon is drained. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainFile {
    path: Utf8PathBuf,
    kept: Arc<Mutex<Option<Kept>>>,
    draining: watch::Sender<bool>,
}

impl DrainFile {
    /// That of a daemon, in its state folder.
    ///
    /// # Errors
    /// See [`DrainFile::open`].
    pub fn in_folder(state_dir: &Utf8Path) -> Result<Self, DrainFileError> {
        Self::open(state_dir.join("drain.json"))
    }

    /// As it was left.
    ///
    /// # Errors
    /// A file that cannot be read is not taken for "no": the host would fill up again.
    pub fn open(path: impl Into<Utf8PathBuf>) -> Result<Self, DrainFileError> {
        use io::Read as _;
        let path = path.into();
        let mut text = Vec::new();
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        let kept = match read {
            Ok(_) => Some(
                serde_json::from_slice::<Kept>(&text)
                    .ok()
                    .filter(|kept| kept.format == FORMAT)
                    .ok_or_else(|| DrainFileError::Damaged { path: path.clone() })?,
            ),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                None
            }
            Err(source) => return Err(DrainFileError::Read { path, source }),
        };
        Ok(Self {
            path,
            draining: watch::Sender::new(kept.is_some()),
            kept: Arc::new(Mutex::new(kept)),
        })
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Changes when a drain begins and when it ends.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// With `left` unfinished tasks.
    #[must_use]
    pub fn state(&self, left: usize) -> DrainState {
        let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        DrainState {
            draining: kept.is_some(),
            since: kept.map(|kept| kept.since),
            deadline: kept.and_then(|kept| kept.deadline),
            left,
        }
    }

    /// Begins, or moves the deadline of one that has begun. On the disk when it returns.
    ///
    /// # Errors
    /// Nothing has changed where it cannot be kept.
    pub fn begin(&self, request: DrainRequest, now: Timestamp) -> Result<(), DrainFileError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = request.deadline_s.map(|seconds| {
            now.saturating_add(Duration::from_secs(seconds))
                .unwrap_or(Timestamp::MAX)
        });
        let next = Kept {
            format: FORMAT,
            since: kept.map_or(now, |kept| kept.since),
            deadline,
        };
        let text = serde_json::to_vec(&next).unwrap_or_default();
        daemon::write_atomic(&self.path, &text, 0o600)
            .map_err(|source| DrainFileError::Write { source })?;
        *kept = Some(next);
        self.draining
            .send_if_modified(|draining| !std::mem::replace(draining, true));
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Nothing has changed where the file stays.
    pub fn end(&self) -> Result<(), DrainFileError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |source| DrainFileError::Remove {
            path: self.path.clone(),
            source,
        };
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(fail(source)),
            // After a power cut it must not be back.
            Ok(()) => {
                if let Some(folder) = self.path.parent() {
                    std::fs::File::open(folder)
                        .and_then(|folder| folder.sync_all())
                        .map_err(fail)?;
                }
            }
            Err(_) => {}
        }
        *kept = None;
        self.draining
            .send_if_modified(|draining| std::mem::replace(draining, false));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_outlives_a_restart_and_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("drain.json");
        let file = DrainFile::open(&path).unwrap();
        assert!(!file.is_draining());
        file.begin(
            DrainRequest {
                deadline_s: Some(60),
            },
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let again = DrainFile::open(&path).unwrap();
        let state = again.state(2);
        assert!(state.draining && !state.is_drained());
        assert_eq!(state.deadline.unwrap().as_second(), 60);
        again.end().unwrap();
        assert!(!DrainFile::open(&path).unwrap().is_draining());
        again.end().unwrap();
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_host_that_takes_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("drain.json");
        for text in [
            "",
            "{",
            "{\"format\":2,\"since\":\"2026-01-01T00:00:00Z\",\"deadline\":null}",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(
                DrainFile::open(&path),
                Err(DrainFileError::Damaged { .. })
            ));
        }
    }
}
