//! The gateway's own probe: now and then it goes the way that requests go, without a request.
//!
//! On this host and through tunnels: see [`crate::ways`].

use crate::gateway::Shared;
use jiff::Timestamp;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{
    control::ProbeReport,
    ids::{DelegateUuid, GitspaceUuid},
};

const PERIOD: Duration = Duration::from_secs(30);
/// While the way is broken: until it is found whole again nobody may be able to make a gitspace.
const BROKEN_PERIOD: Duration = Duration::from_secs(3);
/// After the start, for the first routes to come.
const FIRST: Duration = Duration::from_secs(3);
/// Gitspaces of one probe. The next one goes on with others.
const GITSPACES: usize = 4;

/// What the last probe found.
#[derive(Debug)]
pub(crate) struct ProbeBoard {
    last: watch::Sender<Option<(Timestamp, ProbeReport)>>,
    /// Where the next one begins.
    after: Mutex<Option<GitspaceUuid>>,
}

impl Default for ProbeBoard {
    fn default() -> Self {
        Self {
            last: watch::Sender::new(None),
            after: Mutex::default(),
        }
    }
}

impl ProbeBoard {
    pub(crate) fn get(&self) -> Option<(Timestamp, ProbeReport)> {
        self.last.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<(Timestamp, ProbeReport)>> {
        self.last.subscribe()
    }

    /// Of those that can be reached, the ones whose turn it is.
    fn turn(
        &self,
        mut reachable: Vec<(GitspaceUuid, DelegateUuid)>,
    ) -> Vec<(GitspaceUuid, DelegateUuid)> {
        reachable.sort_by_key(|(gitspace, _)| *gitspace);
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = reachable
            .partition_point(|(gitspace, _)| after.is_some_and(|after| *gitspace <= after));
        reachable.rotate_left(begin);
        reachable.truncate(GITSPACES);
        *after = reachable.last().map(|(gitspace, _)| *gitspace);
        reachable
    }
}

pub(crate) async fn run(shared: Arc<Shared>, drain: CancellationToken) -> Result<(), Infallible> {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.cancelled() => return Ok(()),
        }
        let reachable = {
            let known = shared.known.read();
            let routes = known.routes.values().filter(|route| route.reachable);
            routes
                .filter_map(|route| Some((route.gitspace, route.delegate?)))
                .collect()
        };
        let probe = shared.ways.probe(shared.probe.turn(reachable));
        let Some(report) = drain.run_until_cancelled(probe).await else {
            return Ok(());
        };
        let broken = report.broken_at().cloned();
        let before = shared
            .probe
            .last
            .send_replace(Some((shared.clock.now(), report)));
        let was = before.and_then(|(_, before)| before.broken_at().map(|broken| broken.hop));
        let period = match broken {
            Some(_) => BROKEN_PERIOD,
            None => PERIOD,
        };
        match broken {
            Some(broken) if was != Some(broken.hop) => {
                tracing::warn!(hop = %broken.hop, problem = ?broken.problem, "The way into gitspaces is broken");
            }
            None if was.is_some() => {
                tracing::info!("The way into gitspaces is whole again");
            }
            Some(_) | None => {}
        }
        // Gateways that were started together drift apart.
        let share = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        wait = period.mul_f64(share.mul_add(0.4, 0.8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;

    fn gitspaces(numbers: &[u128]) -> Vec<(GitspaceUuid, DelegateUuid)> {
        let id = |number| GitspaceUuid::from_untyped_uuid(uuid::Uuid::from_u128(number));
        numbers
            .iter()
            .map(|number| (id(*number), DelegateUuid::nil()))
            .collect()
    }

    #[test]
    fn every_gitspace_has_its_turn() {
        let board = ProbeBoard::default();
        let all = || gitspaces(&[6, 5, 4, 3, 2, 1]);
        assert_eq!(board.turn(all()), gitspaces(&[1, 2, 3, 4]));
        assert_eq!(board.turn(all()), gitspaces(&[5, 6, 1, 2]));
        assert_eq!(board.turn(all()), gitspaces(&[3, 4, 5, 6]));
        assert_eq!(board.turn(Vec::new()), Vec::new());
    }
}
