//! The streams of one tunnel, without a line: what goes onto it and what comes from it are batches.
//!
//! ```text
//! Opening --OPENED--> Open --FIN sent and come, or RESET, and the handle dropped--> gone
//!    \------REFUSED--> Refused -----------------------------------------------------/
//! ```
//! A handle that is dropped before it was shut down sends RESET: the other end sees a break, and not an end. One that was shut down has [`LINGER`]
//! for what it has written.

mod handles;
mod state;

use crate::{
    Budget,
    fair::{Fair, Used},
    frame::{self, BATCH_HEAD, FRAME_HEAD, Frame, Head, MAX_DATA, MAX_WORDS, Violation},
    replay::Replay,
};
use bytes::{Buf as _, Bytes, BytesMut};
use state::{Fin, Phase, Stream, wait};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// Of one tunnel, in both directions.
pub const MAX_STREAMS: usize = 4096;
/// Of a stream, not yet on the line.
const MAX_OUT: usize = 64 * 1024;
/// Of a batch that has data: what a small message may have to wait for.
const BATCH: usize = 32 * 1024;
/// Frames without data that wait. What the streams that there are make of them is less; somebody who makes more does not read.
const MAX_URGENT: usize = 4 * MAX_STREAMS;
/// A batch that is shorter is copied: its buffer is used again, and what is held of it is what it says.
const OWN_BELOW: usize = BATCH / 2;
/// For what was written to a stream that nobody has the handle of any more.
pub(crate) const LINGER: Duration = Duration::from_secs(30);
/// Without anything to send, what came is acknowledged after so many bytes.
const ACK_BYTES: usize = 48 * 1024;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Streams are opened here.
    Opens,
    /// Streams are accepted or refused here.
    Accepts,
}

/// Why a stream does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the other end broke off")]
    Peer,
    #[error("the tunnel ended: {0}")]
    Tunnel(Arc<str>),
    #[error("nothing is written after the end")]
    Shut,
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// With the other end's words.
    #[error("the other end refused the stream")]
    Refused(Bytes),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the tunnel has {MAX_STREAMS} streams already")]
    Full,
    #[error("{0} bytes are too many to say where it leads")]
    TooLong(usize),
}

/// What a message had in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Something,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Mux {
    role: Role,
    budget: Budget,
    streams: HashMap<u32, Stream>,
    /// Number of the last stream that was opened.
    last: u32,
    fair: Fair,
    /// Streams that the peer was not told of yet, and where they are to lead.
    opens: BTreeMap<u32, Bytes>,
    /// Other frames without data, which come first.
    urgent: VecDeque<(u32, Frame)>,
    /// In which batches are made.
    scratch: BytesMut,
    replay: Replay,
    /// Numbered batches that came, and what of them the peer was told.
    received: u64,
    told: u64,
    untold_bytes: usize,
    ack_now: bool,
    /// Opened by the peer, and taken by nobody yet.
    incoming: VecDeque<(u32, Bytes)>,
    acceptor: Option<Waker>,
    line: Option<Waker>,
    /// Number of the line that it is on; an earlier one moves nothing any more.
    line_number: u64,
    trip: Option<Duration>,
    ended: Option<Arc<str>>,
}

impl Mux {
    pub(crate) fn new(role: Role, budget: Budget) -> Self {
        Self {
            role,
            replay: Replay::new(budget.clone()),
            budget,
            streams: HashMap::new(),
            last: 0,
            fair: Fair::default(),
            opens: BTreeMap::new(),
            urgent: VecDeque::new(),
            scratch: BytesMut::new(),
            received: 0,
            told: 0,
            untold_bytes: 0,
            ack_now: false,
            incoming: VecDeque::new(),
            acceptor: None,
            line: None,
            line_number: 0,
            trip: None,
            ended: None,
        }
    }

    /// Another line is to come: its number, and how many numbered batches came, for the other end to go on behind. Nothing more comes by the
    /// line of before.
    pub(crate) fn begin(&mut self) -> (u64, u64) {
        self.line_number += 1;
        self.wake_line();
        (self.line_number, self.received)
    }

    pub(crate) const fn is_on(&self, line: u64) -> bool {
        self.line_number == line
    }

    pub(crate) fn measured(&mut self, trip: Duration, now: Instant) {
        self.trip = Some(trip);
        self.replay.trip(trip, now);
    }

    pub(crate) const fn trip(&self) -> Option<Duration> {
        self.trip
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The line is there, and its other end has so many numbered batches.
    pub(crate) fn resume(&mut self, received: u64, now: Instant) -> Result<(), Violation> {
        self.replay.resume(received, now)
    }

    /// There will be no other line.
    pub(crate) fn end(&mut self, why: &str) {
        if self.ended.is_some() {
            return;
        }
        let why: Arc<str> = why.into();
        self.ended = Some(Arc::clone(&why));
        self.streams.retain(|_, stream| {
            stream.phase = Phase::Broken(Broken::Tunnel(Arc::clone(&why)));
            stream.wake();
            stream.dropped.is_none()
        });
        self.opens.clear();
        self.urgent.clear();
        self.incoming.clear();
        for waker in [self.acceptor.take(), self.line.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn why_ended(&self) -> Option<Arc<str>> {
        self.ended.clone()
    }

    /// Breaks off what nobody has the handle of, and whose last words the peer has not taken in time.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let over = |stream: &Stream| stream.dropped.is_some_and(|since| now - since >= LINGER);
        let ids: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| over(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.streams.remove(&id);
            self.say(id, Frame::Reset);
        }
    }

    /// Takes a message of the line.
    pub(crate) fn take(&mut self, mut batch: Bytes, now: Instant) -> Result<Taken, Violation> {
        let length = batch.len();
        let head = frame::take_head(&mut batch)?;
        let is_news = self.replay.ack(head.ack, now)?;
        if is_news {
            // There may be room again.
            self.wake_line();
        }
        if !head.numbered {
            return match (batch.is_empty(), is_news) {
                (false, _) => Err(Violation::Unnumbered),
                (true, true) => Ok(Taken::Something),
                (true, false) => Ok(Taken::Nothing),
            };
        }
        if batch.is_empty() {
            return Err(Violation::Empty);
        }
        self.received += 1;
        self.untold_bytes += length;
        while let Some((id, frame)) = frame::take(&mut batch)? {
            self.frame(id, frame)?;
        }
        Ok(Taken::Something)
    }

    fn frame(&mut self, id: u32, frame: Frame) -> Result<(), Violation> {
        if let Frame::Open(words) = frame {
            return self.opened_by_peer(id, &words);
        }
        let is_ours = self.role == Role::Opens;
        if matches!(frame, Frame::Opened | Frame::Refused(_)) && !is_ours {
            return Err(Violation::Role);
        }
        if id > self.last {
            return Err(Violation::Number);
        }
        // It may be gone here, and the other end not know that yet.
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        match frame {
            Frame::Open(_) => {}
            Frame::Opened => {
                if matches!(stream.phase, Phase::Opening) {
                    stream.phase = Phase::Open;
                    stream.opened = true;
                    stream.wake();
                }
            }
            Frame::Refused(words) => {
                if !matches!(stream.phase, Phase::Opening) {
                    return Err(Violation::Role);
                }
                stream.phase = Phase::Refused(Bytes::copy_from_slice(&words));
                stream.wake();
            }
            Frame::Data(bytes) => {
                if stream.ended {
                    return Err(Violation::AfterEnd);
                }
                if !stream.window.came(bytes.len()) {
                    return Err(Violation::Window);
                }
                // Whom nobody reads is given no more room.
                if stream.dropped.is_none() && !bytes.is_empty() {
                    stream.inbox.put(bytes);
                    stream.wake_reader();
                }
            }
            Frame::Window(more) => {
                stream.credit = stream.credit.checked_add(more).ok_or(Violation::Window)?;
                if stream.may_send() {
                    self.fair.wants(id, &mut stream.turn);
                }
            }
            Frame::Fin => {
                stream.ended = true;
                stream.wake_reader();
            }
            Frame::Reset => {
                stream.phase = Phase::Broken(Broken::Peer);
                stream.out.clear();
                stream.wake();
                if stream.dropped.is_some() {
                    self.streams.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn opened_by_peer(&mut self, id: u32, words: &Bytes) -> Result<(), Violation> {
        if self.role != Role::Accepts {
            return Err(Violation::Role);
        }
        if id <= self.last {
            return Err(Violation::Number);
        }
        self.last = id;
        if self.streams.len() >= MAX_STREAMS || words.len() > MAX_WORDS {
            return self.urgent(id, Frame::Refused(Bytes::new()));
        }
        self.streams.insert(id, Stream::new(self.budget.clone()));
        // Not the message that they came in.
        self.incoming.push_back((id, Bytes::copy_from_slice(words)));
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
        Ok(())
    }

    fn urgent(&mut self, id: u32, frame: Frame) -> Result<(), Violation> {
        if self.urgent.len() >= MAX_URGENT {
            return Err(Violation::Flood);
        }
        self.urgent.push_back((id, frame));
        self.wake_line();
        Ok(())
    }

    fn wake_line(&mut self) {
        if let Some(waker) = self.line.take() {
            waker.wake();
        }
    }

    pub(crate) const fn owes_ack(&self) -> bool {
        self.told < self.received
    }

    /// What came is to be acknowledged, also where there is nothing to say.
    pub(crate) fn acknowledge(&mut self) {
        if self.owes_ack() {
            self.ack_now = true;
            self.wake_line();
        }
    }

    /// The next message for the line.
    pub(crate) fn poll_batch(&mut self, cx: &Context<'_>, now: Instant) -> Poll<Bytes> {
        if self.ended.is_none() {
            if self.replay.may_send(now) {
                if let Some(batch) = self.replay.again(now) {
                    return Poll::Ready(batch);
                }
                if self.replay.has_room()
                    && let Some(batch) = self.gather()
                {
                    self.replay.push(batch.clone(), now);
                    return Poll::Ready(batch);
                }
            }
            if self.ack_now || self.untold_bytes >= ACK_BYTES {
                return Poll::Ready(Bytes::copy_from_slice(&self.head(false)));
            }
        }
        wait(&mut self.line, cx.waker());
        Poll::Pending
    }

    /// Of a batch that is sent: what came is acknowledged with it.
    fn head(&mut self, numbered: bool) -> [u8; BATCH_HEAD] {
        self.told = self.received;
        self.untold_bytes = 0;
        self.ack_now = false;
        frame::head(Head {
            numbered,
            ack: self.received,
        })
    }

    /// A batch of what waits. `None` where nothing does.
    fn gather(&mut self) -> Option<Bytes> {
        if self.urgent.is_empty() && self.opens.is_empty() && self.fair.next().is_none() {
            return None;
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.reserve(BATCH + MAX_DATA);
        out.extend_from_slice(&[0; BATCH_HEAD]);
        while out.len() < BATCH
            && let Some((id, frame)) = self.urgent.pop_front()
        {
            frame::put(&mut out, &frame, id);
        }
        while out.len() < BATCH
            && let Some((id, words)) = self.opens.pop_first()
        {
            frame::put(&mut out, &Frame::Open(words), id);
        }
        while out.len() < BATCH
            && let Some(id) = self.fair.next()
        {
            self.turn(id, &mut out);
        }
        if out.len() == BATCH_HEAD {
            // Turns of streams that are gone.
            out.clear();
            self.scratch = out;
            return None;
        }
        let head = self.head(true);
        if let Some(place) = out.get_mut(..BATCH_HEAD) {
            place.copy_from_slice(&head);
        }
        if out.len() >= OWN_BELOW {
            return Some(out.freeze());
        }
        let batch = Bytes::copy_from_slice(&out);
        out.clear();
        self.scratch = out;
        Some(batch)
    }

    /// What the stream whose turn it is has to say.
    fn turn(&mut self, id: u32, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.fair.used(None, Used::Gone);
        };
        let most = MAX_DATA.min(usize::try_from(stream.credit).unwrap_or(usize::MAX));
        let now = stream.out.len().min(most);
        if now > 0 && matches!(stream.phase, Phase::Open) {
            frame::put_data(out, id, stream.out.get(..now).unwrap_or_default());
            stream.out.advance(now);
            stream.credit -= u32::try_from(now).unwrap_or(u32::MAX);
            stream.wake_writer();
        }
        if stream.may_send() && !stream.out.is_empty() {
            let used = Used::More(now + FRAME_HEAD);
            return self.fair.used(Some(&mut stream.turn), used);
        }
        let used = if stream.out.is_empty() {
            Used::All(now + FRAME_HEAD)
        } else {
            Used::Stopped(now + FRAME_HEAD)
        };
        self.fair.used(Some(&mut stream.turn), used);
        stream.let_go();
        if !stream.may_send() {
            return;
        }
        stream.fin = Fin::Sent;
        frame::put(out, &Frame::Fin, id);
        if stream.dropped.is_some() {
            if !stream.ended {
                frame::put(out, &Frame::Reset, id);
            }
            self.streams.remove(&id);
        }
    }
}
