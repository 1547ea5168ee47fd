//! Which hosts are in the rotation for new starts. One that is out of it is probed, and comes back by itself.
//!
//! ```text
//! in --a probe finds the way to its gitspaces broken--> out
//! in --FAILURES starts in a row fail for a reason of the host's--> out
//! out --a start works, or a probe finds the way whole and the pause is over--> in
//! ```
//!
//! The pause is that of failed starts: a probe does not see all that a start needs, and a host that fails the next one too stays away for
//! twice as long. A host that cannot be probed comes back when the pause is over. Where no other host fits, one that is out is taken at once:
//! a start that may fail is better than none, and what it fails with is what is wrong.
//!
//! Kept in memory only: a control plane that was restarted learns it anew.

use super::seams::Probed;
use jiff::Timestamp;
use std::time::Duration;
use wire::{control::Hop, failure::FailureCode};

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
    /// A start ended. Whether the host leaves the rotation for its starts, or is back.
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

    /// Until when others are preferred at least.
    #[must_use]
    pub fn suspect_until(&self) -> Option<Timestamp> {
        let over = self.failed_in_a_row.checked_sub(FAILURES)?;
        let time = FIRST_TIME
            .saturating_mul(2_u32.saturating_pow(over.min(16)))
            .min(LONGEST_TIME);
        Some(super::plan::later(self.last_failed?, time))
    }

    /// Why the host is not in the rotation, where `probed` is what the last probe of its connection says.
    #[must_use]
    pub fn out_because(&self, probed: Option<Probed>, now: Timestamp) -> Option<OutBecause> {
        if let Some(hop) = probed.and_then(|probed| probed.broken_at) {
            return Some(OutBecause::Broken { hop });
        }
        let until = self.suspect_until()?;
        // Not shown to be whole since.
        let is_unproved = probed.is_some_and(|probed| probed.at < until);
        (now < until || is_unproved).then_some(OutBecause::FailedStarts {
            count: self.failed_in_a_row,
        })
    }
}

/// Why starts go to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutBecause {
    #[error("the way to its gitspaces ends at `{hop}`")]
    Broken { hop: Hop },
    #[error("it failed its last {count} starts")]
    FailedStarts { count: u32 },
}

/// Whether any gitspace would have failed there.
const fn is_of_the_host(code: FailureCode) -> bool {
    match code {
        FailureCode::DockerUnavailable
        | FailureCode::DockerFailed
        | FailureCode::DiskFull
        | FailureCode::AgentUnreachable
        | FailureCode::AgentSilent
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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn probed(second: i64, broken_at: Option<Hop>) -> Option<Probed> {
        Some(Probed {
            at: at(second),
            broken_at,
        })
    }

    #[test]
    fn the_third_failure_in_a_row_takes_a_host_out_and_a_start_that_works_ends_it() {
        assert_eq!(failed(2).out_because(None, NOW), None);
        let mut starts = failed(2);
        assert!(starts.note(Err(FailureCode::DiskFull), NOW), "it changed");
        assert_eq!(
            starts.out_because(None, NOW),
            Some(OutBecause::FailedStarts { count: 3 })
        );
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
        assert_eq!(failed(3).out_because(None, at(30)), None);
    }

    #[test]
    fn a_host_that_failed_its_starts_is_back_with_the_first_good_probe_after_its_pause() {
        let out = Some(OutBecause::FailedStarts { count: 3 });
        for (last_probe, now, wanted) in [(20, 29, out), (20, 45, out), (31, 45, None)] {
            let probed = probed(last_probe, None);
            assert_eq!(failed(3).out_because(probed, at(now)), wanted, "{now}");
        }
    }

    #[test]
    fn a_host_to_whose_gitspaces_the_way_is_broken_is_out_until_a_probe_finds_it_whole() {
        let starts = StartRecord::default();
        assert_eq!(
            starts.out_because(probed(0, Some(Hop::Docker)), at(1000)),
            Some(OutBecause::Broken { hop: Hop::Docker })
        );
        assert_eq!(starts.out_because(probed(1001, None), at(1001)), None);
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
