//! Follows what the runner observes, and whether it answers at all.
//!
//! While the link is live it reads `GET /v1/watch`, which says everything first, and sends each observation on. Where the runner stops
//! answering the control plane is told; where it is back the link is made anew, because only a hello says which tasks the runner holds.

use crate::{
    config::CapacitySettings,
    inventory,
    runner::Runner,
    status::{Board, LastError},
    uplink::{LinkHandle, LiveLink},
};
use daemon::{Clock, ErrorChain};
use futures_util::StreamExt as _;
use link::Class;
use local_rpc::ClientError;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use wire::control::Up;

/// Between tries of a runner that does not answer: a restart of it is seen at once.
const PAUSE: Duration = Duration::from_millis(200);
/// Memory and disk change all the time; nobody needs to know to the second.
const INVENTORY_PERIOD: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the uplink has ended")]
    LinkEnded,
}

#[derive(Debug)]
pub struct WatchTask {
    pub runner: Runner,
    pub link: LinkHandle,
    pub live: watch::Receiver<Option<LiveLink>>,
    pub board: Board,
    pub capacity: CapacitySettings,
    pub clock: Arc<dyn Clock>,
}

impl WatchTask {
    /// Runs until `stop`.
    ///
    /// # Errors
    /// Ends where the uplink has.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        loop {
            let live = *self.live.borrow_and_update();
            let changed = self.live.clone();
            let work = async {
                match live {
                    Some(live) => self.while_live(live).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = wait_changed(changed) => if !ended {
                    return if stop.is_cancelled() { Ok(()) } else { Err(WatchError::LinkEnded) };
                },
                result = work => result?,
            }
        }
    }

    /// One connection of the link. Ends only by being dropped, or with the uplink.
    async fn while_live(&self, live: LiveLink) -> Result<(), WatchError> {
        let mut told_ready = live.runner_ready;
        loop {
            let error = match self.runner.watch(live.runner_draining).await {
                Ok(stream) => {
                    if !told_ready {
                        tracing::info!("The runner is back");
                        self.publish(true, None);
                        self.link.reconnect();
                        // The next connection starts this anew.
                        return std::future::pending().await;
                    }
                    self.publish(true, None);
                    self.follow(stream).await?
                }
                Err(error) => Some(error),
            };
            let reason = error.as_ref().map_or_else(
                || "its stream of observations ended".to_owned(),
                |error| ErrorChain(error).to_string(),
            );
            if told_ready {
                tracing::warn!(error = reason, "The runner does not answer");
                told_ready = false;
                self.send(Up::RunnerReady { ready: false }).await?;
            }
            self.publish(false, Some(reason));
            sleep(PAUSE).await;
        }
    }

    async fn follow(
        &self,
        mut stream: local_rpc::client::NdjsonStream<wire::gitspace::Observed>,
    ) -> Result<Option<ClientError>, WatchError> {
        let mut ticks = interval(INVENTORY_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is due at once, and the hello has said it.
        ticks.tick().await;
        let mut seen = HashSet::new();
        loop {
            tokio::select! {
                item = stream.next() => match item {
                    Some(Ok(observed)) => {
                        seen.insert(observed.gitspace);
                        self.board.runner.send_if_modified(|status| {
                            status.gitspaces = seen.len();
                            false
                        });
                        self.send(Up::Observed { observed }).await?;
                    }
                    Some(Err(error)) => return Ok(Some(error)),
                    None => return Ok(None),
                },
                _ = ticks.tick() => match self.runner.host().await {
                    Ok(report) => {
                        let inventory = inventory::collect(Some(&report), self.capacity);
                        self.send(Up::Inventory { inventory }).await?;
                    }
                    Err(error) => return Ok(Some(error)),
                },
            }
        }
    }

    async fn send(&self, body: Up) -> Result<(), WatchError> {
        self.link
            .send(body, Class::Control)
            .await
            .map_err(|_| WatchError::LinkEnded)
    }

    fn publish(&self, ready: bool, error: Option<String>) {
        let at = self.clock.now();
        self.board.runner.send_modify(|status| {
            status.ready = Some(ready);
            if let Some(message) = error {
                status.last_error = Some(LastError {
                    code: None,
                    message,
                    hint: Some("systemctl status runner-agent".to_owned()),
                    at,
                });
            }
        });
    }
}

/// Whether there will be more.
async fn wait_changed(mut live: watch::Receiver<Option<LiveLink>>) -> bool {
    live.changed().await.is_ok()
}
