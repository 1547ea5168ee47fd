//! Time as a parameter.

use jiff::Timestamp;
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Where the time comes from. Waiting is tokio's, which has a pause of its own for tests.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, which may step: for what people and other hosts see.
    fn now(&self) -> Timestamp;
    /// The monotonic clock: for durations.
    fn instant(&self) -> Instant;
}

/// The clock of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[cfg(feature = "fail-points")]
        return stepped::stepped(Timestamp::now());
        #[cfg(not(feature = "fail-points"))]
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The wall clock of one process, which a test steps while it runs: no program can be given one of its own. `GITSPACES_CLOCK_FILE` names a
/// file that holds the seconds to add. In builds with fail points alone.
#[cfg(feature = "fail-points")]
mod stepped {
    use jiff::{SignedDuration, Timestamp};
    use std::sync::OnceLock;

    const VARIABLE: &str = "GITSPACES_CLOCK_FILE";

    pub(super) fn stepped(now: Timestamp) -> Timestamp {
        static FILE: OnceLock<Option<String>> = OnceLock::new();
        let step = FILE
            .get_or_init(|| std::env::var(VARIABLE).ok())
            .as_ref()
            .and_then(|file| std::fs::read_to_string(file).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        now.saturating_add(SignedDuration::from_secs(step))
            .unwrap_or(now)
    }
}

/// A clock that stands still until it is told otherwise. For tests.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Instant)>,
}

impl ManualClock {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Mutex::new((now, Instant::now())),
        }
    }

    /// Both clocks go on by `step`; the wall clock stops at the end of its range.
    pub fn advance(&self, step: Duration) {
        let mut state = self.lock();
        state.0 = state.0.checked_add(step).unwrap_or(Timestamp::MAX);
        state.1 += step;
    }

    /// The wall clock steps, as by NTP or an operator; the monotonic clock does not.
    pub fn step_to(&self, now: Timestamp) {
        self.lock().0 = now;
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Instant)> {
        // Two plain values: whoever panicked left both whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// 2026-01-01T00:00:00Z, so that what tests print is the same every day.
    fn default() -> Self {
        Self::new(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn instant(&self) -> Instant {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_no_duration() {
        let clock = ManualClock::default();
        let (wall, monotonic) = (clock.now(), clock.instant());
        assert_eq!(wall.to_string(), "2026-01-01T00:00:00Z");
        clock.advance(Duration::from_secs(5));
        clock.step_to(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.instant() - monotonic, Duration::from_secs(5));
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
    }
}
