//! Which processes connected as one delegate.
//!
//! A delegate's process has a stream of its own for as long as it runs. A process that was replaced never comes back with its old stream, so
//! one that does, after another one had connected, runs *beside* the other: the identity was copied. No clock decides that.

use jiff::Timestamp;
use std::{collections::VecDeque, time::Duration};
use wire::{api::ClonedDelegate, ids::StreamUuid};

/// Earlier processes that are remembered. A clone comes back within a few connections.
const MAX_EARLIER: usize = 8;
/// A clone that is not seen for as long is gone: it would have dialled several times.
const CLONE_MEMORY: Duration = Duration::from_hours(1);

/// One process of a delegate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) stream: StreamUuid,
    /// As it calls its host.
    pub(super) host: String,
}

/// Who came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The process that was last here.
    Same,
    /// One that was never here, or long ago: a restart, or a clone's first connection.
    Other,
    /// One that another had replaced: both run.
    Back,
}

#[derive(Debug, Default)]
pub(super) struct Lives {
    current: Option<Life>,
    earlier: VecDeque<Life>,
    cloned: Option<ClonedDelegate>,
}

impl Lives {
    pub(super) fn arrived(&mut self, life: Life, now: Timestamp) -> Arrival {
        if let Some(current) = &mut self.current
            && current.stream == life.stream
        {
            *current = life;
            return Arrival::Same;
        }
        let known = self
            .earlier
            .iter()
            .position(|earlier| earlier.stream == life.stream);
        let is_back = known.is_some();
        if let Some(index) = known {
            self.earlier.remove(index);
            self.cloned = Some(ClonedDelegate {
                hosts: self
                    .current
                    .iter()
                    .chain([&life])
                    .map(|life| life.host.clone())
                    .collect(),
                seen: now,
            });
        }
        if let Some(replaced) = self.current.replace(life) {
            self.earlier.push_front(replaced);
            self.earlier.truncate(MAX_EARLIER);
        }
        if is_back {
            Arrival::Back
        } else {
            Arrival::Other
        }
    }

    /// What was seen lately.
    pub(super) fn cloned(&self, now: Timestamp) -> Option<ClonedDelegate> {
        self.cloned.clone().filter(|cloned| {
            Duration::try_from(now.duration_since(cloned.seen)).is_ok_and(|ago| ago < CLONE_MEMORY)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn life(n: u128, host: &str) -> Life {
        Life {
            stream: StreamUuid::from_untyped_uuid(uuid::Uuid::from_u128(n)),
            host: host.to_owned(),
        }
    }

    #[test]
    fn restarts_and_reconnects_are_no_clones() {
        let mut lives = Lives::default();
        for n in 0..50 {
            assert_eq!(lives.arrived(life(n, "a"), NOW), Arrival::Other);
            assert_eq!(lives.arrived(life(n, "a"), NOW), Arrival::Same);
        }
        assert_eq!(lives.cloned(NOW), None);
        assert!(lives.earlier.len() <= MAX_EARLIER);
    }

    #[test]
    fn a_process_that_comes_back_after_another_is_one_of_two_clones() {
        let mut lives = Lives::default();
        assert_eq!(lives.arrived(life(1, "a"), NOW), Arrival::Other);
        assert_eq!(lives.arrived(life(2, "b"), NOW), Arrival::Other);
        assert_eq!(lives.arrived(life(1, "a"), NOW), Arrival::Back);
        assert_eq!(lives.arrived(life(2, "b"), NOW), Arrival::Back);
        let cloned = lives.cloned(NOW).expect("seen");
        assert_eq!(cloned.hosts, ["a", "b"]);
    }

    #[test]
    fn a_clone_is_found_though_one_of_the_two_restarts_meanwhile() {
        let mut lives = Lives::default();
        for (n, host) in [(1, "a"), (2, "b"), (3, "b")] {
            assert_eq!(lives.arrived(life(n, host), NOW), Arrival::Other);
        }
        assert_eq!(lives.arrived(life(1, "a"), NOW), Arrival::Back);
    }

    #[test]
    fn a_clone_that_is_gone_for_an_hour_is_forgotten() {
        let mut lives = Lives::default();
        for n in [1, 2, 1] {
            lives.arrived(life(n, "a"), NOW);
        }
        assert!(lives.cloned(NOW + Duration::from_secs(3_599)).is_some());
        assert_eq!(lives.cloned(NOW + CLONE_MEMORY), None);
    }
}
