//! What a start takes of its host, looked at before it: folders, sockets, addresses, and whether the daemon runs already.
//!
//! Nothing is made. A lock or an address is taken for the moment of the look where it is free.

use crate::{Check, DrainFile, Severity};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{ErrorChain, Hint as _, StateLock};
use nix::unistd::{AccessFlags, access, geteuid};
use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

/// Whether the daemon runs on this host with these settings.
const RUNNING: &str = "running";
const DRAIN_FILE: &str = "drain_file";

impl Check {
    /// Whether a process has the state folder, which is how a daemon that runs is known. A lock that cannot be looked at fails a start.
    #[must_use]
    pub fn running(state_dir: &Utf8Path, daemon: &str) -> (Self, bool) {
        match StateLock::is_held(state_dir) {
            Ok(true) => (
                Self::good(RUNNING, Severity::Error, format!("{daemon} runs")),
                true,
            ),
            Ok(false) => (
                Self::good(RUNNING, Severity::Error, format!("{daemon} does not run")),
                false,
            ),
            Err(error) => (
                Self::bad(
                    RUNNING,
                    Severity::Error,
                    format!("{daemon} cannot lock its state folder"),
                )
                .cause(ErrorChain(&error).to_string())
                .fix(format!(
                    "let the user that runs {daemon} own `{state_dir}` and what is in it"
                )),
                false,
            ),
        }
    }

    /// Whether this user can write into `path`, or could make it; `daemon` is whose folder it is.
    #[must_use]
    pub fn writable(code: &'static str, path: &Utf8Path, daemon: &str) -> Self {
        match folder(path) {
            Ok(()) => Self::good(code, Severity::Error, format!("`{path}` can be written")),
            Err(FolderFault::NoFolder { at }) if at == path => Self::bad(
                code,
                Severity::Error,
                format!("`{path}` is there and is no folder"),
            )
            .fix(format!("move it away, or configure another folder for {daemon}")),
            Err(FolderFault::NoFolder { at }) => Self::bad(
                code,
                Severity::Error,
                format!("`{path}` cannot be made: `{at}` is no folder"),
            )
            .fix(format!("configure another folder for {daemon}")),
            Err(FolderFault::Denied { at, cause }) => Self::bad(
                code,
                Severity::Error,
                if at == path {
                    format!("`{path}` cannot be written by this user")
                } else {
                    format!("`{path}` is not there, and this user cannot make it in `{at}`")
                },
            )
            .cause(cause)
            .fix(format!(
                "run this as the user that runs {daemon}, or let that user own `{path}`, with mode 0700"
            )),
        }
    }

    /// Whether `daemon` can bind this socket; `is_running` says that it has.
    #[must_use]
    pub fn socket(code: &'static str, path: &Utf8Path, daemon: &str, is_running: bool) -> Self {
        let bad = |summary: String| Self::bad(code, Severity::Error, summary);
        let Some((folder, name)) = path.parent().zip(path.file_name()) else {
            return bad(format!("`{path}` is not a path to a file"))
                .fix("configure another path for the socket");
        };
        match fs::symlink_metadata(path) {
            Ok(data) if !data.file_type().is_socket() => {
                return bad(format!("`{path}` exists and is not a socket"))
                    .fix(format!("move `{path}` away, or configure another path"));
            }
            Ok(_) | Err(_) => {}
        }
        if is_running {
            return Self::good(
                code,
                Severity::Error,
                format!("{daemon} runs and has `{path}`"),
            );
        }
        // Held by whoever listens: no connection is made, which would start a daemon that the service manager starts by its socket.
        match daemon::is_locked(&folder.join(format!("{name}.lock"))) {
            Ok(true) => {
                return bad(format!("another process listens on `{path}`")).fix(format!(
                    "see `ss -lxp`; stop it, or configure another path: two of {daemon} need two of everything"
                ));
            }
            Ok(false) => {}
            Err(error) => {
                return bad(format!("the lock file of `{path}` cannot be opened"))
                    .cause(error.to_string())
                    .fix(format!("let the user that runs {daemon} own `{path}.lock`"));
            }
        }
        let folder = if folder.as_str().is_empty() {
            Utf8Path::new(".")
        } else {
            folder
        };
        let check = Self::writable(code, folder, daemon);
        if check.ok {
            Self::good(code, Severity::Error, format!("`{path}` can be bound"))
        } else {
            check
        }
    }

    /// Whether it can be read that this host is drained, or is not.
    #[must_use]
    pub fn drain_file(state_dir: &Utf8Path) -> Self {
        match DrainFile::in_folder(state_dir) {
            Ok(file) if file.is_draining() => Self::good(
                DRAIN_FILE,
                Severity::Error,
                "it says that this host is drained",
            ),
            Ok(_) => Self::good(DRAIN_FILE, Severity::Error, "this host is not drained"),
            Err(error) => {
                let check = Self::bad(
                    DRAIN_FILE,
                    Severity::Error,
                    "whether this host is drained cannot be read",
                )
                .cause(ErrorChain(&error).to_string());
                match error.hint() {
                    Some(hint) => check.fix(hint),
                    None => check,
                }
            }
        }
    }

    /// Whether `what` can listen on an address; `is_running` says that it does.
    #[must_use]
    pub fn address(code: &'static str, what: &str, address: SocketAddr, is_running: bool) -> Self {
        let error = match TcpListener::bind(address) {
            Ok(_free) => {
                return Self::good(
                    code,
                    Severity::Error,
                    format!("{what} can listen on {address}"),
                );
            }
            Err(error) if is_running && error.kind() == io::ErrorKind::AddrInUse => {
                return Self::good(
                    code,
                    Severity::Error,
                    format!("{address} is in use, by {what} that runs"),
                );
            }
            Err(error) => error,
        };
        let check = Self::bad(
            code,
            Severity::Error,
            format!("{what} cannot listen on {address}"),
        )
        .cause(error.to_string());
        match error.kind() {
            io::ErrorKind::AddrInUse => check.fix(format!(
                "see who does: `ss -ltnp sport = :{}`; stop that, or configure another address",
                address.port()
            )),
            io::ErrorKind::PermissionDenied => {
                check.fix("listen on a port from 1024 on, or let the unit bind lower ones: docs/operations.md#tls")
            }
            io::ErrorKind::AddrNotAvailable => {
                check.fix("configure an address that this host has, see `ip address`")
            }
            _ => check,
        }
    }
}

/// Why a folder cannot be made or written.
#[derive(Debug, PartialEq, Eq)]
enum FolderFault {
    NoFolder { at: Utf8PathBuf },
    Denied { at: Utf8PathBuf, cause: String },
}

/// A daemon makes what is missing below the first folder that is there.
fn folder(path: &Utf8Path) -> Result<(), FolderFault> {
    let at = path
        .ancestors()
        .find(|folder| fs::symlink_metadata(folder).is_ok())
        .unwrap_or(Utf8Path::new("."));
    let data = fs::metadata(at).ok().filter(fs::Metadata::is_dir);
    let Some(data) = data else {
        return Err(FolderFault::NoFolder { at: at.to_owned() });
    };
    access(at.as_std_path(), AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        let own = geteuid().as_raw();
        FolderFault::Denied {
            at: at.to_owned(),
            cause: if data.uid() == own {
                errno.desc().to_owned()
            } else {
                format!(
                    "{}: it belongs to user {}, and this is user {own}",
                    errno.desc(),
                    data.uid()
                )
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn root() -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
        (guard, root)
    }

    #[test]
    fn a_folder_that_can_be_made_can_be_written_and_one_below_a_file_cannot() {
        let (_guard, root) = root();
        let check = Check::writable("state_dir", &root.join("a/b"), "some-daemon");
        assert!(!check.is_fatal(), "{check:?}");
        // A file system that not even root writes to.
        let sealed = Utf8Path::new("/proc/sys/kernel/some/where");
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        let dangling = root.join("dangling");
        std::os::unix::fs::symlink(root.join("nowhere"), &dangling).unwrap();
        for path in [
            sealed,
            &file,
            &file.join("a/b"),
            &dangling,
            &dangling.join("a"),
        ] {
            let check = Check::writable("state_dir", path, "some-daemon");
            assert!(
                check.is_fatal() && check.summary.contains(path.as_str()),
                "{check:?}"
            );
        }
        assert!(!root.join("a").exists(), "nothing is made");
    }

    #[test]
    fn a_daemon_that_runs_is_no_fault_and_another_on_its_address_is() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let look = |is_running| Check::address("listen", "it", address, is_running);
        assert!(look(false).is_fatal());
        assert!(look(true).ok);
        drop(taken);
        assert!(look(false).ok);
        let elsewhere = Check::address("listen", "it", "192.0.2.1:1".parse().unwrap(), false);
        assert!(elsewhere.is_fatal(), "{elsewhere:?}");
    }

    #[test]
    fn the_lock_of_a_state_folder_tells_whether_the_daemon_runs() {
        let (_guard, root) = root();
        let look = || Check::running(&root, "some-daemon");
        assert!(matches!(look(), (Check { ok: true, .. }, false)));
        assert!(!root.join("lock").exists(), "nothing is made");
        let lock = StateLock::take(&root).unwrap();
        assert!(matches!(look(), (Check { ok: true, .. }, true)));
        drop(lock);
        assert!(matches!(look(), (Check { ok: true, .. }, false)));
        fs::remove_file(root.join("lock")).unwrap();
        fs::create_dir(root.join("lock")).unwrap();
        assert!(matches!(look(), (Check { ok: false, .. }, false)));
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_bound_is_told_before_the_start() {
        let (_guard, root) = root();
        let path = root.join("run/admin.sock");
        let look = |path: &Utf8Path| Check::socket("admin_socket", path, "some-daemon", false);
        assert!(look(&path).ok, "its folder is made");
        assert!(!root.join("run").exists(), "not by a look");
        fs::write(root.join("file"), "").unwrap();
        assert!(look(&root.join("file")).is_fatal());
        assert!(look(&root.join("file/admin.sock")).is_fatal());
        fs::create_dir(root.join("run")).unwrap();
        let options = local_rpc::BindOptions::default();
        let listener = local_rpc::Listener::bind(&path, options).unwrap();
        let check = look(&path);
        assert!(
            check.is_fatal() && check.summary.contains("another"),
            "{check:?}"
        );
        assert!(Check::socket("admin_socket", &path, "some-daemon", true).ok);
        drop(listener);
        assert!(look(&path).ok);
    }
}
