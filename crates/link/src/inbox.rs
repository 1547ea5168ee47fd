//! What was taken from the peer: numbers only, the bodies are the application's.

use crate::limits::WINDOW_FRAMES;
use wire::ids::StreamUuid;

/// Why a numbered body is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    #[error("number {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    #[error("more than {WINDOW_FRAMES} messages are sent without an acknowledgement")]
    WindowExceeded,
}

/// What is to be done with a numbered body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Fresh,
    /// It was taken before: it is acknowledged again and not delivered.
    Duplicate,
}

/// Position in one stream of the peer. Survives the connection.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    stream: Option<StreamUuid>,
    received: u64,
    consumed: u64,
    /// The peer does not say where it is, and nothing is remembered: whatever comes first is where it goes on.
    starts_anywhere: bool,
}

impl Inbox {
    /// What an earlier connection consumed of `stream`.
    #[must_use]
    pub const fn resumed(stream: StreamUuid, received: u64) -> Self {
        Self {
            stream: Some(stream),
            received,
            consumed: received,
            starts_anywhere: false,
        }
    }

    /// A connection begins on which the peer numbers by `stream`.
    pub fn begin(&mut self, stream: StreamUuid) {
        if self.stream != Some(stream) {
            *self = Self::resumed(stream, 0);
        }
    }

    /// The peer says what it was acknowledged: an earlier life, or another replica, of this side consumed that.
    pub fn catch_up(&mut self, acked: u64) {
        self.received = self.received.max(acked);
        self.consumed = self.consumed.max(acked);
    }

    /// The peer does not say what it was acknowledged. What an earlier life of this side consumed is not known then, but that it did: the
    /// peer sends everything else again.
    pub fn start_anywhere(&mut self) {
        self.starts_anywhere = self.received == 0;
    }

    /// # Errors
    /// Refuses a gap, and more than the window without an acknowledgement.
    pub fn take(&mut self, seq: u64) -> Result<Taken, OutOfOrder> {
        if std::mem::take(&mut self.starts_anywhere) {
            self.catch_up(seq.saturating_sub(1));
        }
        let expected = self.received.saturating_add(1);
        if seq < expected {
            return Ok(Taken::Duplicate);
        }
        if seq > expected {
            return Err(OutOfOrder::Gap {
                expected,
                found: seq,
            });
        }
        if seq.saturating_sub(self.consumed) > WINDOW_FRAMES as u64 {
            return Err(OutOfOrder::WindowExceeded);
        }
        self.received = seq;
        Ok(Taken::Fresh)
    }

    /// The application is done with everything up to `seq`.
    pub fn consume(&mut self, seq: u64) {
        self.consumed = self.consumed.max(seq.min(self.received));
    }

    /// Highest number delivered.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Highest number consumed: what is acknowledged.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: u128) -> StreamUuid {
        StreamUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
    }
    use newtype_uuid::GenericUuid as _;

    #[test]
    fn a_number_seen_before_is_a_duplicate() {
        let mut inbox = Inbox::resumed(stream(1), 5);
        assert_eq!(inbox.take(4), Ok(Taken::Duplicate));
        assert_eq!(inbox.take(6), Ok(Taken::Fresh));
        assert_eq!(inbox.take(6), Ok(Taken::Duplicate));
    }

    #[test]
    fn a_gap_is_refused_also_at_the_start_of_a_connection() {
        let mut inbox = Inbox::default();
        inbox.begin(stream(1));
        assert!(inbox.take(2).is_err());
        inbox.catch_up(56);
        assert_eq!(inbox.take(57), Ok(Taken::Fresh));
        assert_eq!(
            inbox.take(59),
            Err(OutOfOrder::Gap {
                expected: 58,
                found: 59
            })
        );
    }

    #[test]
    fn a_peer_that_does_not_say_where_it_is_is_believed_once_and_not_where_it_is_remembered() {
        let mut fresh = Inbox::default();
        fresh.begin(stream(1));
        fresh.start_anywhere();
        assert_eq!(fresh.take(57), Ok(Taken::Fresh));
        assert_eq!((fresh.received(), fresh.consumed()), (57, 56));
        assert!(fresh.take(59).is_err(), "a gap later is one");
        let mut remembered = Inbox::resumed(stream(1), 5);
        remembered.begin(stream(1));
        remembered.start_anywhere();
        assert!(remembered.take(57).is_err());
        assert_eq!(remembered.take(6), Ok(Taken::Fresh));
    }

    #[test]
    fn another_stream_starts_from_nothing() {
        let mut inbox = Inbox::resumed(stream(1), 9);
        inbox.begin(stream(2));
        assert_eq!(inbox.received(), 0);
        assert_eq!(inbox.take(1), Ok(Taken::Fresh));
    }

    #[test]
    fn a_peer_that_ignores_the_window_is_refused() {
        let mut inbox = Inbox::default();
        inbox.begin(stream(1));
        for seq in 1..=WINDOW_FRAMES as u64 {
            assert_eq!(inbox.take(seq), Ok(Taken::Fresh));
        }
        let next = WINDOW_FRAMES as u64 + 1;
        assert_eq!(inbox.take(next), Err(OutOfOrder::WindowExceeded));
        inbox.consume(1);
        assert_eq!(inbox.take(next), Ok(Taken::Fresh));
    }

    #[test]
    fn nothing_is_consumed_before_it_came() {
        let mut inbox = Inbox::resumed(stream(1), 3);
        inbox.consume(100);
        assert_eq!(inbox.consumed(), 3);
    }
}
