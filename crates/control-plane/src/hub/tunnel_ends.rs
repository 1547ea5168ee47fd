//! Which of the connected delegates open tunnels.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use wire::ids::DelegateUuid;

#[derive(Debug, Default)]
pub(super) struct TunnelEnds {
    inner: Mutex<Inner>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    all: BTreeSet<DelegateUuid>,
    /// Of them, those that nobody has heard of yet.
    fresh: BTreeSet<DelegateUuid>,
}

impl TunnelEnds {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Two sets that are changed by calls which do not panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of it is in. `opens`: whether it opens tunnels; one of an older version may come after a newer one.
    pub(super) fn came(&self, delegate: DelegateUuid, opens: bool) {
        let mut inner = self.lock();
        if opens {
            inner.all.insert(delegate);
            inner.fresh.insert(delegate);
            drop(inner);
            self.came.notify_one();
        } else {
            inner.all.remove(&delegate);
            inner.fresh.remove(&delegate);
        }
    }

    /// It is not connected.
    pub(super) fn gone(&self, delegate: DelegateUuid) {
        self.lock().all.remove(&delegate);
    }

    pub(super) fn all(&self) -> Vec<DelegateUuid> {
        self.lock().all.iter().copied().collect()
    }

    /// Those that came since. Cancel-safe.
    pub(super) async fn fresh(&self) -> Vec<DelegateUuid> {
        loop {
            let fresh = {
                let mut inner = self.lock();
                let fresh = std::mem::take(&mut inner.fresh);
                // That a connection of before is gone may have been seen since it came.
                inner.all.extend(&fresh);
                fresh
            };
            if !fresh.is_empty() {
                return fresh.into_iter().collect();
            }
            self.came.notified().await;
        }
    }
}
