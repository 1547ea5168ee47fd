//! Which delegate is connected, by which connection, and whose turn it is.

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
    control::{ByeCode, Down, Epoch},
    ids::{DelegateUuid, StreamUuid},
};

/// Commands that wait for a connection's task. It takes them as fast as the link's own queue has room; one more is a delegate that does not
/// read, and its connection ends.
const MAX_COMMANDS: usize = 1024;

/// To a connection's task.
#[derive(Debug)]
pub(super) enum Command {
    Send(Down),
    Close {
        code: ByeCode,
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
    commands: mpsc::Sender<Command>,
    overrun: tokio_util::sync::CancellationToken,
}

/// One delegate.
#[derive(Debug, Default)]
pub(super) struct Slot {
    latest: AtomicU64,
    live: Mutex<Option<Live>>,
    turn: Arc<TurnMutex<Memory>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        // One value that is replaced whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of `epoch` has proved its key: the older one is sent away, and its end is waited for.
    pub(super) async fn take_turn(&self, epoch: Epoch) -> OwnedMutexGuard<Memory> {
        self.latest.fetch_max(epoch.0, Ordering::AcqRel);
        self.close(
            ByeCode::Superseded,
            "another connection of this delegate came in",
            Some(
                "two processes use one identity: if the host was cloned, remove the delegate's state directory on the clone and enrol it",
            ),
        );
        Arc::clone(&self.turn).lock_owned().await
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
        }
    }

    fn close(&self, code: ByeCode, reason: &str, hint: Option<&str>) {
        self.command(Command::Close {
            code,
            reason: reason.to_owned(),
            hint: hint.map(str::to_owned),
        });
    }

    fn command(&self, command: Command) -> bool {
        let live = self.lock();
        let Some(live) = live.as_ref() else {
            return false;
        };
        match live.commands.try_send(command) {
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
    pub(super) commands: mpsc::Receiver<Command>,
    /// Cancelled when a command did not fit.
    pub(super) overrun: tokio_util::sync::CancellationToken,
}

/// Every delegate that has proved its key in the life of this process.
#[derive(Debug, Default)]
pub(super) struct Registry {
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

    pub(super) fn is_connected(&self, delegate: DelegateUuid) -> bool {
        let slot = self.lock().get(&delegate).cloned();
        slot.is_some_and(|slot| slot.lock().is_some())
    }
}
