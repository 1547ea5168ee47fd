//! Pseudo-terminals, read and written without blocking.

use crate::{account::Account, spawn};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    libc,
    pty::{Winsize, openpty},
    unistd::{read, write},
};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};
use tokio::io::unix::AsyncFd;
use wire::workspace::Size;

/// Larger sizes cost memory in the emulator and no screen has them.
const MAX_ROWS: u16 = 300;
const MAX_COLS: u16 = 500;

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

/// What a client may ask for: at least one cell, at most what is bounded here.
pub(crate) fn bounded(size: Size) -> Size {
    Size {
        rows: size.rows.clamp(1, MAX_ROWS),
        cols: size.cols.clamp(1, MAX_COLS),
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The master's side.
#[derive(Debug)]
pub(crate) struct Pty {
    master: AsyncFd<OwnedFd>,
}

impl Pty {
    /// A new one and its slave, which is the account's.
    pub(crate) fn open(size: Size, account: &Account) -> io::Result<(Self, OwnedFd)> {
        let pair = openpty(&winsize(bounded(size)), None)?;
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(
            &pair.master,
            FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR),
        )?;
        spawn::own_tty(&pair.slave, account);
        // SAFETY: an `OwnedFd` is open as long as it lives, and `AsyncFd` owns it.
        #[expect(unsafe_code, reason = "registering is unsafe for any descriptor type")]
        let master = unsafe { AsyncFd::register(pair.master) }?;
        Ok((Self { master }, pair.slave))
    }

    /// Reads some bytes; 0 once no process has the slave open.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| Ok(read(master.get_ref(), buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes some of them. Dropped before it is done, it has written none.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|master| Ok(write(master.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write(bytes).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    pub(crate) fn resize(&self, size: Size) {
        let size = winsize(bounded(size));
        // SAFETY: the descriptor is open and the pointer is to a whole `Winsize` that lives longer than the call.
        #[expect(unsafe_code, reason = "no safe wrapper of TIOCSWINSZ exists")]
        let result: Result<i32, Errno> =
            unsafe { set_window_size(self.master.get_ref().as_raw_fd(), &raw const size) };
        if let Err(error) = result {
            tracing::debug!(%error, "Cannot resize a terminal");
        }
    }
}
