//! Hosts that fail their starts: others are preferred until they have shown that they can again.
//!
//! ```text
//! in rotation --FAILURES starts in a row fail for a reason of the host's--> suspect
//! suspect --a start works--> in rotation
//! suspect --its time is over--> in rotation, where the next failure makes it suspect again, for twice as long
//! ```
//!
//! The start that goes to a suspect host after its time is the probe: it goes the whole way that a user's does. Where no other host fits, a
//! suspect one is taken at once: a start that may fail is better than none.
//!
//! Kept in memory only: a control plane that was restarted learns it anew.

use jiff::Timestamp;
use std::time::Duration;
use wire::failure::FailureCode;

/// One failed start says little; by the third it is the host.
const FAILURES: u32 = 3;
const FIRST_TIME: Duration = Duration::from_secs(30);
const LONGEST_TIME: Duration = Duration::from_mins(10);

/// How the last starts on a host went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartRecord {
    failed_in_a_row: u32,
    last_failed: Option<Timestamp>,
}

impl StartRecord {
    /// A start ended. Whether the host became suspect, or is no more.
    pub(super) fn note(&mut self, outcome: Result<(), FailureCode>, now: Timestamp) -> bool {
        let before = self.failed_in_a_row >= FAILURES;
        match outcome {
            Ok(()) => *self = Self::default(),
            Err(code) if is_of_the_host(code) => {
                self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
                self.last_failed = Some(now);
            }
            // The user's repository says nothing of the host.
            Err(_) => {}
        }
        before != (self.failed_in_a_row >= FAILURES)
    }

    /// Failed starts in a row.
    #[must_use]
    pub const fn failed_in_a_row(&self) -> u32 {
        self.failed_in_a_row
    }

    /// Until when others are preferred.
    #[must_use]
    pub fn suspect_until(&self) -> Option<Timestamp> {
        let over = self.failed_in_a_row.checked_sub(FAILURES)?;
        let time = FIRST_TIME
            .saturating_mul(2_u32.saturating_pow(over.min(16)))
            .min(LONGEST_TIME);
        Some(super::plan::later(self.last_failed?, time))
    }

    pub(super) fn is_suspect(&self, now: Timestamp) -> bool {
        self.suspect_until().is_some_and(|until| now < until)
    }
}

/// Whether any gitspace would have failed there.
const fn is_of_the_host(code: FailureCode) -> bool {
    match code {
        FailureCode::DockerUnavailable
        | FailureCode::DockerFailed
        | FailureCode::DiskFull
        | FailureCode::AgentUnreachable
        | FailureCode::RunnerUnavailable
        | FailureCode::PreconditionFailed
        | FailureCode::Internal => true,
        FailureCode::GitUnreachable
        | FailureCode::GitAuthentication
        | FailureCode::GitRepositoryNotFound
        | FailureCode::GitRefNotFound
        | FailureCode::GitFailed
        | FailureCode::ToolMissing
        | FailureCode::DevcontainerInvalid
        | FailureCode::DevcontainerUnsupported
        | FailureCode::ImageMissing
        | FailureCode::LifecycleCommandFailed
        | FailureCode::ContainerExited
        | FailureCode::OutOfMemory
        | FailureCode::NoCapacity
        | FailureCode::DelegateUnavailable
        | FailureCode::DeadlineExceeded
        | FailureCode::Cancelled
        | FailureCode::Superseded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn failed(times: u32) -> StartRecord {
        let mut starts = StartRecord::default();
        for _ in 0..times {
            starts.note(Err(FailureCode::DockerFailed), NOW);
        }
        starts
    }

    #[test]
    fn the_third_failure_in_a_row_makes_a_host_suspect_and_a_start_that_works_ends_it() {
        assert!(!failed(2).is_suspect(NOW));
        let mut starts = failed(2);
        assert!(starts.note(Err(FailureCode::DiskFull), NOW), "it changed");
        assert!(starts.is_suspect(NOW));
        assert!(starts.note(Ok(()), NOW), "it changed back");
        assert_eq!(starts, StartRecord::default());
    }

    #[test]
    fn it_comes_back_by_itself_and_stays_away_longer_after_each_probe_that_fails() {
        let until = |times| failed(times).suspect_until().map(Timestamp::as_second);
        assert_eq!(
            [until(2), until(3), until(4), until(60)],
            [None, Some(30), Some(60), Some(600)]
        );
        let later = NOW.checked_add(FIRST_TIME).unwrap();
        assert!(!failed(3).is_suspect(later));
    }

    #[test]
    fn what_is_wrong_with_a_repository_says_nothing_of_the_host() {
        let mut starts = failed(2);
        for code in [
            FailureCode::GitUnreachable,
            FailureCode::LifecycleCommandFailed,
        ] {
            assert!(!starts.note(Err(code), NOW));
        }
        assert_eq!(starts, failed(2), "neither a failure nor a success");
    }
}
