//! Binding a socket path, so that exactly one process has it.
//!
//! A lock file beside the socket (`<path>.lock`) is held as long as the listener lives, so two starting processes
//! cannot both find the socket stale. The socket is bound under a temporary name, gets its mode and group, starts to
//! listen, and only then takes its name: a client never meets a socket that is not served or not yet protected.

use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, renameat},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt,
            listen, socket, sockopt,
        },
        stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat},
    },
    unistd::{Gid, UnlinkatFlags, fchownat, unlinkat},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixListener as StdUnixListener,
    },
};
use tokio::net::{UnixListener, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on `{path}`: another process{} listens on it", pid.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    Live { path: Utf8PathBuf, pid: Option<i32> },
    #[error("cannot listen on `{path}`: it exists and is not a socket")]
    NotASocket { path: Utf8PathBuf },
    #[error("cannot listen on `{path}`: it is not a path to a file")]
    NotAPath { path: Utf8PathBuf },
    #[error("cannot listen on `{path}`: cannot {step}")]
    Io {
        path: Utf8PathBuf,
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Live { pid: Some(pid), .. } => {
                Some(format!("is the daemon running twice? see \"ps -fp {pid}\""))
            }
            Self::Live { pid: None, .. } => Some("is the daemon running twice?".to_owned()),
            Self::NotASocket { path } => {
                Some(format!("move `{path}` away, or configure another path"))
            }
            Self::NotAPath { .. } => None,
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                format!("create the directory `{}`", path.parent().unwrap_or(path)),
            ),
            Self::Io { .. } => None,
        }
    }
}

/// Access to the socket file.
#[derive(Clone, Copy, Debug)]
pub struct BindOptions {
    pub mode: u32,
    /// The group of the socket file; the process's own where absent.
    pub gid: Option<u32>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            mode: 0o660,
            gid: None,
        }
    }
}

/// A listening Unix socket. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    /// Absent where the socket came from outside, as from systemd.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    path: Utf8PathBuf,
    dir: OwnedFd,
    name: String,
    inode: (u64, u64),
    /// Held, never read.
    _lock: Flock<File>,
}

impl Listener {
    /// Binds `path`. A socket left by a dead process is replaced, a live one is an error.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Says which step failed, or who has the socket.
    pub fn bind(path: &Utf8Path, options: BindOptions) -> Result<Self, BindError> {
        let fail = |step: &'static str| {
            move |source: Errno| BindError::Io {
                path: path.to_owned(),
                step,
                source: source.into(),
            }
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(BindError::NotAPath {
                path: path.to_owned(),
            });
        };
        let parent = if parent.as_str().is_empty() {
            Utf8Path::new(".")
        } else {
            parent
        };
        let dir = open(
            parent.as_std_path(),
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(fail("open its directory"))?;
        // Through the descriptor the 108 bytes of a socket address are enough for any directory.
        let through_dir = |name: &str| {
            UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())
        };
        let address = through_dir(name).map_err(fail("use so long a name"))?;

        let lock = openat(
            &dir,
            format!("{name}.lock").as_str(),
            OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o600),
        )
        .map_err(fail("open its lock file"))?;
        let lock = match Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(BindError::Live {
                    path: path.to_owned(),
                    pid: probe(&address).ok().and_then(|holder| holder.pid()),
                });
            }
            Err((_, errno)) => return Err(fail("lock its lock file")(errno)),
        };

        match fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fail("look at it")(errno)),
            Ok(stat) if file_type(stat.st_mode) != SFlag::S_IFSOCK => {
                return Err(BindError::NotASocket {
                    path: path.to_owned(),
                });
            }
            // The holder may be a program that knows nothing of the lock file.
            Ok(_) => match probe(&address).map_err(fail("find out whether it is served"))? {
                Holder::Dead => {}
                Holder::Live { pid } => {
                    return Err(BindError::Live {
                        path: path.to_owned(),
                        pid,
                    });
                }
            },
        }

        let temporary = format!(".{name}.bind");
        match unlinkat(&dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fail("remove its temporary name")(errno)),
        }
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .map_err(fail("make a socket"))?;
        let temporary_address = through_dir(&temporary).map_err(fail("use so long a name"))?;
        bind(fd.as_raw_fd(), &temporary_address).map_err(fail("bind its temporary name"))?;
        if let Some(gid) = options.gid {
            fchownat(
                &dir,
                temporary.as_str(),
                None,
                Some(Gid::from_raw(gid)),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .map_err(fail("set its group"))?;
        }
        fchmodat(
            &dir,
            temporary.as_str(),
            Mode::from_bits_truncate(options.mode),
            FchmodatFlags::FollowSymlink,
        )
        .map_err(fail("set its mode"))?;
        listen(&fd, Backlog::MAXCONN).map_err(fail("listen"))?;
        let stat = fstatat(&dir, temporary.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(fail("look at its temporary name"))?;
        renameat(&dir, temporary.as_str(), &dir, name).map_err(fail("give it its name"))?;

        let inner =
            UnixListener::from_std(StdUnixListener::from(fd)).map_err(|source| BindError::Io {
                path: path.to_owned(),
                step: "watch it",
                source,
            })?;
        Ok(Self {
            inner,
            place: Some(Place {
                path: path.to_owned(),
                name: name.to_owned(),
                dir,
                inode: (stat.st_dev, stat.st_ino),
                _lock: lock,
            }),
        })
    }

    /// Takes over a socket that something else bound, as systemd does; its file is not ours to remove.
    ///
    /// # Errors
    /// Fails where the runtime cannot watch the socket.
    pub fn from_std(listener: StdUnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            inner: UnixListener::from_std(listener)?,
            place: None,
        })
    }

    /// The path that [`Listener::bind`] was given.
    #[must_use]
    pub fn path(&self) -> Option<&Utf8Path> {
        self.place.as_ref().map(|place| place.path.as_path())
    }

    /// Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.inner.accept().await?;
        Ok(stream)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have put another socket in our place; it stays.
        let ours = fstatat(&self.dir, self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode);
        if ours
            && let Err(error) = unlinkat(&self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            // The next start finds it stale and replaces it.
            tracing::debug!(%error, path = %self.path, "The socket file stays");
        }
    }
}

pub(crate) fn file_type(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

enum Holder {
    Dead,
    Live { pid: Option<i32> },
}

impl Holder {
    fn pid(&self) -> Option<i32> {
        match self {
            Self::Dead => None,
            Self::Live { pid } => *pid,
        }
    }
}

/// Connects, and says who answers.
fn probe(address: &UnixAddr) -> Result<Holder, Errno> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    match connect(fd.as_raw_fd(), address) {
        Ok(()) => Ok(Holder::Live {
            pid: getsockopt(&fd, sockopt::PeerCredentials)
                .ok()
                .map(|cred| cred.pid())
                .filter(|pid| *pid > 0),
        }),
        // Its queue is full: it is served, if slowly.
        Err(Errno::EAGAIN) => Ok(Holder::Live { pid: None }),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(Holder::Dead),
        Err(errno) => Err(errno),
    }
}
