//! A stream of a tunnel and a socket, joined: what the one says the other hears.
//!
//! It holds no buffer while nothing moves: most streams are idle most of the time.

use crate::{TunnelStream, mux::LINGER};
use bytes::{Buf as _, Bytes};
use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Read of the socket at once.
const READ: usize = 16 * 1024;
/// Pieces in a row in one direction: others want the thread.
const TURN: usize = 8;

/// Until both have ended, or one broke: then the other is broken off, too. What came before the stream's end is still written, for
/// [`LINGER`] at most, where nobody is there any more who would read an answer.
///
/// # Errors
/// One of the two broke.
pub async fn pump<S>(mut stream: TunnelStream, mut socket: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Up::Reading, Down::Idle);
    let mut unread: Option<(io::Error, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if unread.is_none() {
            match up.poll(cx, &mut stream, &mut socket) {
                Poll::Ready(Err(Broke::Socket(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Err(Broke::Stream(error))) => {
                    unread = Some((error, Box::pin(sleep(LINGER))));
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        let down = down.poll(cx, &mut stream, &mut socket)?;
        let is_late = unread
            .as_mut()
            .is_some_and(|(_, limit)| limit.as_mut().poll(cx).is_ready());
        if (down.is_ready() || is_late)
            && let Some((error, _)) = unread.take()
        {
            return Poll::Ready(Err(error));
        }
        if down.is_ready() && matches!(up, Up::Ended) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await
}

/// Which of the two.
enum Broke {
    Stream(io::Error),
    Socket(io::Error),
}

/// From the socket into the tunnel.
enum Up {
    Reading,
    Ended,
}

impl Up {
    fn poll<S>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TunnelStream,
        socket: &mut S,
    ) -> Poll<Result<(), Broke>>
    where
        S: AsyncRead + Unpin,
    {
        for _ in 0..TURN {
            // What is read has to have a place. A break is heard of also after the end.
            let room = match (stream.poll_room(cx).map_err(Broke::Stream)?, &self) {
                (_, Self::Ended) => return Poll::Ready(Ok(())),
                (Poll::Ready(room), Self::Reading) => room.min(READ),
                (Poll::Pending, Self::Reading) => return Poll::Pending,
            };
            let mut bytes = [MaybeUninit::<u8>::uninit(); READ];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            let mut bytes = bytes.take(room);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut bytes)).map_err(Broke::Socket)?;
            if bytes.filled().is_empty() {
                stream.shut();
                *self = Self::Ended;
            } else {
                stream.push(bytes.filled()).map_err(Broke::Stream)?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// From the tunnel to the socket.
enum Down {
    Idle,
    Writing(Bytes),
    Shutting,
    Ended,
}

impl Down {
    fn poll<S>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TunnelStream,
        socket: &mut S,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        for _ in 0..TURN {
            match self {
                Self::Idle => {
                    *self = match ready!(stream.poll_piece(cx))? {
                        Some(piece) => Self::Writing(piece),
                        None => Self::Shutting,
                    };
                }
                Self::Writing(piece) => {
                    let wrote = ready!(Pin::new(&mut *socket).poll_write(cx, piece))?;
                    if wrote == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    piece.advance(wrote);
                    if piece.is_empty() {
                        *self = Self::Idle;
                    }
                }
                Self::Shutting => {
                    // It may have closed first: what it says goes on.
                    drop(ready!(Pin::new(&mut *socket).poll_shutdown(cx)));
                    *self = Self::Ended;
                }
                Self::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
