//! What the tasks publish of themselves, for `/status` and `/readyz`.

use jiff::Timestamp;
use link::client::Stage;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use wire::{
    control::{DisconnectCode, ProbeReport},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
};

/// The link.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkStatus {
    pub state: Stage,
    pub control_plane: String,
    pub delegate: Option<DelegateUuid>,
    pub epoch: Option<u64>,
    pub connected_since: Option<Timestamp>,
    /// Times that it became live.
    pub connections: u64,
    /// Failed tries in a row.
    pub attempt: u32,
    pub next_try: Option<Timestamp>,
    pub last_error: Option<LastError>,
    /// The server's clock minus ours, at the last greeting.
    pub clock_skew_ms: Option<i64>,
    pub waiting_control: usize,
    pub waiting_bulk: usize,
    pub in_flight: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastError {
    /// Of the link's end, the same as the control plane shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<DisconnectCode>,
    pub message: String,
    pub hint: Option<String>,
    pub at: Timestamp,
}

/// The runner, as the watch sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunnerStatus {
    /// `None` before it was asked.
    pub ready: Option<bool>,
    pub last_error: Option<LastError>,
    pub gitspaces: usize,
}

/// A task whose events are carried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskView {
    pub gitspace: GitspaceUuid,
    pub sent_seq: u64,
}

/// Where each task publishes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    pub link: Arc<watch::Sender<LinkStatus>>,
    pub runner: Arc<watch::Sender<RunnerStatus>>,
    pub tasks: Arc<watch::Sender<BTreeMap<TaskUuid, TaskView>>>,
    /// What the last probe found, and when.
    pub probe: Arc<watch::Sender<Option<(Timestamp, ProbeReport)>>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            link: Arc::new(watch::Sender::new(LinkStatus::default())),
            runner: Arc::new(watch::Sender::new(RunnerStatus::default())),
            tasks: Arc::new(watch::Sender::new(BTreeMap::new())),
            probe: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Board {
    /// Publishes where something changed.
    pub fn update_link(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.link.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}
