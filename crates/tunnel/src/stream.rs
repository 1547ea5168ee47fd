//! One stream, for whoever reads and writes it.

use crate::{Broken, mux::Mux};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

#[derive(Debug)]
pub(crate) struct Shared(Mutex<Mux>);

impl Shared {
    pub(crate) fn new(mux: Mux) -> Self {
        Self(Mutex::new(mux))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Mux> {
        // Whole between any two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open stream. Dropped without a shutdown, it breaks off at the other end, too: what was cut is not taken for whole.
#[derive(Debug)]
pub struct TunnelStream {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u32,
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.shared.lock().dropped(self.id, Instant::now());
    }
}

fn broken(why: Broken) -> io::Error {
    let kind = match why {
        Broken::Peer | Broken::Tunnel(_) => io::ErrorKind::ConnectionReset,
        Broken::Shut => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, why)
}

impl TunnelStream {
    /// How much can be written at once, when anything can.
    pub(crate) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_room(self.id, cx).map_err(broken)
    }

    /// Writes what there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shared.lock().push(self.id, bytes).map_err(broken)
    }

    pub(crate) fn shut(&mut self) {
        self.shared.lock().shut(self.id);
    }

    /// What came, as it came. `None` at the end.
    pub(crate) fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.shared
            .lock()
            .poll_piece(self.id, cx, Instant::now())
            .map_err(broken)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut mux = self.shared.lock();
        mux.poll_read(self.id, cx, room, Instant::now())
            .map_err(broken)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut mux = self.shared.lock();
        mux.poll_write(self.id, cx, bytes).map_err(broken)
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().shut(self.id);
        Poll::Ready(Ok(()))
    }
}
