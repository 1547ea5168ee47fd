//! Whether a folder can be written, and its disk has room.

use crate::{Check, Severity};
use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{AccessFlags, access};

/// Below this, journals and ledgers may not be written.
const TOO_LITTLE: u64 = 64 * 1024 * 1024;
/// Below this, somebody should look.
const LITTLE: u64 = 1024 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

impl Check {
    /// Whether the disk that holds `path` has room and inodes; `what` is what lies there.
    #[must_use]
    pub fn disk(code: &'static str, what: &str, path: &Utf8Path) -> Self {
        let stat = match nix::sys::statvfs::statvfs(path.as_std_path()) {
            Ok(stat) => stat,
            Err(errno) => {
                return Self::bad(
                    code,
                    Severity::Error,
                    format!("cannot look at the disk of {what} (`{path}`)"),
                )
                .cause(errno.desc())
                .fix(format!("make `{path}`, owned by the daemon's user"));
            }
        };
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let read_only = stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
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

    /// Whether this user can write into `path`, or could make it; `daemon` is whose folder it is.
    #[must_use]
    pub fn writable(code: &'static str, path: &Utf8Path, daemon: &str) -> Self {
        let usable = access(
            nearest(path).as_std_path(),
            AccessFlags::W_OK | AccessFlags::X_OK,
        );
        match usable {
            Ok(()) => Self::good(code, Severity::Error, format!("`{path}` can be written")),
            Err(errno) => Self::bad(
                code,
                Severity::Error,
                format!("`{path}` cannot be written by this user"),
            )
            .cause(errno.desc())
            .fix(format!(
                "run this as the user that runs {daemon}, or let that user own `{path}`, with mode 0700"
            )),
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

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let check = Check::disk("state_disk", "the state", Utf8Path::new("/nonexistent/x"));
        assert!(
            check.is_fatal() && check.summary.contains("/nonexistent/x"),
            "{check:?}"
        );
    }

    #[test]
    fn a_folder_that_can_be_made_can_be_written_and_one_below_a_file_cannot() {
        let guard = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(guard.path()).unwrap();
        let check = Check::writable("state_dir", &root.join("a/b"), "some-daemon");
        assert!(!check.is_fatal(), "{check:?}");
        // A file system that not even root writes to.
        let sealed = Utf8Path::new("/proc/sys/kernel/some/where");
        let check = Check::writable("state_dir", sealed, "some-daemon");
        assert!(
            check.is_fatal() && check.summary.contains(sealed.as_str()),
            "{check:?}"
        );
    }
}
