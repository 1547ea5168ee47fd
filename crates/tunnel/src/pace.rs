//! How much of a line may be under way: as much as it carries, and little more.
//!
//! What is written to a connection waits in its buffers at both ends, in front of whatever is said next, and those hold megabytes. What is not
//! acknowledged is therefore held to twice of what the line delivers in the time to the other end and back, after BBR (draft-ietf-ccwg-bbr): the
//! highest rate of late, times the shortest trip. A standing queue would make each trip look longer, so that now and then, for a moment, less is sent.

use std::time::Duration;
use tokio::time::Instant;

/// Always: a few batches, and two of the other end's acknowledgements.
const LEAST: usize = 128 * 1024;
/// How long the highest rate counts.
const RATE_LIFE: Duration = Duration::from_secs(2);
/// How long the shortest trip counts.
const TRIP_LIFE: Duration = Duration::from_secs(10);
/// Less is sent for so long, and a trip, to measure it again.
const DRAIN: Duration = Duration::from_millis(100);

/// Of a batch, when it went onto the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    at: Instant,
    /// Bytes that the other end was known to have then.
    delivered: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Pace {
    delivered: u64,
    /// Bytes a second, and when that was.
    rate: Option<(f64, Instant)>,
    trip: Option<(Duration, Instant)>,
    drains_until: Option<Instant>,
}

impl Pace {
    pub(crate) fn sent(&self, now: Instant) -> Sent {
        Sent {
            at: now,
            delivered: self.delivered,
        }
    }

    /// So many bytes were acknowledged; `last` is the newest batch of them.
    pub(crate) fn acked(&mut self, bytes: usize, last: Sent, now: Instant) {
        self.delivered = self
            .delivered
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let took = now - last.at;
        self.trip(took, now);
        let delivered = self.delivered.saturating_sub(last.delivered);
        if took.is_zero() {
            return;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate; a line delivers no 2^53 bytes in a trip"
        )]
        let rate = delivered as f64 / took.as_secs_f64();
        if self
            .rate
            .is_none_or(|(best, at)| rate >= best || now - at >= RATE_LIFE)
        {
            self.rate = Some((rate, now));
        }
    }

    /// A trip was measured.
    pub(crate) fn trip(&mut self, took: Duration, now: Instant) {
        match self.trip {
            Some((shortest, _)) if took > shortest => {}
            _ => self.trip = Some((took, now)),
        }
    }

    /// Bytes that may be under way.
    pub(crate) fn most(&mut self, now: Instant) -> usize {
        if self.drains_until.is_some_and(|until| now < until) {
            return LEAST;
        }
        let (Some((rate, _)), Some((trip, since))) = (self.rate, self.trip) else {
            return LEAST;
        };
        match self.drains_until.take() {
            None if now - since >= TRIP_LIFE => {
                self.drains_until = Some(now + DRAIN + trip);
                // Those that are measured then count, however long they are.
                self.trip = None;
                return LEAST;
            }
            None | Some(_) => {}
        }
        let twice = 2.0 * rate * trip.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is not negative"
        )]
        let most = twice as usize;
        most.max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A line of so many bytes a millisecond, and its delay: what is under way after so long, where as much is sent as may be.
    fn under_way(
        pace: &mut Pace,
        begun: Instant,
        bytes_per_ms: usize,
        trip: Duration,
        long: Duration,
    ) -> usize {
        let mut queue = std::collections::VecDeque::new();
        let (mut now, mut under_way, mut free) = (begun, 0_usize, begun);
        while now - begun < long {
            while under_way < pace.most(now) {
                let size = 32 * 1024;
                free = free.max(now) + MILLI * u32::try_from(size / bytes_per_ms).unwrap();
                queue.push_back((free + trip, size, pace.sent(now)));
                under_way += size;
            }
            now += MILLI;
            while let Some((comes, size, sent)) = queue.front().copied()
                && comes <= now
            {
                queue.pop_front();
                under_way -= size;
                pace.acked(size, sent, now);
            }
        }
        under_way
    }

    #[test]
    fn a_long_line_is_filled_soon_and_a_short_one_has_no_queue_to_speak_of() {
        // 25 MB a second.
        let (rate, trip) = (25_000, Duration::from_millis(60));
        let mut pace = Pace::default();
        let carries = rate * 60;
        let after = under_way(
            &mut pace,
            Instant::now(),
            rate,
            trip,
            Duration::from_secs(1),
        );
        assert!(after >= carries, "{after} of {carries}");
        assert!(after <= 3 * carries, "{after} of {carries}");
        let mut pace = Pace::default();
        let after = under_way(
            &mut pace,
            Instant::now(),
            rate,
            MILLI,
            Duration::from_secs(1),
        );
        assert!(after <= LEAST + 32 * 1024, "{after}");
    }

    #[test]
    fn a_queue_of_its_own_making_is_not_taken_for_a_longer_line() {
        let (rate, trip) = (25_000, Duration::from_millis(60));
        let mut pace = Pace::default();
        let after = under_way(
            &mut pace,
            Instant::now(),
            rate,
            trip,
            Duration::from_secs(60),
        );
        assert!(after <= 3 * rate * 60, "{after}");
    }

    #[test]
    fn a_line_that_became_longer_is_filled_again() {
        let rate = 25_000;
        let begun = Instant::now();
        let mut pace = Pace::default();
        under_way(
            &mut pace,
            begun,
            rate,
            Duration::from_millis(10),
            Duration::from_secs(1),
        );
        let later = begun + Duration::from_secs(1);
        let after = under_way(
            &mut pace,
            later,
            rate,
            Duration::from_millis(60),
            Duration::from_secs(15),
        );
        assert!(after >= rate * 60, "{after}");
    }
}
