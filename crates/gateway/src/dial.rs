//! How a gitspace is reached: the seam to whoever knows delegates.

use crate::Authorized;
use futures_util::future::BoxFuture;
use local_rpc::fd::PassedStream;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tunnel::TunnelStream;
use wire::{
    agent::ListeningPort,
    control::ProbeReport,
    ids::{DelegateUuid, GitspaceUuid},
    runner::DialTarget,
};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub gitspace: GitspaceUuid,
    /// Who has the gitspace.
    pub delegate: DelegateUuid,
    pub to: DialTarget,
}

/// Why there is no stream; shown to the user.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("nothing listens on the port")]
    PortClosed {
        /// What does listen, for the page.
        listening: Vec<ListeningPort>,
    },
    #[error("the gitspace does not run")]
    NotRunning,
    /// Not through this one.
    #[error("its host has no tunnel to this gateway, and is another than the gateway's own")]
    Elsewhere,
    #[error("the gitspace cannot be reached: {cause}")]
    Unreachable { cause: String },
}

/// Opens streams into gitspaces. Called once for each upstream connection; the gateway keeps and reuses them, and limits
/// how long a call may take.
pub trait Dial: Send + Sync + 'static {
    fn dial(&self, target: Authorized<Target>) -> BoxFuture<'_, Result<Upstream, DialError>>;

    /// Whether the gitspaces of `delegate` are where this leads; `None` where only a try tells.
    fn has(&self, delegate: DelegateUuid) -> Option<bool>;

    /// Goes the way to gitspaces that run and says how far it leads, within a few seconds. No stream of it is kept: there is nobody who would
    /// have to be authorised.
    fn probe(&self, gitspaces: Vec<(GitspaceUuid, DelegateUuid)>) -> BoxFuture<'_, ProbeReport>;
}

/// Any other stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connected stream. The common ones are named, so that reading them costs no virtual call.
pub enum Upstream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Passed(PassedStream),
    Tunnel(TunnelStream),
    Other(Box<dyn Stream>),
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Upstream::Tcp",
            Self::Unix(_) => "Upstream::Unix",
            Self::Passed(_) => "Upstream::Passed",
            Self::Tunnel(_) => "Upstream::Tunnel",
            Self::Other(_) => "Upstream::Other",
        })
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Upstream::Tcp($stream) => $call,
            Upstream::Unix($stream) => $call,
            Upstream::Passed($stream) => $call,
            Upstream::Tunnel($stream) => $call,
            Upstream::Other($stream) => $call,
        }
    };
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
