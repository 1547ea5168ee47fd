//! What every handler needs, behind one cheap clone.

use crate::{
    gateways::feed::GatewayFeed,
    hub::HubHandle,
    identity::{
        bootstrap::Bootstrap, failures::FailureLimiter, grants::GrantIssuer, seal::SealKey,
    },
    orchestrator::OrchestratorHandle,
    origins::{GatewayOrigins, PublicOrigin},
    streams::StreamLimit,
};
use daemon::{Clock, Ids};
use jiff::Timestamp;
use std::{ops::Deref, sync::Arc};
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::gitspace::PortVisibility;

#[derive(Clone, Debug)]
pub(crate) struct AppState(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) store: SharedStore,
    pub(crate) public: PublicOrigin,
    pub(crate) gateway_origins: GatewayOrigins,
    pub(crate) seal: Arc<SealKey>,
    pub(crate) grants: GrantIssuer,
    /// Whether whoever comes to a gitspace that does not run starts it.
    pub(crate) wakes: bool,
    /// The most that a port of a gitspace may be shared.
    pub(crate) max_port_visibility: PortVisibility,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) failures: FailureLimiter,
    pub(crate) orchestrator: OrchestratorHandle,
    pub(crate) hub: HubHandle,
    pub(crate) gateways: GatewayFeed,
    pub(crate) streams: StreamLimit,
    /// Cancelled at the stop: streams end.
    pub(crate) stop: CancellationToken,
    /// Requests that have to be finished although their client went away.
    pub(crate) jobs: TaskTracker,
}

impl AppState {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// For what is compared with what the store keeps: to the microsecond.
    pub(crate) fn now_as_stored(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The store, with a `Debug` that says nothing.
#[derive(Clone)]
pub(crate) struct SharedStore(pub(crate) Arc<dyn Store>);

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedStore")
    }
}

impl Deref for SharedStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
