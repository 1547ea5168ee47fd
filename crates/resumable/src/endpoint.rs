//! One end, under the face of a socket.

use crate::{
    TELL_EVERY, WINDOW,
    frame::{Frame, HEADER},
    line::{Came, Line, OnLine, Peer},
    replay::Replay,
};
use std::{
    collections::VecDeque,
    fmt,
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// What the other end has taken, on each line's start.
const HELLO: usize = 8;
/// Written and not on the line, at which writers wait: more would only be in the way of what is more urgent.
const AHEAD: usize = 64 * 1024;
/// The calling end asks for a sign of life after such a silence, and gives the line up after as much again.
const SILENCE: Duration = Duration::from_secs(15);

/// Which end it is.
#[derive(Debug)]
pub enum Side<C> {
    /// It makes the lines, and watches whether they are alive.
    Calling(C),
    /// It is given lines; a newer one takes the place of the one before, of which nobody may have noticed yet that it is dead.
    Called(C),
}

/// Where lines come from.
pub trait Lines: Unpin {
    /// The next line. Asked also while there is one (`is_cut` is false); who makes them has nothing to do then.
    ///
    /// # Errors
    /// There will be none any more: the stream ends with this.
    fn poll_next(&mut self, cx: &mut Context<'_>, is_cut: bool) -> Poll<io::Result<Box<dyn Line>>>;
}

/// Read it and write it in one task: its halves wake each other.
pub struct Endpoint<C> {
    lines: C,
    is_calling: bool,
    line: Option<OnLine>,
    replay: Replay,
    /// By the reader, of all that came; the end is one more byte.
    taken: u64,
    /// Read beyond what the reader takes, to get at what the other end has taken.
    ahead: VecDeque<u8>,
    peer: Peer,
    watch: Pin<Box<Sleep>>,
    over: Option<io::ErrorKind>,
}

impl<C> fmt::Debug for Endpoint<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("is_calling", &self.is_calling)
            .field("is_on_line", &self.line.is_some())
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl<C: Lines> Endpoint<C> {
    /// At the stream's beginning, without a line.
    #[must_use]
    pub fn new(side: Side<C>) -> Self {
        let (lines, is_calling) = match side {
            Side::Calling(lines) => (lines, true),
            Side::Called(lines) => (lines, false),
        };
        Self {
            lines,
            is_calling,
            line: None,
            replay: Replay::default(),
            taken: 0,
            ahead: VecDeque::new(),
            peer: Peer::Open,
            watch: Box::pin(sleep(SILENCE)),
            over: None,
        }
    }

    /// Says the last byte, and waits until the other end has it and has said its own. What comes meanwhile is thrown away.
    ///
    /// # Errors
    /// There are no lines any more.
    pub async fn finish(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            self.replay.end();
            let mut rest = [0; 4096];
            while self.peer != Peer::Ended {
                let mut room = ReadBuf::new(&mut rest);
                ready!(Pin::new(&mut *self).poll_read(cx, &mut room))?;
            }
            loop {
                ready!(self.poll_line(cx))?;
                let out = self.poll_out(cx);
                let is_out = match self.survive(out) {
                    Poll::Ready(done) => match done? {
                        Some(()) => true,
                        None => continue,
                    },
                    Poll::Pending => false,
                };
                let knows = self
                    .line
                    .as_ref()
                    .is_some_and(|line| line.told == self.taken);
                if is_out && knows && self.replay.is_done() {
                    return Poll::Ready(Ok(()));
                }
                let came = self.poll_in(cx);
                ready!(self.survive(came))?;
            }
        })
        .await
    }

    fn fail<T>(
        &mut self,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Poll<io::Result<T>> {
        self.over = Some(io::ErrorKind::InvalidData);
        self.line = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    /// Has a line where there can be one. Pending where there is none.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.over {
            return Poll::Ready(Err(kind.into()));
        }
        loop {
            if self.is_calling {
                self.poll_watch(cx);
            }
            match self.lines.poll_next(cx, self.line.is_none()) {
                Poll::Ready(Ok(stream)) => {
                    // What was read of the old one and not taken comes again, and what was read ahead is thrown away with it.
                    self.ahead = VecDeque::new();
                    if self.peer == Peer::Ending {
                        self.peer = Peer::Open;
                    }
                    self.line = Some(OnLine::new(stream, self.taken));
                    self.watch.as_mut().reset(Instant::now() + SILENCE);
                }
                Poll::Ready(Err(error)) => {
                    self.over = Some(error.kind());
                    self.line = None;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending if self.line.is_none() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The calling end asks a silent line for a sign of life, and gives up one that gives none.
    fn poll_watch(&mut self, cx: &mut Context<'_>) {
        while let Some(line) = &mut self.line
            && self.watch.as_mut().poll(cx).is_ready()
        {
            let silent = line.heard.elapsed();
            let mut next = line.heard + SILENCE;
            if line.asked && silent >= 2 * SILENCE {
                self.line = None;
            } else if silent >= SILENCE {
                line.owes_sign |= !line.asked;
                line.asked = true;
                next += SILENCE;
            }
            self.watch.as_mut().reset(next);
        }
    }

    /// Puts on the line what can be. Ready when all is.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(line) = &mut self.line else {
                return Poll::Pending;
            };
            if line.outbound.is_empty()
                && line.outgoing == 0
                && !line.next(&mut self.replay, self.taken, self.peer)
            {
                return Pin::new(&mut line.stream).poll_flush(cx);
            }
            let [first, second] = self.replay.unsent();
            let first = first.get(..line.outgoing).unwrap_or(&first);
            let rest = line.outgoing - first.len();
            let second = second.get(..rest).unwrap_or(&second);
            let parts = [
                IoSlice::new(&line.outbound),
                IoSlice::new(first),
                IoSlice::new(second),
            ];
            let written = ready!(Pin::new(&mut line.stream).poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let headers = written.min(line.outbound.len());
            line.outbound.drain(..headers);
            let data = written - headers;
            line.outgoing -= data;
            self.replay.sent(data);
        }
    }

    /// Looks at what was read, and reads more where nothing is there. `Came::Data` is left for the caller to take.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
        let Some(line) = &mut self.line else {
            return Poll::Pending;
        };
        if line.incoming > 0 && !line.unread().is_empty() {
            return Poll::Ready(Ok(Came::Data(line.incoming.min(line.unread().len()))));
        }
        if !line.greeted {
            let Some(hello) = line.take::<HELLO>() else {
                ready!(line.poll_read(cx))?;
                return Poll::Ready(Ok(Came::Other));
            };
            line.greeted = true;
            return match self.replay.resume(u64::from_be_bytes(hello)) {
                Ok(()) => Poll::Ready(Ok(Came::Other)),
                Err(error) => self.fail(error),
            };
        }
        let header = match line.incoming {
            0 => line.take::<HEADER>(),
            _ => None,
        };
        let Some(header) = header else {
            ready!(line.poll_read(cx))?;
            return Poll::Ready(Ok(Came::Other));
        };
        match Frame::parse(header) {
            Ok(Frame::Data(_) | Frame::End) if self.peer != Peer::Open => {
                self.fail("more after the last byte")
            }
            Ok(Frame::Data(length)) => {
                line.incoming = length;
                Poll::Ready(Ok(Came::Other))
            }
            Ok(Frame::End) => {
                self.peer = Peer::Ending;
                Poll::Ready(Ok(Came::Other))
            }
            Ok(Frame::Taken(count)) => {
                line.owes_sign |= count == 0 && !self.is_calling;
                match self.replay.acknowledged(count) {
                    Ok(()) => Poll::Ready(Ok(Came::Other)),
                    Err(error) => self.fail(error),
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Until the other end's hello was read.
    fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.line.as_ref().is_some_and(|line| !line.greeted) {
            ready!(self.poll_in(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// A broken line is not the stream's end.
    fn survive<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<Option<T>>> {
        match result {
            Poll::Ready(Err(error)) if self.over.is_none() => {
                self.line = None;
                drop(error);
                Poll::Ready(Ok(None))
            }
            Poll::Ready(result) => Poll::Ready(result.map(Some)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// One turn: has a line, puts on it what can be, and looks at what comes. The answer is how much of it can be taken, where that is data.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        ready!(self.poll_line(cx))?;
        // Also where nothing is written: our hello, signs of life, and what was taken.
        let out = self.poll_out(cx);
        if let Poll::Ready(done) = self.survive(out)
            && done?.is_none()
        {
            return Poll::Ready(Ok(None));
        }
        let came = self.poll_in(cx);
        Poll::Ready(Ok(match ready!(self.survive(came))? {
            Some(Came::Data(count)) => Some(count),
            Some(Came::Other) | None => None,
        }))
    }

    /// Reads although nobody wants it yet, until the other end has taken something.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replay.is_full() {
            let Some(count) = ready!(self.poll_turn(cx))? else {
                continue;
            };
            if self.ahead.len() + count > WINDOW {
                return self.fail("the other end does not wait for what it sent to be taken");
            }
            if let Some(line) = &mut self.line {
                self.ahead.extend(line.unread().iter().take(count));
                line.at += count;
                line.incoming -= count;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, count: usize, cx: &mut Context<'_>) -> io::Result<()> {
        self.taken += count as u64;
        let is_due = self
            .line
            .as_ref()
            .is_some_and(|line| self.taken - line.told >= TELL_EVERY || self.peer == Peer::Ended);
        if is_due {
            let out = self.poll_out(cx);
            if let Poll::Ready(done) = self.survive(out) {
                done?;
            }
        }
        Ok(())
    }
}

impl<C: Lines> AsyncRead for Endpoint<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.ahead.is_empty() {
                let (front, _) = self.ahead.as_slices();
                let count = front.len().min(room.remaining());
                room.put_slice(front.get(..count).unwrap_or_default());
                self.ahead.drain(..count);
                if self.ahead.is_empty() {
                    self.ahead = VecDeque::new();
                }
                self.took(count, cx)?;
                return Poll::Ready(Ok(()));
            }
            if self.peer != Peer::Open {
                if self.peer == Peer::Ending {
                    self.peer = Peer::Ended;
                    self.took(1, cx)?;
                }
                return Poll::Ready(Ok(()));
            }
            let Some(count) = ready!(self.poll_turn(cx))? else {
                continue;
            };
            let count = count.min(room.remaining());
            if let Some(line) = &mut self.line {
                room.put_slice(line.unread().get(..count).unwrap_or_default());
                line.at += count;
                line.incoming -= count;
            }
            self.took(count, cx)?;
            return Poll::Ready(Ok(()));
        }
    }
}

impl<C: Lines> AsyncWrite for Endpoint<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replay.is_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_ahead(cx))?;
        if self.replay.unsent_len() >= AHEAD {
            ready!(self.as_mut().poll_flush(cx))?;
        }
        if let Some(kind) = self.over {
            return Poll::Ready(Err(kind.into()));
        }
        let count = self.replay.write(bytes);
        // What the line does not take now goes when it does: whoever reads drives it, too.
        if let Poll::Ready(Err(error)) = self.as_mut().poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    /// Until the line has all. Without a line it waits for one.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_line(cx))?;
            let out = self.poll_out(cx);
            if ready!(self.survive(out))?.is_none() {
                continue;
            }
            if self.replay.has_sent_all() && self.line.as_ref().is_some_and(|line| line.greeted) {
                return Poll::Ready(Ok(()));
            }
            // Nothing goes out before the other end's hello, which whoever reads gets. A writer alone has to look for it.
            let came = self.poll_greeting(cx);
            ready!(self.survive(came))?;
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.replay.end();
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests;
