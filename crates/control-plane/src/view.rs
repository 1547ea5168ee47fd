//! How a control plane is, for its operator.

use crate::{hub::RefusedPeer, orchestrator::TaskSink as _, state::AppState};
use serde::Serialize;
use store::StoreError;
use wire::control::Hop;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlPlaneView {
    state: AppState,
}

/// Delegates by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DelegateCounts {
    /// Enrolled and not revoked.
    pub enrolled: usize,
    pub connected: usize,
    /// Connected, and their runners answer.
    pub ready: usize,
    pub draining: usize,
    /// Connected, and the last probe found the way into their gitspaces broken.
    pub broken: usize,
    /// Connected, and of a version that cannot be probed, or not probed yet.
    pub unprobed: usize,
    /// Agents on their hosts at the last probes, and those that did not answer.
    pub agents: usize,
    pub silent_agents: usize,
}

/// A delegate through which no gitspace is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokenPath {
    pub delegate: String,
    pub broken_at: Hop,
    pub since: String,
}

impl ControlPlaneView {
    pub(crate) fn new(state: AppState) -> Self {
        Self { state }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Says why not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.state.store.ping().await
    }

    /// Who was refused lately, the newest first.
    #[must_use]
    pub fn refused_lately(&self) -> Vec<RefusedPeer> {
        self.state.hub.refused_lately()
    }

    #[must_use]
    pub fn delegates(&self) -> DelegateCounts {
        let mut counts = DelegateCounts::default();
        for delegate in self.state.orchestrator.delegates().values() {
            if delegate.revoked {
                continue;
            }
            counts.enrolled += 1;
            counts.connected += usize::from(delegate.connected);
            counts.ready += usize::from(delegate.connected && delegate.runner_ready);
            counts.draining += usize::from(delegate.draining);
            if !delegate.connected {
                continue;
            }
            match self.state.hub.probed(delegate.id) {
                Some(probed) => counts.broken += usize::from(probed.broken_at.is_some()),
                None => counts.unprobed += 1,
            }
            let (agents, silent) = self.state.hub.agents(delegate.id);
            counts.agents += agents;
            counts.silent_agents += silent;
        }
        counts
    }

    /// Where the way into gitspaces is broken, as the last probes found it.
    #[must_use]
    pub fn broken_paths(&self) -> Vec<BrokenPath> {
        let delegates = self.state.orchestrator.delegates();
        let connected = delegates.values().filter(|delegate| delegate.connected);
        connected
            .filter_map(|delegate| {
                let (broken_at, since) = self.state.hub.broken_at(delegate.id)?;
                Some(BrokenPath {
                    delegate: delegate.name.clone(),
                    broken_at,
                    since: since.to_string(),
                })
            })
            .collect()
    }

    /// Tasks that are not finished, as `/tasks` shows them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn open_tasks(&self) -> Result<Vec<OpenTask>, StoreError> {
        let tasks = self.state.store.open_tasks().await?;
        Ok(tasks
            .into_iter()
            .map(|task| OpenTask {
                task: task.id.to_string(),
                gitspace: task.gitspace.to_string(),
                delegate: task.delegate.to_string(),
                kind: task.kind.as_str(),
                attempt: task.attempt,
                created: task.created.to_string(),
                deadline: task.deadline.to_string(),
                trace: task.trace.to_string(),
            })
            .collect())
    }
}

/// A task that is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenTask {
    pub task: String,
    pub gitspace: String,
    pub delegate: String,
    pub kind: &'static str,
    pub attempt: u32,
    pub created: String,
    pub deadline: String,
    pub trace: String,
}
