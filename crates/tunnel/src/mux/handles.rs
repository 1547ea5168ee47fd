//! What the handles of streams ask for.

use super::{
    Broken, MAX_OUT, MAX_STREAMS, Mux, OpenError,
    state::{Fin, Phase, Stream, wait},
};
use crate::frame::{Frame, MAX_WORDS};
use bytes::{Buf as _, Bytes};
use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{io::ReadBuf, time::Instant};

impl Mux {
    pub(crate) fn open(&mut self, words: Bytes) -> Result<u32, OpenError> {
        if let Some(why) = &self.ended {
            return Err(Broken::Tunnel(Arc::clone(why)).into());
        }
        if words.len() > MAX_WORDS {
            return Err(OpenError::TooLong(words.len()));
        }
        let id = self.last.checked_add(1);
        let Some(id) = id.filter(|_| self.streams.len() < MAX_STREAMS) else {
            return Err(OpenError::Full);
        };
        self.last = id;
        self.streams.insert(id, Stream::new(self.budget.clone()));
        self.opens.insert(id, words);
        self.wake_line();
        Ok(id)
    }

    pub(crate) fn poll_opened(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<(), OpenError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Peer.into()));
        };
        match &stream.phase {
            Phase::Opening => {
                wait(&mut stream.reader, cx.waker());
                Poll::Pending
            }
            Phase::Open => Poll::Ready(Ok(())),
            // Its reader has what was said before, and then the break.
            Phase::Broken(_) if stream.opened => Poll::Ready(Ok(())),
            Phase::Refused(words) => Poll::Ready(Err(OpenError::Refused(words.clone()))),
            Phase::Broken(why) => Poll::Ready(Err(why.clone().into())),
        }
    }

    /// A stream that the peer wants, and where it is to lead. `None` at the end of the tunnel.
    pub(crate) fn poll_incoming(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Bytes)>> {
        if let Some(next) = self.incoming.pop_front() {
            return Poll::Ready(Some(next));
        }
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        wait(&mut self.acceptor, cx.waker());
        Poll::Pending
    }

    pub(crate) fn accept(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.phase, Phase::Opening)
        {
            stream.phase = Phase::Open;
            self.say(id, Frame::Opened);
        }
    }

    pub(crate) fn refuse(&mut self, id: u32, mut words: Bytes) {
        words.truncate(MAX_WORDS);
        if self.streams.remove(&id).is_some() {
            self.say(id, Frame::Refused(words));
        }
    }

    /// Where the peer does not even read so much, it is no use going on.
    pub(super) fn say(&mut self, id: u32, frame: Frame) {
        if self.ended.is_none() && self.urgent(id, frame).is_err() {
            self.end("the other end does not read");
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        room: &mut ReadBuf<'_>,
        now: Instant,
    ) -> Poll<Result<(), Broken>> {
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Peer));
        };
        let mut read = 0;
        while room.remaining() > 0
            && let Some(front) = stream.inbox.front()
        {
            let count = front.len().min(room.remaining());
            room.put_slice(front.get(..count).unwrap_or_default());
            front.advance(count);
            read += count;
            if front.is_empty() {
                stream.inbox.pop();
            }
        }
        if read == 0 {
            return self.nothing_came(id, cx).map_ok(|_end| ());
        }
        self.was_read(id, read, now);
        Poll::Ready(Ok(()))
    }

    /// The first of what came. `None` at the end.
    pub(crate) fn poll_piece(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        now: Instant,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Peer));
        };
        let Some(piece) = stream.inbox.pop() else {
            return self.nothing_came(id, cx).map_ok(|_end| None);
        };
        self.was_read(id, piece.len(), now);
        Poll::Ready(Ok(Some(piece)))
    }

    /// Whether that is the end, or a break; or the reader waits.
    fn nothing_came(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Peer));
        };
        if stream.ended {
            return Poll::Ready(Ok(()));
        }
        if let Phase::Broken(why) = &stream.phase {
            return Poll::Ready(Err(why.clone()));
        }
        wait(&mut stream.reader, cx.waker());
        Poll::Pending
    }

    fn was_read(&mut self, id: u32, bytes: usize, now: Instant) {
        let trip = self.trip;
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(more) = stream.window.read(bytes, now, trip)
            && !stream.ended
        {
            self.say(id, Frame::Window(more));
        }
    }

    /// How much can be written, when anything can. Also who can write hears of a break.
    pub(crate) fn poll_room(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<usize, Broken>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Peer));
        };
        if let Phase::Broken(why) = &stream.phase {
            return Poll::Ready(Err(why.clone()));
        }
        wait(&mut stream.writer, cx.waker());
        match MAX_OUT.saturating_sub(stream.out.len()) {
            0 => Poll::Pending,
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Writes, without asking whether there is room.
    pub(crate) fn push(&mut self, id: u32, bytes: &[u8]) -> Result<(), Broken> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(Broken::Peer);
        };
        if let Phase::Broken(why) = &stream.phase {
            return Err(why.clone());
        }
        if stream.fin != Fin::Not {
            return Err(Broken::Shut);
        }
        stream.out.extend_from_slice(bytes);
        if stream.may_send() {
            self.fair.wants(id, &mut stream.turn);
            self.wake_line();
        }
        Ok(())
    }

    pub(crate) fn poll_write(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Broken>> {
        let room = ready!(self.poll_room(id, cx))?;
        let now = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        Poll::Ready(self.push(id, now).map(|()| now.len()))
    }

    /// What was written goes out, and then nothing more.
    pub(crate) fn shut(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.fin == Fin::Not
        {
            stream.fin = Fin::Wanted;
            if stream.may_send() {
                self.fair.wants(id, &mut stream.turn);
                self.wake_line();
            }
        }
    }

    /// The handle is gone.
    pub(crate) fn dropped(&mut self, id: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let says_reset = match (&stream.phase, stream.fin) {
            (Phase::Refused(_) | Phase::Broken(_), _) => false,
            // What was written before the end still goes out; see [`Mux::sweep`].
            (Phase::Open, Fin::Wanted) => {
                stream.dropped = Some(now);
                stream.inbox.clear();
                return;
            }
            (Phase::Open, Fin::Sent) => !stream.ended,
            (Phase::Open, Fin::Not) => true,
            // The other end knows of it only where it was told.
            (Phase::Opening, _) => self.opens.remove(&id).is_none(),
        };
        self.streams.remove(&id);
        if says_reset {
            self.say(id, Frame::Reset);
        }
    }
}
