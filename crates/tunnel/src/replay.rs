//! What was sent and is not known to have come: it is sent again on the next line.

use crate::{
    Budget,
    frame::Violation,
    pace::{Pace, Sent},
};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Held without asking anybody, and taken of the budget at a time.
const STEP: usize = 512 * 1024;
/// Of one tunnel: what is under way on a line of a gigabit a second with 120 ms.
const MAX: usize = 16 * 1024 * 1024;

/// Of a batch, beside its bytes: there may be many small ones.
const OVERHEAD: usize = 128;

fn size(batch: &Bytes) -> usize {
    batch.len() + OVERHEAD
}

#[derive(Debug)]
struct Held {
    batch: Bytes,
    /// Onto the present line; `None` where it was on an earlier one only.
    sent: Option<Sent>,
}

#[derive(Debug)]
pub(crate) struct Replay {
    budget: Budget,
    allowed: usize,
    held: VecDeque<Held>,
    bytes: usize,
    /// Batches that the peer has.
    acked: u64,
    /// Of those held, how many were given to the present line, and their bytes.
    on_line: usize,
    under_way: usize,
    pace: Pace,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Replay {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            allowed: STEP,
            held: VecDeque::new(),
            bytes: 0,
            acked: 0,
            on_line: 0,
            under_way: 0,
            pace: Pace::default(),
        }
    }

    /// Whether the line may have another batch, a new one or one of before.
    pub(crate) fn may_send(&mut self, now: Instant) -> bool {
        self.under_way < self.pace.most(now)
    }

    /// Whether another batch may be made.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.bytes < self.allowed {
            return true;
        }
        if self.allowed < MAX && self.budget.take(STEP as u32) {
            self.allowed += STEP;
        }
        self.bytes < self.allowed
    }

    /// A batch that goes onto the line now.
    pub(crate) fn push(&mut self, batch: Bytes, now: Instant) {
        let bytes = size(&batch);
        self.bytes += bytes;
        self.under_way += bytes;
        self.held.push_back(Held {
            batch,
            sent: Some(self.pace.sent(now)),
        });
        self.on_line = self.held.len();
    }

    /// One that was on an earlier line and has to go onto this.
    pub(crate) fn again(&mut self, now: Instant) -> Option<Bytes> {
        let sent = self.pace.sent(now);
        let held = self.held.get_mut(self.on_line)?;
        held.sent = Some(sent);
        self.on_line += 1;
        self.under_way += size(&held.batch);
        Some(held.batch.clone())
    }

    /// A trip over the present line was measured.
    pub(crate) fn trip(&mut self, took: Duration, now: Instant) {
        self.pace.trip(took, now);
    }

    /// The peer has so many. What it said before may come again: whether this is news.
    pub(crate) fn ack(&mut self, acked: u64, now: Instant) -> Result<bool, Violation> {
        let Some(more) = acked.checked_sub(self.acked) else {
            return Ok(false);
        };
        let (mut bytes, mut last) = (0, None);
        for _ in 0..more {
            let held = self.held.pop_front().ok_or(Violation::Ack)?;
            let one = size(&held.batch);
            self.bytes -= one;
            if self.on_line > 0 {
                self.on_line -= 1;
                self.under_way -= one;
            }
            bytes += one;
            last = held.sent;
            self.acked += 1;
        }
        if let Some(last) = last {
            self.pace.acked(bytes, last, now);
        }
        if self.held.is_empty() {
            self.give_back();
        }
        Ok(more > 0)
    }

    /// Another line begins; the peer has so many.
    pub(crate) fn resume(&mut self, acked: u64, now: Instant) -> Result<(), Violation> {
        if acked < self.acked {
            return Err(Violation::Ack);
        }
        self.ack(acked, now)?;
        for held in &mut self.held {
            held.sent = None;
        }
        (self.on_line, self.under_way) = (0, 0);
        self.pace = Pace::default();
        Ok(())
    }

    fn give_back(&mut self) {
        while self.allowed > STEP {
            self.allowed -= STEP;
            self.budget.give(STEP as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u8, size: usize) -> Bytes {
        Bytes::from(vec![number; size])
    }

    #[test]
    fn what_the_peer_does_not_have_goes_onto_the_next_line_in_order() {
        let mut replay = Replay::new(Budget::new(0));
        for number in 1..=4 {
            replay.push(batch(number, 1), Instant::now());
        }
        assert_eq!(replay.again(Instant::now()), None);
        replay.ack(1, Instant::now()).unwrap();
        replay.resume(2, Instant::now()).unwrap();
        assert_eq!(replay.again(Instant::now()), Some(batch(3, 1)));
        // Cut again, before the fourth was sent.
        replay.resume(2, Instant::now()).unwrap();
        assert_eq!(replay.again(Instant::now()), Some(batch(3, 1)));
        assert_eq!(replay.again(Instant::now()), Some(batch(4, 1)));
        assert_eq!(replay.again(Instant::now()), None);
        // What was on its way comes late.
        replay.ack(1, Instant::now()).unwrap();
        replay.ack(4, Instant::now()).unwrap();
        assert_eq!(replay.ack(5, Instant::now()), Err(Violation::Ack));
    }

    #[test]
    fn a_peer_that_forgot_what_it_had_is_no_peer_to_go_on_with() {
        let mut replay = Replay::new(Budget::new(0));
        replay.push(batch(1, 1), Instant::now());
        replay.ack(1, Instant::now()).unwrap();
        assert_eq!(replay.resume(0, Instant::now()), Err(Violation::Ack));
    }

    #[test]
    fn what_is_held_is_bounded_by_what_all_tunnels_may_hold() {
        let budget = Budget::new(2 * STEP as u64);
        let fill = |replay: &mut Replay| {
            let mut count = 0;
            while replay.has_room() {
                replay.push(batch(0, STEP / 4 - OVERHEAD), Instant::now());
                count += 1;
            }
            count
        };
        let mut one = Replay::new(budget.clone());
        let mut other = Replay::new(budget.clone());
        assert_eq!((fill(&mut one), fill(&mut other)), (12, 4));
        one.ack(12, Instant::now()).unwrap();
        assert_eq!(fill(&mut other), 8, "the other has the room that is free");
        drop(other);
        assert_eq!(fill(&mut one), 12);
    }
}
