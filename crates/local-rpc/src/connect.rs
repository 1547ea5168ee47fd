//! Dialling a Unix socket.

use crate::listen::file_type;
use camino::Utf8Path;
use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, SFlag, fstat},
};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};
use tokio::net::UnixStream;

/// A full queue of a Unix socket is `EAGAIN`, with nothing to wait on.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Connects to a socket at a path that only trusted users can write to. Callers bound it by a deadline.
///
/// # Errors
/// As `connect(2)`.
pub async fn connect(path: &Utf8Path) -> io::Result<UnixStream> {
    // The descriptor makes a path of any length fit the 108 bytes of a socket address.
    let file = open(
        path.as_std_path(),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    connect_file(file).await
}

/// Connects to the socket `name` in `dir`, whose *content* may be written by somebody hostile, as by root inside a
/// container that has the directory mounted: no symbolic link is followed, and the file that was checked is the one
/// that is connected to.
///
/// # Errors
/// Refuses whatever is not a socket; else as `connect(2)`.
pub async fn connect_untrusted(dir: &Utf8Path, name: &str) -> io::Result<UnixStream> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` is not the name of a file"),
        ));
    }
    let dir = open(
        dir.as_std_path(),
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let file = openat(
        &dir,
        name,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    connect_file(file).await
}

async fn connect_file(file: OwnedFd) -> io::Result<UnixStream> {
    let kind = file_type(fstat(&file)?.st_mode);
    if kind != SFlag::S_IFSOCK {
        let kind = match kind {
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFREG => "a regular file",
            _ => "another kind of file",
        };
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is {kind}, not a socket"),
        ));
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_FULL_PAUSE).await;
            }
            done => return done,
        }
    }
}
