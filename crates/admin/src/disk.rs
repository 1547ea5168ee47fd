//! Whether a disk has room.
//!
//! A file system whose server is gone answers nothing, for ever. It is looked at in a thread that nobody waits for longer than [`LOOK_LIMIT`],
//! and not again while one that began longer ago hangs.

use crate::{Check, Severity};
use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    errno::Errno,
    sys::statvfs::{FsFlags, Statvfs, statvfs},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// A disk that takes longer is not one to work with.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Below this, journals and ledgers may not be written.
const TOO_LITTLE: u64 = 64 * 1024 * 1024;
/// Below this, somebody should look.
const LITTLE: u64 = 1024 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Why nothing is known of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("cannot look at it")]
    Refused(#[source] Errno),
    #[error("it does not answer within {} s", LOOK_LIMIT.as_secs())]
    Hangs,
    #[error("the host has no thread to look at it")]
    NoThread,
}

/// Paths that are looked at in this moment, or for ever, with when the first of those looks began.
static LOOKED_AT: Mutex<BTreeMap<Utf8PathBuf, Instant>> = Mutex::new(BTreeMap::new());

/// What the file system that holds `path` says of itself.
///
/// # Errors
/// See [`DiskError`].
pub async fn look_at_disk(path: &Utf8Path) -> Result<Statvfs, DiskError> {
    let looked = path.to_owned();
    within(path, LOOK_LIMIT, move || statvfs(looked.as_std_path()))
        .await?
        .map_err(DiskError::Refused)
}

async fn within<T: Send + 'static>(
    path: &Utf8Path,
    limit: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DiskError> {
    let looked_at = || LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let since = *looked_at().entry(path.to_owned()).or_insert(now);
    if now.saturating_duration_since(since) >= limit {
        return Err(DiskError::Hangs);
    }
    let (answer, answered) = oneshot::channel();
    let path_of_thread = path.to_owned();
    // A thread of its own: the runtime waits for those of its pool when it ends.
    let spawned = std::thread::Builder::new()
        .name("disk".to_owned())
        .spawn(move || {
            let seen = look();
            looked_at().remove(&path_of_thread);
            // Whoever asked may have given up.
            drop(answer.send(seen));
        });
    if spawned.is_err() {
        looked_at().remove(path);
        return Err(DiskError::NoThread);
    }
    match tokio::time::timeout(limit, answered).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_)) | Err(_) => Err(DiskError::Hangs),
    }
}

impl Check {
    /// Whether the disk that holds `path` answers, and has room and inodes; `what` is what lies there.
    pub async fn disk(code: &'static str, what: &str, path: &Utf8Path) -> Self {
        let stat = match look_at_disk(path).await {
            Ok(stat) => stat,
            Err(error) => {
                let fix = match error {
                    DiskError::Refused(_) => format!("make `{path}`, owned by the daemon's user"),
                    DiskError::Hangs => {
                        "see `findmnt` for where it comes from: the server of a network file system may be gone".to_owned()
                    }
                    DiskError::NoThread => "see how many threads the host and the unit allow".to_owned(),
                };
                return Self::bad(
                    code,
                    Severity::Error,
                    format!("nothing is known of the disk of {what} (`{path}`)"),
                )
                .cause(daemon::ErrorChain(&error).to_string())
                .fix(fix);
            }
        };
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let read_only = stat.flags().contains(FsFlags::ST_RDONLY);
        let out_of_inodes = stat.files() > 0 && stat.files_available() < 64;
        let words = format!("{} MiB free for {what} (`{path}`)", free / MIB);
        if read_only {
            Self::bad(
                code,
                Severity::Error,
                format!("the disk of {what} (`{path}`) is mounted read-only"),
            )
            .fix("see `dmesg` for what happened to the disk, mend it, and mount it again")
        } else if out_of_inodes {
            Self::bad(
                code,
                Severity::Error,
                format!("the disk of {what} (`{path}`) has no inodes left"),
            )
            .fix("remove small files that nobody needs, or give it a larger disk")
        } else if free < TOO_LITTLE {
            Self::bad(code, Severity::Error, words).fix("free some space, or give it a larger disk")
        } else if free < LITTLE {
            Self::bad(code, Severity::Warning, words)
                .fix("free some space, or give it a larger disk")
        } else {
            Self::good(code, Severity::Error, words)
        }
    }
}

/// The folder, or the one above it that exists: a daemon makes the rest.
#[must_use]
pub fn nearest(path: &Utf8Path) -> Utf8PathBuf {
    path.ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(path)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let check = Check::disk("state_disk", "the state", Utf8Path::new("/nonexistent/x")).await;
        assert!(
            check.is_fatal() && check.summary.contains("/nonexistent/x"),
            "{check:?}"
        );
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_given_up_and_not_looked_at_again_until_it_answers() {
        let path = Utf8Path::new("/a/disk/that/hangs");
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let hangs = move || hung.recv();
        let limit = Duration::from_millis(20);
        assert_eq!(within(path, limit, hangs).await, Err(DiskError::Hangs));
        // Not even tried: this one would answer.
        assert_eq!(within(path, limit, || ()).await, Err(DiskError::Hangs));
        drop(release);
        let answers = async {
            while within(path, LOOK_LIMIT, || ()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers)
            .await
            .expect("it is looked at again when it answers");
    }

    #[tokio::test]
    async fn two_looks_at_once_are_both_answered() {
        let path = Utf8Path::new("/a/disk/that/is/slow");
        let (release, slow) = std::sync::mpsc::channel::<()>();
        let first = within(path, LOOK_LIMIT, move || slow.recv().is_ok());
        // Polled in this order: the first has begun.
        let (first, second) = tokio::join!(first, async {
            let second = within(path, LOOK_LIMIT, || 2).await;
            release.send(()).unwrap();
            second
        });
        assert_eq!((first, second), (Ok(true), Ok(2)));
    }
}
