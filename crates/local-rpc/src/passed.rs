//! A stream socket that somebody else opened and handed over.

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, Shutdown, SockType, SockaddrLike as _, SockaddrStorage,
        getpeername, getsockopt, recv, send, setsockopt, shutdown, sockopt,
    },
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

#[derive(Debug, thiserror::Error)]
pub enum PassedStreamError {
    #[error("the descriptor is not a stream socket")]
    NotAStream {
        #[source]
        source: io::Error,
    },
    #[error("the socket that was handed over is not connected")]
    NotConnected {
        #[source]
        source: io::Error,
    },
    #[error("the descriptor is a socket of another kind: {kind}")]
    OtherKind { kind: String },
    #[error("cannot watch the socket that was handed over")]
    Watch {
        #[source]
        source: io::Error,
    },
}

/// A connected TCP or Unix stream socket from another process.
///
/// Whoever handed it over may have kept a copy, and could make it blocking at any moment. So every read and write
/// says itself that it must not block, and never relies on the socket's mode.
#[derive(Debug)]
pub struct PassedStream {
    socket: AsyncFd<OwnedFd>,
}

impl PassedStream {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Refuses what is not a connected TCP or Unix stream socket.
    pub fn new(fd: OwnedFd) -> Result<Self, PassedStreamError> {
        match getsockopt(&fd, sockopt::SockType) {
            Ok(SockType::Stream) => {}
            Ok(other) => {
                return Err(PassedStreamError::OtherKind {
                    kind: format!("{other:?}"),
                });
            }
            Err(errno) => {
                return Err(PassedStreamError::NotAStream {
                    source: errno.into(),
                });
            }
        }
        let peer: SockaddrStorage =
            getpeername(fd.as_raw_fd()).map_err(|errno| PassedStreamError::NotConnected {
                source: errno.into(),
            })?;
        match peer.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => {
                // Each write is a message of its own here, and latency is what the user feels. A socket that is
                // being reset refuses the option; its next read says so better.
                if let Err(error) = setsockopt(&fd, sockopt::TcpNoDelay, &true) {
                    tracing::debug!(%error, "A passed socket stays without TCP_NODELAY");
                }
            }
            Some(AddressFamily::Unix) => {}
            other => {
                return Err(PassedStreamError::OtherKind {
                    kind: format!("{other:?}"),
                });
            }
        }
        // SAFETY: an `OwnedFd` is open as long as it lives, and `AsyncFd` owns it.
        #[expect(unsafe_code, reason = "registering is unsafe for any descriptor type")]
        let socket =
            unsafe { AsyncFd::register(fd) }.map_err(|error| PassedStreamError::Watch {
                source: error.into(),
            })?;
        Ok(Self { socket })
    }

    /// The bare descriptor, to hand on.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_inner()
    }
}

impl AsFd for PassedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl AsyncRead for PassedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            let result =
                ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?));
            match result {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for PassedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_write_ready(cx))?;
            let result = ready.try_io(|socket| {
                Ok(send(
                    socket.as_raw_fd(),
                    buf,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                )?)
            });
            match result {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match shutdown(self.socket.as_raw_fd(), Shutdown::Write) {
            // The peer was faster.
            Ok(()) | Err(Errno::ENOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
