//! One end, under the face of a socket.

use crate::{
    MAX_DATA, WINDOW,
    frame::{Frame, HEADER},
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
/// Taken and not told, at which it is told without anything else to say.
const TELL_EVERY: u64 = (WINDOW / 16) as u64;
/// Read at once.
const READ: usize = MAX_DATA + 4 * 1024;
/// Written and not on the line, at which writers wait: more would only be in the way of what is more urgent.
const AHEAD: usize = 64 * 1024;
/// The calling end asks for a sign of life after such a silence, and gives the line up after as much again.
const SILENCE: Duration = Duration::from_secs(15);

/// A connection between two endpoints.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

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

/// How far the other end's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Open,
    /// It was read, and perhaps not all that is before it taken.
    Ending,
    /// The reader has it.
    Ended,
}

struct OnLine {
    stream: Box<dyn Line>,
    /// What was read and not looked at lies from `at` to `end`.
    inbound: Vec<u8>,
    at: usize,
    end: usize,
    /// The other end's hello was read: what it has not taken can be sent.
    greeted: bool,
    /// Of the data frame that is being read.
    incoming: usize,
    /// Headers, and where they go on.
    outbound: Vec<u8>,
    /// Of the data frame that is being written, after `outbound`.
    outgoing: usize,
    /// What the other end knows of what was taken.
    told: u64,
    owes_sign: bool,
    heard: Instant,
    asked: bool,
}

/// What came next on a line.
enum Came {
    /// A piece of this length lies in `inbound`.
    Data(usize),
    Other,
}

impl OnLine {
    fn new(stream: Box<dyn Line>, taken: u64) -> Self {
        Self {
            stream,
            inbound: vec![0; READ],
            at: 0,
            end: 0,
            greeted: false,
            incoming: 0,
            outbound: taken.to_be_bytes().to_vec(),
            outgoing: 0,
            told: taken,
            owes_sign: false,
            heard: Instant::now(),
            asked: false,
        }
    }

    fn unread(&self) -> &[u8] {
        self.inbound.get(self.at..self.end).unwrap_or_default()
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.unread().first_chunk::<N>()?;
        self.at += N;
        Some(taken)
    }

    /// Reads more. An end without a last frame is a cut.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A part of a header at most.
        self.inbound.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        let mut room = ReadBuf::new(self.inbound.get_mut(self.end..).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end += count;
        self.heard = Instant::now();
        self.asked = false;
        Poll::Ready(Ok(()))
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

    /// Whether it has a line just now.
    #[must_use]
    pub fn is_on_line(&self) -> bool {
        self.line.is_some()
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
            match self.lines.poll_next(cx, self.line.is_none()) {
                Poll::Ready(Ok(stream)) => {
                    // What was read of the old one and not taken comes again, and what was read ahead is thrown away with it.
                    self.ahead.clear();
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
        if self.is_calling {
            self.poll_watch(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// The calling end asks a silent line for a sign of life, and gives up one that gives none.
    fn poll_watch(&mut self, cx: &mut Context<'_>) {
        while let Some(line) = &mut self.line
            && self.watch.as_mut().poll(cx).is_ready()
        {
            let silent = line.heard.elapsed();
            if line.asked && silent >= 2 * SILENCE {
                self.line = None;
            } else if silent >= SILENCE && !line.asked {
                line.asked = true;
                line.owes_sign = true;
            }
            self.watch.as_mut().reset(Instant::now() + SILENCE);
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

    /// Reads although nobody wants it yet, until the other end has taken something.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replay.is_full() {
            ready!(self.poll_line(cx))?;
            let came = self.poll_in(cx);
            let Some(Came::Data(count)) = ready!(self.survive(came))? else {
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

impl OnLine {
    /// Begins the next frame; false where there is none.
    fn next(&mut self, replay: &mut Replay, taken: u64, peer: Peer) -> bool {
        if !self.greeted {
            return false;
        }
        let untold = taken - self.told;
        let has_data = !replay.has_sent_all();
        let is_last = peer == Peer::Ended;
        let mut tell = |count| {
            self.outbound
                .extend_from_slice(&Frame::Taken(count).header());
        };
        if untold >= TELL_EVERY || (untold > 0 && (has_data || self.owes_sign || is_last)) {
            tell(usize::try_from(untold).unwrap_or(usize::MAX));
            self.told = taken;
        }
        if self.owes_sign {
            tell(0);
            self.owes_sign = false;
        }
        if has_data {
            let length = replay.unsent().iter().map(|part| part.len()).sum();
            self.outgoing = length;
            self.outbound
                .extend_from_slice(&Frame::Data(length).header());
        } else if replay.is_end_next() {
            replay.end_sent();
            self.outbound.extend_from_slice(&Frame::End.header());
        }
        !self.outbound.is_empty()
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
            ready!(self.poll_line(cx))?;
            // Signs of life, and what was taken.
            let out = self.poll_out(cx);
            if let Poll::Ready(done) = self.survive(out)
                && done?.is_none()
            {
                continue;
            }
            let came = self.poll_in(cx);
            let Some(Came::Data(count)) = ready!(self.survive(came))? else {
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
