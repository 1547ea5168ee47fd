//! A buffer between a read and a write.
//!
//! One that is empty while it waits holds no memory: most connections wait most of the time. What it had is kept for the next one of the same
//! thread that reads, so that giving it up costs next to nothing. What was read before may still be in it: nothing but what is filled is ever
//! handed out.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of each size, by a thread.
const MAX_SPARES: usize = 4;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// `size` bytes with any content.
fn take_spare(size: usize) -> Vec<u8> {
    let spare = SPARES.with_borrow_mut(|spares| {
        let at = spares.iter().position(|spare| spare.len() == size)?;
        Some(spares.swap_remove(at))
    });
    spare.unwrap_or_else(|| vec![0; size])
}

fn give_back(data: Vec<u8>) {
    SPARES.with_borrow_mut(|spares| {
        let alike = spares.iter().filter(|spare| spare.len() == data.len());
        if !data.is_empty() && alike.count() < MAX_SPARES && spares.len() < 4 * MAX_SPARES {
            spares.push(data);
        }
    });
}

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

    /// Gives up the memory where there is nothing in it.
    fn release(&mut self) {
        if self.is_empty() {
            give_back(std::mem::take(&mut self.data));
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
            self.release();
            if self.data.is_empty() {
                self.data = take_spare(size);
            } else {
                self.data.resize(size, 0);
            }
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
        let read = Pin::new(from).poll_read(cx, &mut room);
        let count = room.filled().len();
        if read.is_pending() {
            self.release();
        }
        ready!(read)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, task::Waker};

    /// Gives one piece at a time, and then waits.
    struct Pieces(VecDeque<&'static [u8]>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Some(piece) = self.0.pop_front() else {
                return Poll::Pending;
            };
            room.put_slice(piece);
            Poll::Ready(Ok(()))
        }
    }

    fn fill(buffer: &mut Buffer, from: &mut Pieces, size: usize) -> Poll<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        buffer.poll_fill(&mut cx, from, size).map(Result::unwrap)
    }

    #[test]
    fn one_that_waits_holds_memory_only_for_what_is_in_it() {
        let mut from = Pieces([&b"hello"[..]].into());
        let mut buffer = Buffer::default();
        assert_eq!(fill(&mut buffer, &mut from, 64), Poll::Ready(5));
        buffer.consume(1);
        assert_eq!(fill(&mut buffer, &mut from, 64), Poll::Pending);
        assert_eq!(buffer.filled(), b"ello");
        buffer.consume(4);
        assert_eq!(fill(&mut buffer, &mut from, 64), Poll::Pending);
        assert_eq!(buffer.data.capacity(), 0);
    }

    #[test]
    fn what_another_one_read_is_not_handed_out() {
        let mut first = Buffer::default();
        let mut from = Pieces([&b"secret"[..]].into());
        assert_eq!(fill(&mut first, &mut from, 32), Poll::Ready(6));
        first.consume(6);
        assert_eq!(fill(&mut first, &mut from, 32), Poll::Pending);

        let mut second = Buffer::default();
        let mut from = Pieces([&b"ab"[..]].into());
        assert_eq!(fill(&mut second, &mut from, 32), Poll::Ready(2));
        assert_eq!(second.data.len(), 32, "the same memory");
        assert_eq!(second.filled(), b"ab");
    }

    #[test]
    fn one_that_grows_keeps_what_is_in_it() {
        let mut from = Pieces([&b"abcd"[..], &b"efgh"[..]].into());
        let mut buffer = Buffer::default();
        assert_eq!(fill(&mut buffer, &mut from, 4), Poll::Ready(4));
        assert_eq!(fill(&mut buffer, &mut from, 4), Poll::Pending);
        assert_eq!(fill(&mut buffer, &mut from, 8), Poll::Ready(4));
        assert_eq!(buffer.filled(), b"abcdefgh");
    }
}
