//! Which delegate is connected, by which connection, and whose turn it is.

use super::{
    epochs::Epochs,
    lives::{Arrival, Life, Lives},
    probing::Waiter,
    refusals::Refusals,
    tunnel_ends::TunnelEnds,
};
use crate::orchestrator::Probed;
use jiff::Timestamp;
use link::inbox::Inbox;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard, mpsc};
use wire::{
    api::{ClonedDelegate, DataPath},
    control::{DisconnectCode, Down, Epoch, Hop, ProbeReport},
    ids::{DelegateUuid, StreamUuid},
};

/// Commands that wait for a connection's task. It takes them as fast as the link's own queue has room; one more is a delegate that does not
/// read, and its connection ends.
const MAX_COMMANDS: usize = 1024;

/// What to do about a clone; also for whoever only replaced a process and wonders.
const CLONE_HINT: &str = "where the host was cloned, enrol the clone as a delegate of its own: there, stop delegate-agent, make a join token with `gitspace join-token create`, and run `delegate-agent enroll --again`";

/// To a connection's task.
#[derive(Debug)]
pub(super) enum Command {
    Send(Down),
    /// The way through it is to be probed now.
    Probe {
        waiter: Waiter,
    },
    Close {
        code: DisconnectCode,
        reason: String,
        hint: Option<String>,
    },
}

/// What is remembered of a delegate between its connections, for the life of this process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What was stored of the delegate's last stream.
    pub(super) inbox: Option<(StreamUuid, Inbox)>,
    /// The orchestrator was told that it is connected, and not that it is gone.
    pub(super) told: bool,
}

#[derive(Debug)]
struct Live {
    epoch: Epoch,
    commands: mpsc::Sender<Box<Command>>,
    overrun: tokio_util::sync::CancellationToken,
}

/// One delegate.
#[derive(Debug, Default)]
pub(super) struct Slot {
    latest: AtomicU64,
    lives: Mutex<Lives>,
    live: Mutex<Option<Live>>,
    /// Of the live connection.
    path: Mutex<Option<Box<DataPath>>>,
    turn: Arc<TurnMutex<Memory>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        // One value that is replaced whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of `epoch` has proved its key: the older one is told why it is sent away, and its end is waited for.
    pub(super) async fn take_turn(
        &self,
        epoch: Epoch,
        life: Life,
        now: Timestamp,
    ) -> OwnedMutexGuard<Memory> {
        self.latest.fetch_max(epoch.0, Ordering::AcqRel);
        let host = life.host.clone();
        let arrival = self.lives().arrived(life, now);
        let (code, reason, hint) = match arrival {
            Arrival::Same => (
                DisconnectCode::Superseded,
                "this delegate connected anew".to_owned(),
                None,
            ),
            Arrival::Other => (
                DisconnectCode::Superseded,
                format!("another process of this delegate connected, on the host `{host}`"),
                Some(CLONE_HINT.to_owned()),
            ),
            Arrival::Back => {
                tracing::warn!(
                    host,
                    "Two processes have one delegate's identity and throw each other out"
                );
                (
                    DisconnectCode::Cloned,
                    format!(
                        "two processes have this delegate's identity; the other one runs on the host `{host}`"
                    ),
                    Some(CLONE_HINT.to_owned()),
                )
            }
        };
        self.command(Command::Close { code, reason, hint });
        Arc::clone(&self.turn).lock_owned().await
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        // Changed by one call that does not panic.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no newer connection has proved the key.
    pub(super) fn is_latest(&self, epoch: Epoch) -> bool {
        self.latest.load(Ordering::Acquire) == epoch.0
    }

    /// Commands reach this connection from here on.
    pub(super) fn publish(&self, epoch: Epoch) -> Published {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let overrun = tokio_util::sync::CancellationToken::new();
        *self.lock() = Some(Live {
            epoch,
            commands,
            overrun: overrun.clone(),
        });
        Published {
            commands: receiver,
            overrun,
        }
    }

    /// No command reaches this connection any more.
    pub(super) fn withdraw(&self, epoch: Epoch) {
        let mut live = self.lock();
        if live.as_ref().is_some_and(|live| live.epoch == epoch) {
            *live = None;
            *self.path() = None;
        }
    }

    fn close_other(&self, keep: Option<Epoch>, close: Command) {
        let epoch = self.lock().as_ref().map(|live| live.epoch);
        if epoch.is_some() && epoch != keep {
            self.command(close);
        }
    }

    fn path(&self) -> MutexGuard<'_, Option<Box<DataPath>>> {
        // One value that is replaced whole.
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe of the live connection found this.
    pub(super) fn found(&self, mut report: ProbeReport, now: Timestamp) -> Found {
        // Kept until the next one, of each of thousands.
        report.hops.shrink_to_fit();
        let mut path = self.path();
        let broken_at = report.broken_at().map(|broken| broken.hop);
        let before = path.as_ref().map(|path| (path.broken_at, path.since));
        let since = before
            .filter(|(hop, _)| *hop == broken_at)
            .map_or(now, |(_, since)| since);
        *path = Some(Box::new(DataPath {
            at: now,
            since,
            broken_at,
            report,
        }));
        let was = before.and_then(|(hop, _)| hop);
        if was == broken_at {
            Found::AsBefore
        } else {
            Found::Changed { was }
        }
    }

    /// A probe can wait for a better moment: a delegate that takes nothing is not cut off for it.
    fn probe(&self, waiter: Waiter) -> Result<(), NotProbed> {
        let live = self.lock();
        let live = live.as_ref().ok_or(NotProbed::NotConnected)?;
        live.commands
            .try_send(Box::new(Command::Probe { waiter }))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NotProbed::TakesNothing,
                mpsc::error::TrySendError::Closed(_) => NotProbed::NotConnected,
            })
    }

    fn command(&self, command: Command) -> bool {
        let live = self.lock();
        let Some(live) = live.as_ref() else {
            return false;
        };
        match live.commands.try_send(Box::new(command)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                live.overrun.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// What a probe's finding is beside the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    AsBefore,
    /// The way ends at another part, or is whole again.
    Changed {
        was: Option<Hop>,
    },
}

/// Why a delegate is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotProbed {
    NotConnected,
    TakesNothing,
}

/// The receiving end of a published connection.
#[derive(Debug)]
pub(super) struct Published {
    /// Boxed: the channel makes room for many at once, and a link is idle most of the time.
    pub(super) commands: mpsc::Receiver<Box<Command>>,
    /// Cancelled when a command did not fit.
    pub(super) overrun: tokio_util::sync::CancellationToken,
}

/// Every delegate that has proved its key in the life of this process.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) epochs: Epochs,
    pub(super) refusals: Refusals,
    pub(super) tunnels: TunnelEnds,
    slots: Mutex<HashMap<DelegateUuid, Arc<Slot>>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<DelegateUuid, Arc<Slot>>> {
        // Entries are only added, whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call it for delegates whose proof is good: entries stay.
    pub(super) fn slot(&self, delegate: DelegateUuid) -> Arc<Slot> {
        Arc::clone(self.lock().entry(delegate).or_default())
    }

    /// Whether it was handed to a live connection.
    pub(super) fn command(&self, delegate: DelegateUuid, command: Command) -> bool {
        let slot = self.lock().get(&delegate).cloned();
        slot.is_some_and(|slot| slot.command(command))
    }

    /// Ends the delegate's connection, where it is not that of `keep`.
    pub(super) fn close_other(&self, delegate: DelegateUuid, keep: Option<Epoch>, close: Command) {
        let slot = self.lock().get(&delegate).cloned();
        if let Some(slot) = slot {
            slot.close_other(keep, close);
        }
    }

    /// Whether two processes have this delegate's identity, as far as was seen lately.
    pub(super) fn cloned(&self, delegate: DelegateUuid, now: Timestamp) -> Option<ClonedDelegate> {
        let slot = self.lock().get(&delegate).cloned()?;
        slot.lives().cloned(now)
    }

    pub(super) fn probe(&self, delegate: DelegateUuid, waiter: Waiter) -> Result<(), NotProbed> {
        let slot = self.lock().get(&delegate).cloned();
        slot.ok_or(NotProbed::NotConnected)?.probe(waiter)
    }

    pub(super) fn data_path(&self, delegate: DelegateUuid) -> Option<DataPath> {
        let slot = self.lock().get(&delegate).cloned()?;
        slot.path().as_deref().cloned()
    }

    /// Without the single parts, which may be hundreds.
    pub(super) fn brief_data_path(&self, delegate: DelegateUuid) -> Option<DataPath> {
        let slot = self.lock().get(&delegate).cloned()?;
        let path = slot.path();
        let path = path.as_deref()?;
        Some(DataPath {
            at: path.at,
            since: path.since,
            broken_at: path.broken_at,
            report: path.report.counts(),
        })
    }

    /// Where the way ends, and since when.
    pub(super) fn broken_at(&self, delegate: DelegateUuid) -> Option<(Hop, Timestamp)> {
        let slot = self.lock().get(&delegate).cloned()?;
        let path = slot.path();
        let path = path.as_deref()?;
        Some((path.broken_at?, path.since))
    }

    pub(super) fn agents(&self, delegate: DelegateUuid) -> (usize, usize) {
        let Some(slot) = self.lock().get(&delegate).cloned() else {
            return (0, 0);
        };
        let path = slot.path();
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        path.as_deref().map_or((0, 0), |path| {
            (count(path.report.agents), count(path.report.silent_agents))
        })
    }

    pub(super) fn probed(&self, delegate: DelegateUuid) -> Option<Probed> {
        let slot = self.lock().get(&delegate).cloned()?;
        let path = slot.path();
        let path = path.as_deref()?;
        if path.report.unsupported_at().is_some() {
            return None;
        }
        Some(Probed {
            at: path.at,
            broken_at: path.broken_at,
        })
    }

    pub(super) fn is_connected(&self, delegate: DelegateUuid) -> bool {
        let slot = self.lock().get(&delegate).cloned();
        slot.is_some_and(|slot| slot.lock().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{IdsExt as _, SequentialIds};
    use wire::control::HopReport;

    #[test]
    fn a_probe_for_which_there_is_no_room_is_refused_and_cuts_no_link() {
        let (registry, delegate) = (Registry::default(), SequentialIds::default().typed());
        let probe = || {
            let (waiter, _report) = tokio::sync::oneshot::channel();
            registry.probe(delegate, waiter)
        };
        assert_eq!(probe(), Err(NotProbed::NotConnected));
        let published = registry.slot(delegate).publish(Epoch(1));
        for _ in 0..MAX_COMMANDS {
            assert_eq!(probe(), Ok(()));
        }
        assert_eq!(probe(), Err(NotProbed::TakesNothing));
        assert!(!published.overrun.is_cancelled());
        let cancel = Command::Send(Down::Cancel {
            task: SequentialIds::default().typed(),
        });
        assert!(!registry.command(delegate, cancel));
        assert!(published.overrun.is_cancelled(), "an order has to get in");
    }

    #[test]
    fn a_list_has_how_the_way_is_without_its_parts() {
        let (registry, delegate) = (Registry::default(), SequentialIds::default().typed());
        let report = ProbeReport {
            hops: vec![HopReport::failed(
                Hop::Docker,
                std::time::Duration::ZERO,
                "no answer",
                None,
            )],
            agents: 3,
            silent_agents: 1,
            ..ProbeReport::default()
        };
        let found = registry.slot(delegate).found(report, Timestamp::UNIX_EPOCH);
        assert_eq!(found, Found::Changed { was: None });
        let brief = registry.brief_data_path(delegate).unwrap();
        assert_eq!(brief.broken_at, Some(Hop::Docker));
        assert_eq!(
            (brief.report.hops, brief.report.silent_agents),
            (Vec::new(), 1)
        );
        let broken = (Hop::Docker, Timestamp::UNIX_EPOCH);
        assert_eq!(registry.broken_at(delegate), Some(broken));
    }
}
