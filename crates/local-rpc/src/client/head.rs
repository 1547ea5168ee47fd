//! A Unix socket that is never read past the head of a `101` answer.
//!
//! A descriptor sent with `SCM_RIGHTS` travels with a byte of the stream; a plain `read` that takes this byte closes
//! the descriptor. hyper reads as much as there is, and goes on reading while an upgrade is pending. So what is
//! waiting is looked at first (`MSG_PEEK`), and only the head is taken; behind a `101` nothing is.

use nix::sys::socket::{MsgFlags, recv};
use std::{
    io,
    os::fd::AsRawFd as _,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};

/// Taken at once while the end of the head is looked for.
const PEEK: usize = 4096;
const HEAD_END: &[u8] = b"\r\n\r\n";
/// `HTTP/1.1 101`
const STATUS_LINE_START: usize = 12;

#[derive(Debug)]
pub(super) struct HeadStream {
    stream: UnixStream,
    state: State,
}

#[derive(Debug)]
enum State {
    Head {
        /// The first bytes, up to the status code.
        start: Vec<u8>,
        /// How many bytes of [`HEAD_END`] the last bytes taken are.
        matched: usize,
    },
    /// An ordinary answer: its body ends by itself.
    Body,
    /// Behind a `101`: not HTTP's to read.
    Upgraded,
}

impl HeadStream {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            state: State::Head {
                start: Vec::with_capacity(STATUS_LINE_START),
                matched: 0,
            },
        }
    }

    pub(super) fn into_inner(self) -> UnixStream {
        self.stream
    }
}

/// How many bytes from the front of `seen` belong to the head, and how far [`HEAD_END`] is matched after them.
fn head_part(seen: &[u8], mut matched: usize) -> (usize, usize) {
    for (index, byte) in seen.iter().enumerate() {
        matched = if HEAD_END.get(matched) == Some(byte) {
            matched + 1
        } else {
            usize::from(HEAD_END.first() == Some(byte))
        };
        if matched == HEAD_END.len() {
            return (index + 1, matched);
        }
    }
    (seen.len(), matched)
}

impl AsyncRead for HeadStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (start, matched) = match &mut this.state {
            State::Body => return Pin::new(&mut this.stream).poll_read(cx, buf),
            // Nobody needs to be woken: the upgrade is complete when the answer is parsed and the request is sent.
            State::Upgraded => return Poll::Pending,
            State::Head { start, matched } => (start, matched),
        };
        let mut seen = [0_u8; PEEK];
        let room = buf.remaining().min(PEEK);
        let Some(seen) = seen.get_mut(..room) else {
            return Poll::Ready(Ok(()));
        };
        let fd = this.stream.as_raw_fd();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let taken = this.stream.try_io(Interest::READABLE, || {
                let peeked = recv(fd, seen, MsgFlags::MSG_PEEK)?;
                let (wanted, _) = head_part(seen.get(..peeked).unwrap_or_default(), *matched);
                Ok(recv(
                    fd,
                    seen.get_mut(..wanted).unwrap_or_default(),
                    MsgFlags::empty(),
                )?)
            });
            let taken = match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(taken) => seen.get(..taken).unwrap_or_default(),
            };
            buf.put_slice(taken);
            let missing = STATUS_LINE_START - start.len();
            start.extend(taken.iter().take(missing));
            *matched = head_part(taken, *matched).1;
            if *matched == HEAD_END.len() {
                this.state = if start.ends_with(b" 101") {
                    State::Upgraded
                } else {
                    State::Body
                };
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for HeadStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_across_reads() {
        let head = b"HTTP/1.1 101 S\r\nA: b\r\n\r\n";
        let mut all = head.to_vec();
        all.extend_from_slice(b"rest\r\n\r\n");
        for split in 0..=head.len() {
            let (first, matched) = head_part(&all[..split], 0);
            assert_eq!(first, split);
            if matched < HEAD_END.len() {
                let (second, matched) = head_part(&all[split..], matched);
                assert_eq!((split + second, matched), (head.len(), HEAD_END.len()));
            }
        }
    }

    #[test]
    fn a_doubled_carriage_return_does_not_hide_the_end() {
        assert_eq!(head_part(b"a\r\r\n\r\nb", 0), (6, 4));
        assert_eq!(head_part(b"a\r\n\r\r\n\r\nb", 0), (8, 4));
    }
}
