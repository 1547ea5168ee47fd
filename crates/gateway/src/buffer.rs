//! A buffer between a read and a write.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read and not yet used. Invariant: `start <= end <= data.len()`.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

#[expect(
    clippy::indexing_slicing,
    reason = "the invariant above holds after each method"
)]
impl Buffer {
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives back the memory of an empty buffer that is larger than `keep`.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.is_empty() && self.data.len() > keep {
            *self = Self::default();
        }
    }

    /// Reads once, into a buffer of `size` bytes. Ready with 0 at the end of the stream; pending for ever where the buffer is full.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        if self.data.len() < size {
            self.data.resize(size, 0);
        }
        if self.end == self.data.len() {
            if self.start == 0 {
                return Poll::Pending;
            }
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.data[self.end..]);
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    pub(crate) fn is_full(&self, size: usize) -> bool {
        self.end - self.start >= size
    }

    /// Writes the first `count` bytes, once.
    pub(crate) fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(poll_some(
            cx,
            to,
            &self.data[self.start..self.start + count]
        ))?;
        self.consume(written);
        Poll::Ready(Ok(written))
    }
}

/// Writes once; no progress is an error.
pub(crate) fn poll_some<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    to: &mut W,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}
