//! What was written and is not acknowledged.

use crate::{MAX_DATA, WINDOW};
use std::{collections::VecDeque, io::IoSlice};

/// Memory of an empty one that was larger is given back.
const KEPT: usize = 64 * 1024;

/// Invariant: `acknowledged <= sent <= acknowledged + bytes.len()`. The end counts as one more byte, behind the last.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// From `acknowledged` on.
    bytes: VecDeque<u8>,
    acknowledged: u64,
    /// Put on the line that is in use.
    sent: u64,
    /// Put on any line so far, the end with it.
    ever_sent: u64,
    end: End,
}

/// How far the stream's end is. Each includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    #[default]
    Open,
    Written,
    Sent,
    Acknowledged,
}

/// The other end has taken what was never sent, or takes back what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end has taken {taken} bytes, of which {acknowledged} to {written} are possible")]
pub(crate) struct Impossible {
    taken: u64,
    acknowledged: u64,
    written: u64,
}

impl Replay {
    fn written(&self) -> u64 {
        self.acknowledged + self.bytes.len() as u64
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= WINDOW
    }

    /// Takes as much as there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = WINDOW - self.bytes.len().min(WINDOW);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend(taken);
        taken.len()
    }

    /// Of what is not on the line yet, in the order in which it goes there, as much as one frame holds.
    pub(crate) fn unsent(&self) -> [IoSlice<'_>; 2] {
        let from = usize::try_from(self.sent - self.acknowledged).unwrap_or(usize::MAX);
        let (front, back) = self.bytes.as_slices();
        let first = front.get(from..).unwrap_or_default();
        let second = back
            .get(from.saturating_sub(front.len())..)
            .unwrap_or_default();
        let first = first.get(..MAX_DATA).unwrap_or(first);
        let rest = MAX_DATA - first.len();
        [
            IoSlice::new(first),
            IoSlice::new(second.get(..rest).unwrap_or(second)),
        ]
    }

    pub(crate) fn unsent_len(&self) -> usize {
        usize::try_from(self.written() - self.sent).unwrap_or(usize::MAX)
    }

    /// Nothing more is written.
    pub(crate) fn end(&mut self) {
        self.end = self.end.max(End::Written);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.end > End::Open
    }

    /// Whether the end is what goes on the line next.
    pub(crate) fn is_end_next(&self) -> bool {
        self.end == End::Written && self.has_sent_all()
    }

    pub(crate) fn end_sent(&mut self) {
        self.end = self.end.max(End::Sent);
        self.ever_sent = self.written() + 1;
    }

    /// The other end has all, and knows that it is all.
    pub(crate) fn is_done(&self) -> bool {
        self.end == End::Acknowledged
    }

    pub(crate) fn has_sent_all(&self) -> bool {
        self.sent == self.written()
    }

    pub(crate) fn sent(&mut self, count: usize) {
        self.sent = (self.sent + count as u64).min(self.written());
        self.ever_sent = self.ever_sent.max(self.sent);
    }

    /// So much more.
    pub(crate) fn acknowledged(&mut self, count: usize) -> Result<(), Impossible> {
        let taken = self.taken_so_far() + count as u64;
        let most = self.sent + u64::from(self.end >= End::Sent);
        self.taken(taken, most)
    }

    /// On a new line, whose other end has taken so much so far.
    pub(crate) fn resume(&mut self, taken: u64) -> Result<(), Impossible> {
        self.taken(taken, self.ever_sent)?;
        self.sent = self.acknowledged;
        if self.end == End::Sent {
            self.end = End::Written;
        }
        Ok(())
    }

    fn taken_so_far(&self) -> u64 {
        self.acknowledged + u64::from(self.end == End::Acknowledged)
    }

    fn taken(&mut self, taken: u64, most: u64) -> Result<(), Impossible> {
        if taken < self.taken_so_far() || taken > most {
            return Err(Impossible {
                taken,
                acknowledged: self.taken_so_far(),
                written: most,
            });
        }
        if taken > self.written() {
            self.end = End::Acknowledged;
        }
        let taken = taken.min(self.written());
        let count = usize::try_from(taken - self.acknowledged).unwrap_or(usize::MAX);
        self.bytes.drain(..count);
        self.acknowledged = taken;
        self.sent = self.sent.max(taken);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = VecDeque::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsent(replay: &Replay) -> Vec<u8> {
        replay
            .unsent()
            .iter()
            .flat_map(|part| part.to_vec())
            .collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_on_the_next_line() {
        let mut replay = Replay::default();
        assert_eq!(replay.write(b"abcdef"), 6);
        assert_eq!(unsent(&replay), b"abcdef");
        replay.sent(4);
        assert_eq!(unsent(&replay), b"ef");
        replay.acknowledged(3).unwrap();
        assert_eq!(unsent(&replay), b"ef");
        replay.resume(3).unwrap();
        assert_eq!(unsent(&replay), b"def");
        // An acknowledgement was lost with the line.
        replay.sent(3);
        replay.resume(5).unwrap();
        assert_eq!(unsent(&replay), b"f");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut replay = Replay::default();
        replay.write(b"abcdef");
        replay.sent(4);
        replay.acknowledged(5).unwrap_err();
        replay.acknowledged(4).unwrap();
        replay.resume(3).unwrap_err();
        replay.resume(7).unwrap_err();
        replay.resume(5).unwrap_err();
        replay.resume(4).unwrap();
        assert_eq!(unsent(&replay), b"ef");
    }

    #[test]
    fn the_end_is_one_more_byte_and_is_said_until_it_is_acknowledged() {
        let mut replay = Replay::default();
        replay.write(b"ab");
        replay.end();
        assert!(!replay.is_end_next(), "bytes come first");
        replay.sent(2);
        assert!(replay.is_end_next());
        replay.acknowledged(3).unwrap_err();
        replay.end_sent();
        assert!(!replay.is_end_next());
        replay.acknowledged(2).unwrap();
        replay.resume(2).unwrap();
        assert!(replay.is_end_next() && !replay.is_done());
        replay.resume(3).unwrap();
        assert!(!replay.is_end_next() && replay.is_done());
        replay.resume(2).unwrap_err();
        replay.acknowledged(1).unwrap_err();
    }

    #[test]
    fn no_more_than_a_window_is_kept_and_no_more_than_a_frame_is_sent_at_once() {
        let mut replay = Replay::default();
        let much = vec![7; WINDOW + 1];
        assert_eq!(replay.write(&much), WINDOW);
        assert!(replay.is_full());
        assert_eq!(replay.write(b"x"), 0);
        assert_eq!(unsent(&replay).len(), MAX_DATA);
        replay.sent(MAX_DATA);
        replay.acknowledged(MAX_DATA).unwrap();
        assert_eq!(replay.write(&much), MAX_DATA);
        // Around the end of the ring.
        assert_eq!(unsent(&replay).len(), MAX_DATA);
    }
}
