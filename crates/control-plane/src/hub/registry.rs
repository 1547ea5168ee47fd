//! Which delegate is connected, by which connection, and whose turn it is.

use super::{
    epochs::Epochs,
    lives::{Arrival, Life, Lives},
    probing::Waiter,
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

    /// A probe of the live connection found this. The answer is where the way ended before, where that is another part.
    pub(super) fn found(&self, report: ProbeReport, now: Timestamp) -> Option<Option<Hop>> {
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
        (was != broken_at).then_some(was)
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

    pub(super) fn data_path(&self, delegate: DelegateUuid) -> Option<DataPath> {
        let slot = self.lock().get(&delegate).cloned()?;
        slot.path().as_deref().cloned()
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
