//! When to make the link anew after a job has panicked.
//!
//! What the job was about is carried on by nobody, and only a hello finds that out. A panic that comes back with each connection must not
//! become a loop: the pause before the next one doubles, and is short again after a quiet time.

use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Longer than [`LONGEST_PAUSE`], so that a panic which comes with each connection never looks like the first.
const QUIET: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub(super) struct Recovery {
    /// Before the next one.
    pause: Duration,
    due: Option<Instant>,
    last_panic: Option<Instant>,
}

impl Recovery {
    pub(super) const fn new() -> Self {
        Self {
            pause: FIRST_PAUSE,
            due: None,
            last_panic: None,
        }
    }

    /// A job panicked. The answer is when the link is to be made anew; panics until then are covered by that.
    pub(super) fn panicked(&mut self, now: Instant) -> Instant {
        let quiet = self
            .last_panic
            .is_some_and(|last| now.saturating_duration_since(last) >= QUIET);
        self.last_panic = Some(now);
        if let Some(due) = self.due {
            return due;
        }
        if quiet {
            self.pause = FIRST_PAUSE;
        }
        let due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.due = Some(due);
        due
    }

    /// When the link is to be made anew, where it is.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The link was, or is being, made anew: the hello compares.
    pub(super) fn done(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_comes_with_each_connection_makes_the_link_anew_ever_more_rarely() {
        let mut now = Instant::now();
        let mut recovery = Recovery::new();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let due = recovery.panicked(now);
            pauses.push((due - now).as_secs());
            now = due;
            recovery.done();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn many_panics_at_once_make_the_link_anew_once() {
        let now = Instant::now();
        let mut recovery = Recovery::new();
        let due = recovery.panicked(now);
        for _ in 0..100 {
            assert_eq!(recovery.panicked(now), due);
        }
        recovery.done();
        assert_eq!(recovery.due(), None);
        assert_eq!(recovery.panicked(due), due + 2 * FIRST_PAUSE);
    }

    #[test]
    fn after_a_quiet_time_the_pause_is_short_again() {
        let mut now = Instant::now();
        let mut recovery = Recovery::new();
        for _ in 0..10 {
            now = recovery.panicked(now);
            recovery.done();
        }
        now += QUIET;
        assert_eq!(recovery.panicked(now), now + FIRST_PAUSE);
    }
}
