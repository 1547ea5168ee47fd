//! What the tasks publish of themselves, for `/status` and `/readyz`.

use crate::{checks::clock_words, tunnels::TunnelEntry};
use daemon::Clock;
use jiff::Timestamp;
use link::client::Stage;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use wire::{
    control::{DisconnectCode, ProbeReport},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
};

/// Ten probes of the control plane's usual period. While the link is down nobody probes, unless somebody asks here.
const PROBE_HOLDS: Duration = Duration::from_secs(300);

/// The link.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkStatus {
    pub state: Stage,
    /// It waits for this host to be enrolled.
    pub is_enrolling: bool,
    pub control_plane: String,
    pub delegate: Option<DelegateUuid>,
    pub epoch: Option<u64>,
    pub connected_since: Option<Timestamp>,
    /// Times that it became live.
    pub connections: u64,
    /// Failed tries in a row.
    pub attempt: u32,
    pub next_try: Option<Timestamp>,
    pub last_error: Option<LastError>,
    /// The server's clock minus ours.
    pub clock_skew_ms: Option<i64>,
    /// The same in words.
    pub clock: Option<String>,
    /// When they were compared, by both of our clocks.
    #[serde(skip)]
    pub compared: Option<(Timestamp, Instant)>,
    pub waiting_control: usize,
    pub waiting_bulk: usize,
    pub in_flight: usize,
}

impl LinkStatus {
    /// With the skew as it is, and not as it was at the greeting: while a link lasts, our own wall clock may be set. In words too.
    #[must_use]
    pub fn with_skew_of(self, clock: &dyn Clock) -> Self {
        let status = self.with_skew_at(clock);
        Self {
            clock: status.clock_skew_ms.map(clock_words),
            ..status
        }
    }

    fn with_skew_at(self, clock: &dyn Clock) -> Self {
        let (Some(skew), Some((wall, instant)), Some(_)) =
            (self.clock_skew_ms, self.compared, self.connected_since)
        else {
            return self;
        };
        let by_wall = clock.now().duration_since(wall).as_millis();
        let really = clock.instant().saturating_duration_since(instant);
        let really = i128::try_from(really.as_millis()).unwrap_or(i128::MAX);
        let stepped = by_wall.saturating_sub(really);
        Self {
            clock_skew_ms: i64::try_from(i128::from(skew).saturating_sub(stepped)).ok(),
            ..self
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastError {
    /// Of the link's end, the same as the control plane shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<DisconnectCode>,
    pub message: String,
    pub hint: Option<String>,
    pub at: Timestamp,
}

/// The runner, as the watch sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunnerStatus {
    /// `None` before it was asked.
    pub ready: Option<bool>,
    pub last_error: Option<LastError>,
    pub gitspaces: usize,
}

/// A task whose events are carried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskView {
    pub gitspace: GitspaceUuid,
    pub sent_seq: u64,
}

/// What the last probe found from the runner on.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub at: Timestamp,
    /// When that was, by the clock that nobody sets.
    pub instant: Instant,
    pub report: ProbeReport,
}

impl Found {
    /// How old it is, where it still says how the way is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.instant);
        (age < PROBE_HOLDS).then_some(age)
    }
}

/// Where each task publishes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    pub link: Arc<watch::Sender<LinkStatus>>,
    pub runner: Arc<watch::Sender<RunnerStatus>>,
    pub tasks: Arc<watch::Sender<BTreeMap<TaskUuid, TaskView>>>,
    pub probe: Arc<watch::Sender<Option<Found>>>,
    /// By gateway and lane.
    pub tunnels: Arc<watch::Sender<BTreeMap<String, TunnelEntry>>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            link: Arc::new(watch::Sender::new(LinkStatus::default())),
            runner: Arc::new(watch::Sender::new(RunnerStatus::default())),
            tasks: Arc::new(watch::Sender::new(BTreeMap::new())),
            probe: Arc::new(watch::Sender::new(None)),
            tunnels: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }
}

impl Board {
    /// Publishes where something changed.
    pub fn update_link(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.link.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::ManualClock;

    #[test]
    fn what_a_probe_found_is_not_told_for_ever() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let found = Found {
            at: clock.now(),
            instant: clock.instant(),
            report: ProbeReport::default(),
        };
        clock.advance(Duration::from_secs(40));
        assert_eq!(found.age(clock.instant()), Some(Duration::from_secs(40)));
        clock.advance(PROBE_HOLDS);
        assert_eq!(found.age(clock.instant()), None);
    }

    #[test]
    fn a_clock_that_is_set_while_the_link_lasts_shows_at_once() {
        let start: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let clock = ManualClock::new(start);
        let status = LinkStatus {
            clock_skew_ms: Some(40),
            compared: Some((clock.now(), clock.instant())),
            connected_since: Some(start),
            ..LinkStatus::default()
        };
        let skew = |status: &LinkStatus| status.clone().with_skew_of(&clock).clock_skew_ms;
        clock.advance(Duration::from_secs(7_200));
        assert_eq!(skew(&status), Some(40), "time that passes is no skew");
        clock.step_to(clock.now() + Duration::from_secs(3_600));
        assert_eq!(skew(&status), Some(40 - 3_600_000));
        clock.step_to(clock.now() - Duration::from_secs(7_200));
        assert_eq!(skew(&status), Some(40 + 3_600_000));
        let shown = status.clone().with_skew_of(&clock).clock;
        assert_eq!(
            shown.as_deref(),
            Some("this host's clock is 60 min behind the control plane's")
        );
        let gone = LinkStatus {
            connected_since: None,
            ..status
        };
        assert_eq!(skew(&gone), Some(40), "as it was at the last greeting");
    }
}
