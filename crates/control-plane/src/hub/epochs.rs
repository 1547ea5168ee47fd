//! Epochs of connections, counted up in the store: those that are asked for while the disk is waited for are one transaction.
//!
//! No task of its own: whoever comes first does it for all that wait, and the others find theirs done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use store::{Store, StoreError};
use tokio::sync::{Mutex as TurnMutex, oneshot};
use wire::{control::Epoch, ids::DelegateUuid};

/// In one transaction. Those behind them wait for the next.
const MAX_TOGETHER: usize = 1024;

type Answer = Result<Option<Epoch>, StoreError>;

#[derive(Debug, Default)]
pub(super) struct Epochs {
    waiting: Mutex<Vec<(DelegateUuid, oneshot::Sender<Answer>)>>,
    turn: TurnMutex<()>,
}

impl Epochs {
    fn lock(&self) -> MutexGuard<'_, Vec<(DelegateUuid, oneshot::Sender<Answer>)>> {
        // Entries are added and taken whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one of this delegate, stored; `None` where there is no such delegate or it is revoked.
    pub(super) async fn next(&self, store: &dyn Store, delegate: DelegateUuid) -> Answer {
        let (sender, mut answer) = oneshot::channel();
        self.lock().push((delegate, sender));
        loop {
            {
                let _turn = self.turn.lock().await;
                if let Ok(answer) = answer.try_recv() {
                    return answer;
                }
                self.count(store).await;
            }
            // Whoever had taken it may have been dropped half-way; an epoch that is skipped does no harm.
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => {
                    let (sender, again) = oneshot::channel();
                    answer = again;
                    self.lock().push((delegate, sender));
                }
            }
        }
    }

    async fn count(&self, store: &dyn Store) {
        let (ids, askers): (Vec<_>, Vec<_>) = {
            let mut waiting = self.lock();
            let many = waiting.len().min(MAX_TOGETHER);
            waiting.drain(..many).unzip()
        };
        match store.next_epochs(&ids).await {
            Ok(epochs) => {
                for (asker, epoch) in askers.into_iter().zip(epochs) {
                    // Who asked may have gone.
                    drop(asker.send(Ok(epoch)));
                }
            }
            Err(error) => {
                for asker in askers {
                    drop(asker.send(Err(error.clone())));
                }
            }
        }
    }
}
