//! What waits to be sent and to be acknowledged.
//!
//! Two queues without numbers (control, bulk) and one with (in flight). A body gets its number when it is first sent, control first; after
//! a cut the numbered ones are sent again, in order, above what the peer has taken.

use crate::limits::{
    BULK_BYTES, BULK_FRAMES, CONTROL_BYTES, CONTROL_FRAMES, CONTROL_RESERVE, WINDOW_BYTES,
    WINDOW_FRAMES,
};
use std::collections::VecDeque;

/// Which queue a body waits in. Order is kept within a class only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Control,
    Bulk,
}

/// Why a body was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    #[error("{frames} messages with {bytes} bytes wait already")]
    Full {
        class: Class,
        frames: usize,
        bytes: usize,
    },
    #[error("the message has {length} bytes, more than {limit}")]
    TooLarge { length: usize, limit: usize },
    #[error("the message has no JSON form: {reason}")]
    Encoding { reason: String },
    #[error("the link is closed")]
    Closed,
}

/// The peer acknowledged what was never sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ack} is acknowledged, but only {sent} were sent")]
pub struct AckBeyond {
    pub ack: u64,
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bodies: VecDeque<Box<str>>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, body: Box<str>) {
        self.bytes = self.bytes.saturating_add(body.len());
        self.bodies.push_back(body);
    }

    fn pop(&mut self) -> Option<Box<str>> {
        let body = self.bodies.pop_front()?;
        self.bytes = self.bytes.saturating_sub(body.len());
        Some(body)
    }
}

#[derive(Debug)]
pub struct Outbox {
    /// Number of the last numbered body.
    numbered: u64,
    /// Ascending, without a gap, the last is `numbered`.
    in_flight: VecDeque<Box<str>>,
    in_flight_bytes: usize,
    /// How many of `in_flight` were sent on this connection.
    sent: usize,
    control: Queue,
    bulk: Queue,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    #[must_use]
    pub const fn new() -> Self {
        const fn queue() -> Queue {
            Queue {
                bodies: VecDeque::new(),
                bytes: 0,
            }
        }
        Self {
            numbered: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            sent: 0,
            control: queue(),
            bulk: queue(),
        }
    }

    /// # Errors
    /// Refuses what does not fit beside what waits.
    pub fn push(&mut self, body: Box<str>, class: Class) -> Result<(), SendRefused> {
        let (queue, frames, bytes) = match class {
            Class::Control => (&mut self.control, CONTROL_FRAMES, CONTROL_BYTES),
            Class::Bulk => (&mut self.bulk, BULK_FRAMES, BULK_BYTES),
        };
        if queue.bodies.len() >= frames || queue.bytes.saturating_add(body.len()) > bytes {
            return Err(SendRefused::Full {
                class,
                frames: queue.bodies.len(),
                bytes: queue.bytes,
            });
        }
        queue.push(body);
        Ok(())
    }

    /// Whether a body of the largest size would be taken.
    #[must_use]
    pub fn has_room(&self, class: Class, largest: usize) -> bool {
        let (queue, frames, bytes) = match class {
            Class::Control => (&self.control, CONTROL_FRAMES, CONTROL_BYTES),
            Class::Bulk => (&self.bulk, BULK_FRAMES, BULK_BYTES),
        };
        queue.bodies.len() < frames && queue.bytes.saturating_add(largest) <= bytes
    }

    /// The next body to send on this connection, with its number.
    pub fn next_to_send(&mut self) -> Option<(u64, &str)> {
        if self.sent >= self.in_flight.len() {
            let body = self.take_waiting()?;
            self.numbered = self.numbered.saturating_add(1);
            self.in_flight_bytes = self.in_flight_bytes.saturating_add(body.len());
            self.in_flight.push_back(body);
        }
        let seq = self
            .acked()
            .saturating_add(self.sent as u64)
            .saturating_add(1);
        let body = self.in_flight.get(self.sent)?;
        self.sent += 1;
        Some((seq, body))
    }

    fn take_waiting(&mut self) -> Option<Box<str>> {
        if let Some(next) = self.control.bodies.front() {
            // What does not fit waits in front: bulk does not get past it.
            return if self.fits(next.len(), WINDOW_FRAMES) {
                self.control.pop()
            } else {
                None
            };
        }
        let next = self.bulk.bodies.front()?;
        if self.fits(next.len(), WINDOW_FRAMES - CONTROL_RESERVE) {
            self.bulk.pop()
        } else {
            None
        }
    }

    fn fits(&self, length: usize, frames: usize) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < frames
                && self.in_flight_bytes.saturating_add(length) <= WINDOW_BYTES)
    }

    /// Everything up to `ack` is consumed by the peer. An older acknowledgement changes nothing.
    ///
    /// # Errors
    /// Refuses the acknowledgement of what was not sent.
    pub fn acknowledge(&mut self, ack: u64) -> Result<(), AckBeyond> {
        if ack > self.numbered {
            return Err(AckBeyond {
                ack,
                sent: self.numbered,
            });
        }
        while self.acked() < ack {
            let Some(body) = self.in_flight.pop_front() else {
                break;
            };
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(body.len());
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(())
    }

    /// A connection begins: the peer has `received`, all above is sent again.
    ///
    /// # Errors
    /// As [`Outbox::acknowledge`].
    pub fn resume(&mut self, received: u64) -> Result<(), AckBeyond> {
        self.sent = 0;
        self.acknowledge(received)
    }

    /// Highest number the peer has acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.numbered.saturating_sub(self.in_flight.len() as u64)
    }

    /// Highest number that was given.
    #[must_use]
    pub const fn numbered(&self) -> u64 {
        self.numbered
    }

    /// Bodies that wait or are not acknowledged: (control, bulk, in flight).
    #[must_use]
    pub fn depth(&self) -> (usize, usize, usize) {
        (
            self.control.bodies.len(),
            self.bulk.bodies.len(),
            self.in_flight.len(),
        )
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.depth() == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Box<str> {
        text.into()
    }

    fn drain(outbox: &mut Outbox) -> Vec<(u64, String)> {
        std::iter::from_fn(|| {
            outbox
                .next_to_send()
                .map(|(seq, body)| (seq, body.to_owned()))
        })
        .collect()
    }

    #[test]
    fn control_goes_in_front_of_bulk_that_waits() {
        let mut outbox = Outbox::new();
        for n in 0..3 {
            outbox
                .push(body(&format!("bulk {n}")), Class::Bulk)
                .expect("room");
        }
        assert_eq!(outbox.next_to_send(), Some((1, "bulk 0")));
        outbox.push(body("control"), Class::Control).expect("room");
        assert_eq!(outbox.next_to_send(), Some((2, "control")));
        assert_eq!(outbox.next_to_send(), Some((3, "bulk 1")));
    }

    #[test]
    fn after_a_cut_what_is_unacknowledged_is_sent_again_with_its_numbers() {
        let mut outbox = Outbox::new();
        for n in 1..=4 {
            outbox
                .push(body(&n.to_string()), Class::Bulk)
                .expect("room");
        }
        assert_eq!(drain(&mut outbox).len(), 4);
        outbox.acknowledge(1).expect("sent");
        outbox.push(body("urgent"), Class::Control).expect("room");
        outbox.resume(2).expect("sent");
        let again = drain(&mut outbox);
        assert_eq!(
            again,
            [
                (3, "3".to_owned()),
                (4, "4".to_owned()),
                (5, "urgent".to_owned())
            ]
        );
    }

    #[test]
    fn an_old_acknowledgement_changes_nothing_and_one_of_the_future_is_refused() {
        let mut outbox = Outbox::new();
        for n in 1..=3 {
            outbox
                .push(body(&n.to_string()), Class::Control)
                .expect("room");
        }
        drain(&mut outbox);
        outbox.acknowledge(3).expect("sent");
        outbox.acknowledge(1).expect("old");
        assert_eq!(outbox.acked(), 3);
        assert_eq!(outbox.acknowledge(4), Err(AckBeyond { ack: 4, sent: 3 }));
    }

    #[test]
    fn bulk_leaves_a_part_of_the_window_to_control() {
        let mut outbox = Outbox::new();
        while outbox.push(body("b"), Class::Bulk).is_ok() {}
        assert_eq!(drain(&mut outbox).len(), WINDOW_FRAMES - CONTROL_RESERVE);
        for _ in 0..CONTROL_RESERVE + 5 {
            outbox.push(body("c"), Class::Control).expect("room");
        }
        assert_eq!(drain(&mut outbox).len(), CONTROL_RESERVE);
        outbox.acknowledge(1).expect("sent");
        assert_eq!(drain(&mut outbox).len(), 1);
    }

    #[test]
    fn a_full_queue_refuses_with_its_depth_and_has_room_after_an_acknowledgement() {
        let mut outbox = Outbox::new();
        let large = "x".repeat(BULK_BYTES / 4);
        for _ in 0..4 {
            assert!(outbox.has_room(Class::Bulk, large.len()));
            outbox.push(body(&large), Class::Bulk).expect("room");
        }
        assert!(!outbox.has_room(Class::Bulk, large.len()));
        let refused = outbox.push(body(&large), Class::Bulk).expect_err("full");
        assert_eq!(
            refused,
            SendRefused::Full {
                class: Class::Bulk,
                frames: 4,
                bytes: BULK_BYTES
            }
        );
        drain(&mut outbox);
        assert!(outbox.has_room(Class::Bulk, large.len()));
    }

    #[test]
    fn one_body_larger_than_the_window_still_goes_out_alone() {
        let mut outbox = Outbox::new();
        let large = "x".repeat(WINDOW_BYTES + 1);
        outbox.push(body(&large), Class::Control).expect("room");
        outbox.push(body("next"), Class::Control).expect("room");
        assert_eq!(drain(&mut outbox).len(), 1);
        outbox.acknowledge(1).expect("sent");
        assert_eq!(drain(&mut outbox), [(2, "next".to_owned())]);
    }
}
