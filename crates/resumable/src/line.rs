//! One line: its frames, half read and half written.

use crate::{MAX_DATA, TELL_EVERY, frame::Frame, replay::Replay};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Read at once, where much comes; and where nothing has come for a while.
const READ: usize = MAX_DATA + 4 * 1024;
const SMALL: usize = 8 * 1024;

/// A connection between two endpoints.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// How far the other end's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Open,
    /// It was read, and perhaps not all that is before it taken.
    Ending,
    /// The reader has it.
    Ended,
}

/// A line, as far as it is.
pub(crate) struct OnLine {
    pub(crate) stream: Box<dyn Line>,
    /// What was read and not looked at lies from `at` to `end`.
    inbound: Vec<u8>,
    /// For the next read: whoever says much gets more.
    room: usize,
    pub(crate) at: usize,
    end: usize,
    /// The other end's hello was read: what it has not taken can be sent.
    pub(crate) greeted: bool,
    /// Of the data frame that is being read.
    pub(crate) incoming: usize,
    /// Headers, and where they go on.
    pub(crate) outbound: Vec<u8>,
    /// Of the data frame that is being written, after `outbound`.
    pub(crate) outgoing: usize,
    /// What the other end knows of what was taken.
    pub(crate) told: u64,
    pub(crate) owes_sign: bool,
    pub(crate) heard: Instant,
    pub(crate) asked: bool,
}

/// What came next on a line.
pub(crate) enum Came {
    /// A piece of this length lies in `inbound`.
    Data(usize),
    Other,
}

impl OnLine {
    pub(crate) fn new(stream: Box<dyn Line>, taken: u64) -> Self {
        Self {
            stream,
            inbound: Vec::new(),
            room: SMALL,
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

    pub(crate) fn unread(&self) -> &[u8] {
        self.inbound.get(self.at..self.end).unwrap_or_default()
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.unread().first_chunk::<N>()?;
        self.at += N;
        Some(taken)
    }

    /// Reads more. An end without a last frame is a cut.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A part of a header at most.
        self.inbound.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.inbound.len() < self.room {
            self.inbound.resize(self.room, 0);
        }
        let mut room = ReadBuf::new(self.inbound.get_mut(self.end..).unwrap_or_default());
        let size = room.capacity();
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        let count = room.filled().len();
        if read.is_pending() && self.end == 0 {
            // Most lines wait most of the time.
            self.inbound = Vec::new();
            self.room = SMALL;
        }
        ready!(read)?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if count == size {
            self.room = READ;
        }
        self.end += count;
        self.heard = Instant::now();
        self.asked = false;
        Poll::Ready(Ok(()))
    }
}

impl OnLine {
    /// Begins the next frame; false where there is none.
    pub(crate) fn next(&mut self, replay: &mut Replay, taken: u64, peer: Peer) -> bool {
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
