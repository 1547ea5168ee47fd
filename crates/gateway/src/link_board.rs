//! How the link to the control plane is, for whoever wants to know.

use jiff::Timestamp;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The link as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkView {
    /// Since when it is up.
    pub up_since: Option<Timestamp>,
    /// Times that it came up.
    pub connections: u64,
    /// Why it was cut last, or could not be made.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct LinkBoard {
    view: Mutex<LinkView>,
    reconnect: Notify,
}

impl LinkBoard {
    pub(crate) fn get(&self) -> LinkView {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn up(&self, now: Timestamp) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.up_since = Some(now);
        view.connections += 1;
    }

    pub(crate) fn down(&self, error: String) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.up_since = None;
        view.last_error = Some(error);
    }

    pub(crate) fn reconnect(&self) {
        self.reconnect.notify_one();
    }

    /// Somebody wants the link made anew.
    pub(crate) async fn asked(&self) {
        self.reconnect.notified().await;
    }
}
