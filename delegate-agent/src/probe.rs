//! The delegate's part of a probe: from here to the runner and what it reaches, and back over the link.

use crate::{
    runner::Runner,
    status::{Board, Found},
    uplink::{LinkHandle, NotMeasured},
};
use daemon::Clock;
use runner_dial::probe_runner;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use wire::control::{Hop, HopReport, ProbeReport};

/// There and back over a slow road.
const LINK_LIMIT: Duration = Duration::from_secs(4);

/// Asks the parts, and keeps what was found last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    pub runner: Runner,
    pub board: Board,
    pub clock: Arc<dyn Clock>,
}

impl Prober {
    /// For the control plane: it measures the link. `asked` is when its frame came.
    pub async fn answer(&self, asked: Instant, all: bool) -> ProbeReport {
        let report = probe_runner(self.runner.client(), all).await;
        self.keep(&report);
        report.through(Hop::Delegate, asked.elapsed())
    }

    /// For whoever asks here: in both directions.
    pub async fn both_ways(&self, link: &LinkHandle, all: bool) -> ProbeReport {
        let begun = Instant::now();
        let (link, report) =
            tokio::join!(self.ask_link(link), probe_runner(self.runner.client(), all));
        self.keep(&report);
        let mut report = report.taken(begun.elapsed());
        report.hops.insert(0, link);
        report
    }

    async fn ask_link(&self, link: &LinkHandle) -> HopReport {
        let begun = Instant::now();
        let why = match timeout(LINK_LIMIT, link.measure()).await {
            Ok(Ok(round_trip)) => return HopReport::good(Hop::Link, round_trip),
            Ok(Err(NotMeasured::Lost)) => "the link was lost meanwhile".to_owned(),
            Ok(Err(NotMeasured::NotLive)) => {
                let status = self.board.link.borrow().clone();
                let why = status.last_error.map(|error| error.message);
                format!(
                    "not connected to {} ({}): {}",
                    status.control_plane,
                    status.state,
                    why.unwrap_or_else(|| "not tried yet".to_owned())
                )
            }
            Err(_) => format!(
                "the control plane did not answer within {} s",
                LINK_LIMIT.as_secs()
            ),
        };
        HopReport::failed(
            Hop::Link,
            begun.elapsed(),
            &why,
            Some("`delegate-agent doctor` tries each step of the way"),
        )
    }

    /// From the runner on: the same whoever asked, and through which parts. How the link is says [`Board::link`].
    fn keep(&self, report: &ProbeReport) {
        let found = Found {
            at: self.clock.now(),
            instant: self.clock.instant(),
            report: report.clone(),
        };
        let before = self.board.probe.send_replace(Some(found));
        let was = before.and_then(|before| before.report.broken_at().map(|broken| broken.hop));
        match report.broken_at() {
            Some(broken) if was != Some(broken.hop) => {
                tracing::warn!(hop = %broken.hop, problem = ?broken.problem, "The way to this host's gitspaces is broken");
            }
            None if was.is_some() => {
                tracing::info!("The way to this host's gitspaces is whole again");
            }
            Some(_) | None => {}
        }
    }
}
