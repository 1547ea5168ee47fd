//! What every part of the runner has in hand.

use crate::{
    board::Board, config::RunnerConfig, firewall::Firewall, journal::Journal, ledger::Ledger,
    machine::Machine, names::Names, sandbox::Pool,
};
use admin::DrainFile;
use camino::Utf8PathBuf;
use daemon::{Clock, Ids, Tasks};
use std::sync::Arc;
use tokio::sync::{Notify, OnceCell};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RunnerConfig,
    pub(crate) names: Names,
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    pub(crate) board: Board,
    pub(crate) firewall: Firewall,
    pub(crate) pool: Pool,
    pub(crate) agent_copy: AgentCopy,
    pub(crate) drain: DrainFile,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) tasks: Tasks,
    /// Set once the ledger was compared with what Docker holds, since the start.
    pub(crate) compared: OnceCell<()>,
    /// Asks for a comparison before its time.
    pub(crate) compare: Notify,
}

/// The agent that is put into gitspaces: a copy that an upgrade of the package does not change under what runs.
#[derive(Clone, Debug)]
pub(crate) struct AgentCopy {
    /// Folder that is mounted as `/.gitspaces/bin`.
    pub(crate) dir: Utf8PathBuf,
    pub(crate) hash: String,
}
