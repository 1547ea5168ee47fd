//! `GET /gateways/connect`: the link of a gateway.
//!
//! A snapshot first, then what changes. A connection that cannot keep up with the changes gets a snapshot again: nothing is buffered for it.

use super::{
    Gateway,
    feed::{OpenConnection, Said},
};
use crate::{
    api::error::ApiError,
    orchestrator::{self, Change},
    origins::{Fit, parse_origin},
    state::AppState,
};
use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use std::{collections::HashMap, time::Duration};
use store::{GitspaceRecord, SharedPortRecord, StoreError};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, MissedTickBehavior},
};
use tracing::Instrument as _;
use wire::{
    gateway::{
        FromGateway, MAX_FROM_GATEWAY, Revocation, RevokedSubject, Route, SUBPROTOCOL, ToGateway,
    },
    gitspace::{PortVisibility, SharedPort},
    ids::{DelegateUuid, GatewayUuid, GitspaceUuid},
    problem::Problem,
    shown,
};

const READ_BUFFER: usize = 4 * 1024;
const PING_EVERY: Duration = Duration::from_secs(15);
/// Three pings without any answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);
/// A gateway that does not read for as long is dropped, and comes back to a snapshot.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// The WebSocket of a gateway, with `Authorization: Bearer <gateway token>`.
#[utoipa::path(get, path = "/gateways/connect", tag = "gateways", responses(
    (status = 101, description = "Subprotocol `gitspaces.gateway.v1`."),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
), security(("gateway_token" = [])))]
pub(crate) async fn connect_gateway(
    State(state): State<AppState>,
    Gateway(gateway): Gateway,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade
        .map_err(|error| ApiError::invalid("the request", error.to_string()))?
        .protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::invalid(
            "the subprotocol",
            format!("`{SUBPROTOCOL}` is spoken here"),
        ));
    }
    let span = tracing::info_span!("gateway", id = %gateway.id, name = %gateway.name);
    let jobs = state.jobs.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_FROM_GATEWAY)
        .max_frame_size(MAX_FROM_GATEWAY)
        .on_upgrade(move |socket| {
            let connection = Connection {
                open: state.gateways.open(gateway.id),
                gateway: gateway.id,
                token_hash: gateway.token_hash,
                sent: HashMap::new(),
                takes_tunnels: false,
                state,
                socket,
            };
            jobs.track_future(connection.run().instrument(span))
        }))
}

struct Connection {
    state: AppState,
    socket: WebSocket,
    gateway: GatewayUuid,
    token_hash: store::Hash,
    /// What it knows, to tell it of differences only.
    sent: HashMap<GitspaceUuid, Route>,
    /// It takes tunnels, and so knows that a delegate can be revoked.
    takes_tunnels: bool,
    open: OpenConnection,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the gateway does not read")]
    Stalled,
    #[error("the gateway was silent for too long")]
    Silent,
    #[error("the gateway's token holds no longer")]
    Revoked,
    #[error("the connection broke")]
    Socket {
        #[source]
        source: axum::Error,
    },
    #[error("the gateway sent what cannot be read")]
    Message {
        #[source]
        source: serde_json::Error,
    },
    #[error("the gateway sent a message that is not text")]
    NotText,
    #[error("cannot read what the gateway has to know")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("cannot write a message")]
    Write {
        #[source]
        source: serde_json::Error,
    },
}

impl From<StoreError> for ConnectionError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

/// What a connection waits for.
enum Event {
    Change(Result<Change, RecvError>),
    Revoked(Result<Revocation, RecvError>),
    Received(Option<Result<Message, axum::Error>>),
    Tick,
    Dismissed,
    Stop,
}

impl Connection {
    async fn run(mut self) {
        tracing::info!("Gateway connected");
        match self.serve().await {
            Ok(()) => tracing::info!("Gateway disconnected"),
            Err(error) => {
                tracing::warn!(error = %daemon::ErrorChain(&error), "Gateway dropped");
            }
        }
        let close = Message::Close(Some(CloseFrame {
            code: close_code::AWAY,
            reason: "".into(),
        }));
        // It may be gone: then there is nobody to tell.
        drop(tokio::time::timeout(SEND_LIMIT, self.socket.send(close)).await);
        drop(self.open);
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        // Followed before the snapshot is read: what changes between the two is seen in one of them.
        let mut changes = self.state.orchestrator.changes();
        let mut revocations = self.state.gateways.follow();
        self.snapshot().await?;
        let stop = self.state.stop.clone();
        let dismissed = self.open.dismissed();
        let mut heard = Instant::now();
        let mut ticks = tokio::time::interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => Event::Stop,
                () = dismissed.cancelled() => Event::Dismissed,
                change = changes.recv() => Event::Change(change),
                revocation = revocations.recv() => Event::Revoked(revocation),
                message = self.socket.recv() => Event::Received(message),
                _ = ticks.tick() => Event::Tick,
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Dismissed => return Err(ConnectionError::Revoked),
                Event::Change(Ok(change)) => self.changed(change).await?,
                Event::Revoked(Ok(revocation)) => {
                    if self.takes_tunnels || !is_of_delegate(&revocation) {
                        self.send(&ToGateway::Revoked { revocation }).await?;
                    }
                }
                Event::Change(Err(RecvError::Lagged(_)))
                | Event::Revoked(Err(RecvError::Lagged(_))) => {
                    changes = self.state.orchestrator.changes();
                    revocations = self.state.gateways.follow();
                    self.snapshot().await?;
                    if self.takes_tunnels {
                        self.say_revoked_delegates().await?;
                    }
                }
                // The orchestrator has ended: the stop follows.
                Event::Change(Err(RecvError::Closed)) | Event::Revoked(Err(RecvError::Closed)) => {
                    return Ok(());
                }
                Event::Received(None | Some(Ok(Message::Close(_)))) => return Ok(()),
                Event::Received(Some(Err(source))) => {
                    return Err(ConnectionError::Socket { source });
                }
                Event::Received(Some(Ok(message))) => {
                    heard = Instant::now();
                    self.received(message).await?;
                }
                Event::Tick => {
                    if heard.elapsed() > SILENCE_LIMIT {
                        return Err(ConnectionError::Silent);
                    }
                    let known = self.state.store.gateway_by_hash(&self.token_hash).await?;
                    if known.is_none_or(|known| known.id != self.gateway) {
                        return Err(ConnectionError::Revoked);
                    }
                    self.send_message(Message::Ping(bytes::Bytes::new()))
                        .await?;
                }
            }
        }
    }

    async fn received(&mut self, message: Message) -> Result<(), ConnectionError> {
        match message {
            Message::Text(text) => {
                let said = serde_json::from_str(&text)
                    .map_err(|source| ConnectionError::Message { source })?;
                let (version, said, tunnels) = match said {
                    FromGateway::Hello {
                        version,
                        domain,
                        origin,
                        ssh,
                        tunnels,
                    } => {
                        let said = Said {
                            domain,
                            origin,
                            ssh,
                        };
                        (version, said, tunnels)
                    }
                    FromGateway::Probed { report } => {
                        self.state.gateways.probed(self.gateway, report.bounded());
                        return Ok(());
                    }
                };
                let origins = &self.state.gateway_origins;
                let fit = origins.fit(&said.domain, said.origin.as_deref());
                // An older one says no port.
                if fit != Fit::Origin && (fit == Fit::Other || said.origin.is_some()) {
                    tracing::warn!(
                        serves = said.origin.as_deref().unwrap_or(&said.domain),
                        own = origins.domain(),
                        "Users are not led to this gateway: `gateway_url` names another one"
                    );
                }
                tracing::debug!(version, domain = said.domain, "Gateway said hello");
                let tunnels = tunnels.filter(|url| {
                    let is_origin = parse_origin(url).is_ok();
                    if !is_origin {
                        tracing::warn!(
                            url = %shown::line(url),
                            "A gateway says no URL that tunnels can lead to"
                        );
                    }
                    is_origin
                });
                self.takes_tunnels = tunnels.is_some();
                self.state.gateways.said_hello(self.gateway, said, tunnels);
                if self.takes_tunnels {
                    self.say_revoked_delegates().await?;
                }
                Ok(())
            }
            Message::Binary(_) => Err(ConnectionError::NotText),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Ok(()),
        }
    }

    /// Which of them are revoked is a state, and no event: their lines have no end of their own.
    async fn say_revoked_delegates(&mut self) -> Result<(), ConnectionError> {
        let before = self.state.now_as_stored();
        let all = self.state.store.delegates().await?;
        for delegate in all.into_iter().filter(|record| record.revoked) {
            let revocation = Revocation {
                subject: RevokedSubject::Delegate {
                    delegate: delegate.id,
                },
                before,
            };
            self.send(&ToGateway::Revoked { revocation }).await?;
        }
        Ok(())
    }

    async fn snapshot(&mut self) -> Result<(), ConnectionError> {
        let state = &self.state;
        let records = state.store.live_gitspaces().await?;
        let revocations = state.store.revocations(state.now()).await?;
        let mut shared: HashMap<GitspaceUuid, Vec<SharedPortRecord>> = HashMap::new();
        for port in state.store.all_shared_ports().await? {
            shared.entry(port.gitspace).or_default().push(port);
        }
        let routes: Vec<Route> = records
            .into_iter()
            .map(|record| {
                let own = shared.remove(&record.id).unwrap_or_default();
                route(state, record, own)
            })
            .collect();
        self.sent = routes
            .iter()
            .map(|route| (route.gitspace, route.clone()))
            .collect();
        let snapshot = ToGateway::Snapshot {
            gateway: self.gateway,
            keys: state.grants.public_keys(),
            authorize_url: format!("{}/authorize", state.public.as_str()),
            routes,
            revocations,
            probes: true,
            wakes: state.wakes,
            starts: true,
        };
        self.send(&snapshot).await
    }

    async fn changed(&mut self, change: Change) -> Result<(), ConnectionError> {
        match change {
            Change::Gitspace(id) => self.tell(id).await,
            Change::Delegate(id) => {
                for gitspace in self.on(id) {
                    self.tell(gitspace).await?;
                }
                Ok(())
            }
            Change::Timeline(_) | Change::Log(_) => Ok(()),
        }
    }

    fn on(&self, delegate: DelegateUuid) -> Vec<GitspaceUuid> {
        self.sent
            .values()
            .filter(|route| route.delegate == Some(delegate))
            .map(|route| route.gitspace)
            .collect()
    }

    /// Tells what is different of one gitspace.
    async fn tell(&mut self, id: GitspaceUuid) -> Result<(), ConnectionError> {
        let record = self.state.store.gitspace(id).await?;
        match record.filter(|record| record.deleted.is_none()) {
            None => {
                let Some(gone) = self.sent.remove(&id) else {
                    return Ok(());
                };
                self.send(&ToGateway::RouteGone { slug: gone.slug }).await
            }
            Some(record) => {
                let shared = self.state.store.shared_ports(id).await?;
                let route = route(&self.state, record, shared);
                if self.sent.get(&id) == Some(&route) {
                    return Ok(());
                }
                self.sent.insert(id, route.clone());
                self.send(&ToGateway::Route { route }).await
            }
        }
    }

    async fn send(&mut self, message: &ToGateway) -> Result<(), ConnectionError> {
        let text =
            serde_json::to_string(message).map_err(|source| ConnectionError::Write { source })?;
        self.send_message(Message::Text(text.into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), ConnectionError> {
        match tokio::time::timeout(SEND_LIMIT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(ConnectionError::Socket { source }),
            Err(_) => Err(ConnectionError::Stalled),
        }
    }
}

fn is_of_delegate(revocation: &Revocation) -> bool {
    matches!(revocation.subject, RevokedSubject::Delegate { .. })
}

fn route(state: &AppState, record: GitspaceRecord, shared: Vec<SharedPortRecord>) -> Route {
    let connected = record
        .delegate
        .is_some_and(|id| state.orchestrator.is_connected(id));
    Route {
        gitspace: record.id,
        state: orchestrator::visible_state(&record),
        reachable: orchestrator::is_reachable(&record, connected),
        delegate: record.delegate,
        phase: record.phase,
        error: record.error.map(|failure| failure.to_string()),
        name: record.name.to_string(),
        slug: record.slug,
        owner: record.owner_name,
        shared: shared
            .into_iter()
            .map(|shared| SharedPort {
                port: shared.port,
                visibility: shared.visibility.min(state.max_port_visibility),
            })
            .filter(|shared| shared.visibility > PortVisibility::Private)
            .collect(),
    }
}
