//! The delegate's part of a probe: from here to the runner and what it reaches, and back over the link.

use crate::{
    runner::Runner,
    status::Board,
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
        let called = Instant::now();
        let mut report = probe_runner(self.runner.client(), all).await;
        let call = called.elapsed();
        let own = HopReport::good(Hop::Delegate, micros(asked.elapsed().saturating_sub(call)));
        report.hops.insert(0, own);
        report.took_us = micros(asked.elapsed());
        self.keep(&report);
        report
    }

    /// For whoever asks here: in both directions.
    pub async fn both_ways(&self, link: &LinkHandle, all: bool) -> ProbeReport {
        let begun = Instant::now();
        let (link, mut report) =
            tokio::join!(self.ask_link(link), probe_runner(self.runner.client(), all));
        report.hops.insert(0, link);
        report.took_us = micros(begun.elapsed());
        self.keep(&report);
        report
    }

    async fn ask_link(&self, link: &LinkHandle) -> HopReport {
        let begun = Instant::now();
        let why = match timeout(LINK_LIMIT, link.measure()).await {
            Ok(Ok(round_trip)) => return HopReport::good(Hop::Link, micros(round_trip)),
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
            micros(begun.elapsed()),
            &why,
            Some("`delegate-agent doctor` tries each step of the way"),
        )
    }

    fn keep(&self, report: &ProbeReport) {
        let at = self.clock.now();
        let before = self.board.probe.send_replace(Some((at, report.clone())));
        let broken = |report: &ProbeReport| report.broken_at().map(|broken| broken.hop);
        let (was, is) = (
            before.and_then(|(_, before)| broken(&before)),
            report.broken_at(),
        );
        match is {
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

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
