//! The hub: the control plane's end of every delegate's link.
//!
//! `GET /api/v1/delegates/connect`, WebSocket, subprotocols [`SUBPROTOCOLS`]. One task a connection ([`connection`]); the protocol itself is
//! `link::server`, whose shell this is. What delegates say goes to the orchestrator, in order, and is acknowledged when that has stored it.
//! What the orchestrator says goes to the delegate's connection through [`TaskSink`].
//!
//! Invariants:
//! - Every end of a connection has a [`DisconnectCode`], said to the delegate, logged and stored.
//! - A delegate has at most one live connection. A newer one waits until the older is told `superseded` and everything it delivered is
//!   stored; only then is its hello looked at ([`registry`]).
//! - Nothing of a delegate is listened to before its key signed this connection's nonce for our own origin ([`proof`]).
//! - A revoked delegate's connection ends at once, also one that is being greeted meanwhile.
//!
//! It does not: enrol or revoke (the API does, and calls [`HubHandle::revoke`]), or decide anything about tasks.

mod connection;
mod dialect;
mod epochs;
mod greeting;
mod lives;
mod pace;
mod probing;
mod proof;
mod refusals;
mod registry;
mod storing;
mod tunnel_ends;
mod turns;

use crate::{
    api::guard::PeerAddress,
    identity::delegate_keys::{ENROL_AGAIN, Refusal},
    orchestrator::{AssignRefused, OrchestratorHandle, Probed, TaskSink},
    origins::PublicOrigin,
};
use axum::{
    Extension, Json,
    extract::{State, WebSocketUpgrade},
    response::{IntoResponse as _, Response},
    routing::get,
};
use daemon::{Clock, Ids};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use link::Timing;
pub(crate) use pace::Pace;
pub use refusals::RefusedPeer;
use registry::{Command, NotProbed, Registry};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use store::Store;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turns::Turns;
use wire::{
    api::{ClonedDelegate, DataPath, RefusedDelegate},
    control::{DisconnectCode, Down, Epoch, Hop, HopReport, MAX_FRAME, ProbeReport, SUBPROTOCOLS},
    ids::{DelegateUuid, TaskUuid},
    problem::Problem,
    runner::MAX_BODY,
    task::Task,
    tunnel::TunnelOffers,
};

/// Path of the endpoint.
pub(crate) const CONNECT_PATH: &str = "/api/v1/delegates/connect";

/// For a probe and the one before it.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// A delegate says little most of the time; the default of 128 KiB a connection would be most of the memory. A longer frame gets the room it
/// needs for as long as it needs it.
const READ_BUFFER: usize = 768;
const WRITE_BUFFER: usize = 4 * 1024;

/// Delegates' connections, to speak to them. Cheap to clone; exists before the orchestrator, which needs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HubHandle {
    registry: Arc<Registry>,
}

impl HubHandle {
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The delegate's key is not valid any more, and the store says so already: its connection ends at once.
    pub(crate) fn revoke(&self, delegate: DelegateUuid) {
        self.registry.command(
            delegate,
            Command::Close {
                code: DisconnectCode::Revoked,
                reason: "the delegate was revoked".to_owned(),
                hint: Some(ENROL_AGAIN.to_owned()),
            },
        );
    }

    /// The delegate's next key is in use by the process that has the link of `keep`, or none. Another link is not its own.
    pub(crate) fn key_rotated(&self, delegate: DelegateUuid, keep: Option<Epoch>) {
        let Refusal { code, reason, hint } = Refusal::key_rotated();
        self.registry
            .close_other(delegate, keep, Command::Close { code, reason, hint });
    }

    /// What the last probe of its connection found.
    pub(crate) fn data_path(&self, delegate: DelegateUuid) -> Option<DataPath> {
        self.registry.data_path(delegate)
    }

    /// The same without its single parts.
    pub(crate) fn brief_data_path(&self, delegate: DelegateUuid) -> Option<DataPath> {
        self.registry.brief_data_path(delegate)
    }

    /// Where the last probe of its connection found the way broken, and since when it is.
    pub(crate) fn broken_at(&self, delegate: DelegateUuid) -> Option<(Hop, Timestamp)> {
        self.registry.broken_at(delegate)
    }

    /// How many agents there were at the last probe, and how many of them were silent.
    pub(crate) fn agents(&self, delegate: DelegateUuid) -> (usize, usize) {
        self.registry.agents(delegate)
    }

    /// Probes the way through a delegate at once. Nothing where it is not connected.
    pub(crate) async fn probe(&self, delegate: DelegateUuid) -> Option<ProbeReport> {
        let begun = tokio::time::Instant::now();
        let (waiter, report) = oneshot::channel();
        let why = match self.registry.probe(delegate, waiter) {
            Err(NotProbed::NotConnected) => return None,
            Err(NotProbed::TakesNothing) => {
                "the delegate takes nothing of what waits for it".to_owned()
            }
            Ok(()) => match tokio::time::timeout(PROBE_LIMIT, report).await {
                Ok(Ok(report)) => return Some(report),
                // It ended before it took the command.
                Ok(Err(_)) => return None,
                Err(_) => format!("no answer within {} s", PROBE_LIMIT.as_secs()),
            },
        };
        let hop = HopReport::failed(
            Hop::Link,
            begun.elapsed(),
            &why,
            Some("the road to the delegate is slow, or much waits for it"),
        );
        Some(ProbeReport::only(hop, begun.elapsed()))
    }

    /// Why a peer that said to be this delegate was last refused.
    pub(crate) fn refused(&self, delegate: DelegateUuid) -> Option<RefusedDelegate> {
        self.registry.refusals.of(delegate)
    }

    /// Who was refused lately, the newest first.
    pub(crate) fn refused_lately(&self) -> Vec<RefusedPeer> {
        self.registry.refusals.recent()
    }

    /// Waits until delegates that open tunnels have connected, and answers with them.
    pub(crate) async fn tunnel_ends_came(&self) -> Vec<DelegateUuid> {
        self.registry.tunnels.fresh().await
    }

    /// All that open tunnels and have connected.
    pub(crate) fn tunnel_ends(&self) -> Vec<DelegateUuid> {
        self.registry.tunnels.all()
    }

    /// Tells a delegate that opens tunnels where to. Nothing where its connection is gone: it is told at the next one.
    pub(crate) fn offer_tunnels(&self, delegate: DelegateUuid, offers: TunnelOffers) {
        if !self
            .registry
            .command(delegate, Command::Send(Down::Tunnels { offers }))
        {
            self.registry.tunnels.gone(delegate);
        }
    }

    /// Whether two processes were lately seen with this delegate's identity.
    pub(crate) fn cloned(&self, delegate: DelegateUuid, now: Timestamp) -> Option<ClonedDelegate> {
        self.registry.cloned(delegate, now)
    }
}

impl TaskSink for HubHandle {
    fn assign(
        &self,
        delegate: DelegateUuid,
        task: Task,
        limit: Duration,
    ) -> Result<(), AssignRefused> {
        // The runner takes less than the link, and nothing that the link refuses may get as far as that.
        let length = serde_json::to_vec(&task).map_or(usize::MAX, |text| text.len());
        if length > MAX_BODY {
            return Err(AssignRefused::TooLarge {
                length,
                limit: MAX_BODY,
            });
        }
        let body = Down::Assign {
            task: Box::new(task),
            limit_ms: u64::try_from(limit.as_millis()).ok(),
        };
        if self.registry.command(delegate, Command::Send(body)) {
            Ok(())
        } else {
            Err(AssignRefused::NotConnected)
        }
    }

    fn cancel(&self, delegate: DelegateUuid, task: TaskUuid) {
        self.registry
            .command(delegate, Command::Send(Down::Cancel { task }));
    }

    fn is_connected(&self, delegate: DelegateUuid) -> bool {
        self.registry.is_connected(delegate)
    }

    fn probed(&self, delegate: DelegateUuid) -> Option<Probed> {
        self.registry.probed(delegate)
    }
}

/// What a connection needs of the rest.
#[derive(Clone)]
pub(crate) struct HubDeps {
    pub(crate) orchestrator: OrchestratorHandle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    /// The audience of proofs.
    pub(crate) public: PublicOrigin,
    pub(crate) timing: Timing,
    pub(crate) pace: Arc<Pace>,
    /// Cancelled at the stop: delegates are told to dial again later.
    pub(crate) stop: CancellationToken,
    /// Waited for at the stop.
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for HubDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubDeps")
            .field("public", &self.public)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// Handle, dependencies and limits behind the endpoint.
#[derive(Clone, Debug)]
struct Hub {
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    turns: Arc<Turns>,
}

/// The endpoint. Merge it beside the API: it authenticates by proof, not by token.
pub(crate) fn routes(handle: &HubHandle, deps: HubDeps) -> axum::Router {
    let hub = Hub {
        registry: Arc::clone(&handle.registry),
        deps: Arc::new(deps),
        turns: Arc::default(),
    };
    axum::Router::new()
        .route(CONNECT_PATH, get(connect))
        .with_state(hub)
}

async fn connect(
    State(hub): State<Hub>,
    peer: Option<Extension<PeerAddress>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols(SUBPROTOCOLS),
        Err(rejection) => {
            return problem(
                StatusCode::UPGRADE_REQUIRED,
                Problem::new("websocket_required", "this endpoint speaks WebSocket only")
                    .cause(rejection.to_string())
                    .hint("delegates connect here by themselves; nothing else needs to"),
            );
        }
    };
    if upgrade.selected_protocol().is_none() {
        let problem = unsupported(&headers);
        let refusals = &hub.registry.refusals;
        let now = hub.deps.clock.now();
        // It has not said yet which delegate it is.
        refusals.note(None, DisconnectCode::Version, &problem.message, now);
        return self::problem(StatusCode::BAD_REQUEST, problem);
    }
    if hub.deps.stop.is_cancelled() {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::new("stopping", "the control plane is stopping").hint("dial again later"),
        );
    }
    let from = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(peer)| peer.0);
    let turn = match hub.turns.take(from).await {
        Ok(turn) => turn,
        Err(crowded) => {
            return problem(
                StatusCode::SERVICE_UNAVAILABLE,
                Problem::new("overloaded", crowded.to_string()).hint("dial again later"),
            );
        }
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    let tasks = hub.deps.tasks.clone();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(4 * MAX_FRAME)
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| {
            tasks.track_future(connection::run(hub.registry, hub.deps, socket, host, turn))
        })
}

/// Neither side is wrong: they have no version in common, and both hear what the other speaks.
fn unsupported(headers: &HeaderMap) -> Problem {
    let offered: String = headers
        .get(header::SEC_WEBSOCKET_PROTOCOL)
        .and_then(|offered| offered.to_str().ok())
        .unwrap_or("nothing")
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(200)
        .collect();
    let own = SUBPROTOCOLS.join(", ");
    tracing::warn!(
        offered,
        own,
        "A delegate speaks no version that this control plane does"
    );
    Problem::new(
        "unsupported_protocol",
        format!("this control plane speaks `{own}`, and the delegate offers `{offered}`"),
    )
    .hint("upgrade whichever of delegate and control plane is older")
}

fn problem(status: StatusCode, problem: Problem) -> Response {
    (status, Json(problem)).into_response()
}
