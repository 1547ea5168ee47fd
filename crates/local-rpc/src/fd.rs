//! File descriptors over a Unix socket (`SCM_RIGHTS`), exactly one with exactly one byte.
//!
//! The receiver may face somebody hostile: whatever arrives is close-on-exec from the start, surplus descriptors are
//! closed, and [`PassedStream`] refuses what is not a connected stream socket.

pub use crate::passed::{PassedStream, PassedStreamError};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};
use tokio::{io::Interest, net::UnixStream};

/// `SCM_MAX_FD`: with room for all of them, none is ever cut off and left open unseen.
const MAX_FDS: usize = 253;

#[derive(Debug, thiserror::Error)]
pub enum FdError {
    #[error("cannot send a descriptor")]
    Send {
        #[source]
        source: io::Error,
    },
    #[error("cannot receive a descriptor")]
    Receive {
        #[source]
        source: io::Error,
    },
    #[error("the peer closed the connection instead of sending a descriptor")]
    Closed,
    #[error("the peer sent {found} descriptors instead of one")]
    NotOne { found: usize },
}

/// Sends `fd` with `byte`. The caller's descriptor stays open and is the caller's.
///
/// # Errors
/// Fails where the peer is gone or its queue of descriptors in flight is full.
pub async fn send_fd(stream: &UnixStream, fd: impl AsFd, byte: u8) -> Result<(), FdError> {
    let raw = [fd.as_fd().as_raw_fd()];
    stream
        .async_io(Interest::WRITABLE, || {
            let sent = sendmsg::<()>(
                stream.as_raw_fd(),
                &[IoSlice::new(&[byte])],
                &[ControlMessage::ScmRights(&raw)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?;
            if sent == 1 {
                Ok(())
            } else {
                Err(io::ErrorKind::WriteZero.into())
            }
        })
        .await
        .map_err(|source| FdError::Send { source })
}

/// Receives one descriptor and the byte it came with. Cancel-safe.
///
/// # Errors
/// Refuses a byte without, or with more than one, descriptor.
pub async fn recv_fd(stream: &UnixStream) -> Result<(OwnedFd, u8), FdError> {
    let (read, byte, mut fds) = stream
        .async_io(Interest::READABLE, || receive(stream.as_raw_fd()))
        .await
        .map_err(|source| FdError::Receive { source })?;
    if read == 0 {
        return Err(FdError::Closed);
    }
    match (fds.pop(), fds.len()) {
        (Some(fd), 0) => Ok((fd, byte)),
        (Some(_), more) => Err(FdError::NotOne { found: more + 1 }),
        (None, _) => Err(FdError::NotOne { found: 0 }),
    }
}

fn receive(socket: RawFd) -> io::Result<(usize, u8, Vec<OwnedFd>)> {
    let mut byte = [0_u8];
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        socket,
        &mut iov,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(own));
        }
    }
    let read = message.bytes;
    let [byte] = byte;
    Ok((read, byte, fds))
}

fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put this descriptor into our table for this message; nobody else knows it.
    #[expect(unsafe_code, reason = "SCM_RIGHTS hands over bare numbers")]
    unsafe {
        OwnedFd::from_raw_fd(raw)
    }
}
