//! What one stream of a tunnel has, and what it waits for.

use crate::{
    Broken, Budget,
    fair::Turn,
    window::{FIRST_WINDOW, Window},
};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, task::Waker};
use tokio::time::Instant;

/// A piece that is shorter is copied: it would keep the whole message that it came in, and many of them many.
const OWN_BELOW: usize = 8 * 1024;
/// Kept for what is written next.
const KEPT: usize = 8 * 1024;

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Opening,
    Open,
    Refused(Bytes),
    Broken(Broken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Not,
    Wanted,
    Sent,
}

/// What came and was not read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    /// Behind them: small pieces, one after the other.
    tail: BytesMut,
}

impl Inbox {
    pub(super) fn put(&mut self, bytes: Bytes) {
        if bytes.len() < OWN_BELOW {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.close_tail();
            self.pieces.push_back(bytes);
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// The first of what is here; whatever is not taken of it stays the first.
    pub(super) fn front(&mut self) -> Option<&mut Bytes> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        self.pieces.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        self.pieces.pop_front()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    pub(super) out: BytesMut,
    /// What the other end has room for.
    pub(super) credit: u32,
    pub(super) fin: Fin,
    pub(super) turn: Turn,
    pub(super) inbox: Inbox,
    pub(super) window: Window,
    /// OPENED came, whatever came since.
    pub(super) opened: bool,
    /// FIN came.
    pub(super) ended: bool,
    /// Since when nobody has the handle any more.
    pub(super) dropped: Option<Instant>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Stream {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            phase: Phase::Opening,
            out: BytesMut::new(),
            credit: FIRST_WINDOW,
            fin: Fin::Not,
            turn: Turn::default(),
            inbox: Inbox::default(),
            window: Window::new(budget),
            opened: false,
            ended: false,
            dropped: None,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn may_send(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && ((!self.out.is_empty() && self.credit > 0)
                || (self.out.is_empty() && self.fin == Fin::Wanted))
    }

    /// Most streams are idle most of the time: what was needed for bulk is not kept.
    pub(super) fn let_go(&mut self) {
        if self.out.is_empty() && self.out.capacity() > KEPT {
            self.out = BytesMut::new();
        }
    }
}

/// Where the same task waits again, nothing is made anew.
pub(super) fn wait(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_do_not_keep_the_message_that_they_came_in() {
        let message = Bytes::from(vec![7; 128 * 1024]);
        let mut inbox = Inbox::default();
        for _ in 0..100 {
            inbox.put(message.slice(..10));
        }
        inbox.put(message.slice(..OWN_BELOW));
        inbox.put(message.slice(..1));
        let shares = |bytes: &Bytes| message.as_ptr_range().contains(&bytes.as_ptr());
        let pieces: Vec<_> = std::iter::from_fn(|| inbox.pop()).collect();
        let found: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.len(), shares(piece)))
            .collect();
        assert_eq!(found, [(1000, false), (OWN_BELOW, true), (1, false)]);
    }
}
