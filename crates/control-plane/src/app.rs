//! Putting the control plane together, and starting it.

use crate::{
    api,
    config::{ConfigError, ControlPlaneConfig},
    gateways::{feed::GatewayFeed, offers},
    hub::{self, HubDeps, HubHandle, Pace},
    identity::{
        bootstrap::Bootstrap,
        credentials::CredentialVault,
        failures::FailureLimiter,
        first_start::{self, FirstStartError},
        grants::{GrantIssuer, GrantKeyError},
        seal::{SealError, SealKey},
        spec::Specs,
    },
    orchestrator::{OrchestratorConfig, OrchestratorError, OrchestratorParts, OrchestratorTask},
    serve::serve,
    state::{AppState, Shared, SharedStore},
    streams::StreamLimit,
    view::ControlPlaneView,
};
use axum::Router;
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Clock, ErrorChain, Exit, Ids, IdsExt as _, Lifecycle};
use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    sync::Arc,
    time::Duration,
};
use store::{GatewayRecord, Store, StoreError};
use store_sql::SqlStore;
use tls_server::Door;
use token::{OpaqueToken, RandomError, TokenKind};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{api::CreateJoinToken, ids::GatewayUuid, secret::Secret};

const DATABASE: &str = "control-plane.db";
const SEAL_KEY: &str = "seal.key";
/// Name of the gateway in the same process.
pub(crate) const EMBEDDED_GATEWAY: &str = "embedded";
/// How often expired rows are dropped.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// Connections that the kernel holds until they are accepted; it takes no more than `net.core.somaxconn` of them.
const BACKLOG: u32 = 4096;

/// What the control plane is given.
#[derive(Debug)]
pub struct Deps {
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    /// Bound already (by the service manager, or to a port of the system's choice); else `listen` of the configuration is bound at the start.
    pub listener: Option<std::net::TcpListener>,
    /// The sealing key (32 bytes in base64url), in place of `seal.key` in the state directory.
    pub seal_key: Option<Secret>,
    /// Without it plain HTTP is served.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the configuration of the control plane is wrong")]
    Config {
        #[source]
        source: ConfigError,
    },
    #[error("cannot make the state directory `{path}`")]
    StateDir {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the control plane's store")]
    Store {
        #[source]
        source: store_sql::OpenError,
    },
    #[error("cannot use the control plane's sealing key")]
    Seal {
        #[source]
        source: SealError,
    },
    #[error("cannot use the key that signs grants")]
    GrantKey {
        #[source]
        source: GrantKeyError,
    },
    #[error("the first start of the control plane failed")]
    FirstStart {
        #[source]
        source: FirstStartError,
    },
    #[error("cannot load what is desired and observed")]
    Orchestrator {
        #[source]
        source: OrchestratorError,
    },
    #[error("cannot describe the API")]
    Describe {
        #[source]
        source: serde_json::Error,
    },
    #[error("the start was interrupted")]
    Interrupted,
}

impl daemon::Hint for BuildError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Config { source } => source.hint(),
            Self::StateDir { path, .. } => Some(format!(
                "let the user of this process write to the directory above `{path}`"
            )),
            Self::GrantKey { .. } => {
                Some("restore `seal.key` and the database from the same backup".to_owned())
            }
            Self::Seal {
                source: SealError::GivenKey,
            } => Some("make one with `openssl rand 32 | basenc --base64url | tr -d =`".to_owned()),
            Self::Store { .. }
            | Self::Seal { .. }
            | Self::FirstStart { .. }
            | Self::Orchestrator { .. }
            | Self::Describe { .. }
            | Self::Interrupted => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Config { .. }
            | Self::GrantKey { .. }
            | Self::Seal {
                source: SealError::GivenKey | SealError::NoKey { .. } | SealError::Exposed { .. },
            } => Exit::Config,
            Self::StateDir { .. }
            | Self::Store { .. }
            | Self::Seal { .. }
            | Self::FirstStart { .. }
            | Self::Orchestrator { .. }
            | Self::Describe { .. }
            | Self::Interrupted => Exit::Failure,
        }
    }
}

/// What a start would find of the sealing key in a state folder; where there is none, one is made then.
///
/// # Errors
/// A start would refuse it.
pub fn look_at_seal_key(state_dir: &Utf8Path) -> Result<(), SealError> {
    let path = state_dir.join(SEAL_KEY);
    if path.exists() {
        // One that is there is only read.
        SealKey::open_or_make(&path).map(drop)
    } else {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the socket that was handed over")]
    Listener {
        #[source]
        source: io::Error,
    },
    #[error("the control plane was started already")]
    Again,
}

impl daemon::Hint for StartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                Some(format!(
                    "is another control plane running? see `ss -ltnp sport = :{}`",
                    address.port()
                ))
            }
            Self::Bind { .. } | Self::Listener { .. } | Self::Again => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Bind { .. } => Exit::Unavailable,
            Self::Listener { .. } | Self::Again => Exit::Failure,
        }
    }
}

/// Why a token for a part of the same process was not made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("cannot store the token")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("cannot make the token")]
    Random {
        #[source]
        source: RandomError,
    },
    #[error("the token was refused: {why}")]
    Refused { why: String },
}

/// What the gateway in the same process connects with.
#[derive(Clone, Debug)]
pub struct EmbeddedGateway {
    pub id: GatewayUuid,
    pub token: Secret,
}

/// A control plane, built and not necessarily started.
#[derive(Debug)]
pub struct ControlPlane {
    state: AppState,
    router: Router,
    listen: SocketAddr,
    /// Taken by the start.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    orchestrator: OrchestratorTask,
    listener: Option<std::net::TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    links: TaskTracker,
}

impl ControlPlane {
    /// Opens the store and the keys, makes what a first start makes, and puts everything together. Binds and spawns nothing.
    ///
    /// # Errors
    /// Says which part failed, and why.
    pub async fn build(config: ControlPlaneConfig, deps: Deps) -> Result<Self, BuildError> {
        let (public, gateway_origins) = config
            .origins()
            .map_err(|source| BuildError::Config { source })?;
        let timing = config
            .timing()
            .map_err(|source| BuildError::Config { source })?;
        let probe_period = config
            .probe_period()
            .map_err(|source| BuildError::Config { source })?;
        let state_dir = config.state_dir.clone();
        let seal =
            tokio::task::spawn_blocking(move || open_state_dir(&state_dir, deps.seal_key.as_ref()))
                .await
                .map_err(|_| BuildError::Interrupted)??;
        let seal = Arc::new(seal);
        let store = SqlStore::open_sqlite(&config.state_dir.join(DATABASE))
            .await
            .map_err(|source| BuildError::Store { source })?;
        let store: Arc<dyn Store> = Arc::new(store);
        let grants = GrantIssuer::open_or_make(&*store, &seal)
            .await
            .map_err(|source| BuildError::GrantKey { source })?;
        let shared_store = SharedStore(Arc::clone(&store));
        let bootstrap = Bootstrap::new(
            shared_store.clone(),
            Arc::clone(&deps.clock),
            Arc::clone(&deps.ids),
            &config.state_dir,
        );
        first_start::make(&*store, &*deps.clock, &*deps.ids, &bootstrap)
            .await
            .map_err(|source| BuildError::FirstStart { source })?;

        let vault = CredentialVault::new(shared_store.clone(), Arc::clone(&seal));
        let hub = HubHandle::new();
        let stop = CancellationToken::new();
        let links = TaskTracker::new();
        let (orchestrator_task, orchestrator) = OrchestratorTask::load(OrchestratorParts {
            store: Arc::clone(&store),
            sink: Arc::new(hub.clone()),
            specs: Arc::new(Specs::new(shared_store.clone(), vault)),
            clock: Arc::clone(&deps.clock),
            ids: Arc::clone(&deps.ids),
            config: OrchestratorConfig::default(),
        })
        .await
        .map_err(|source| BuildError::Orchestrator { source })?;
        let hub_routes = hub::routes(
            &hub,
            HubDeps {
                orchestrator: orchestrator.clone(),
                store,
                clock: Arc::clone(&deps.clock),
                ids: Arc::clone(&deps.ids),
                public: public.clone(),
                timing,
                pace: Pace::new(probe_period),
                stop: stop.clone(),
                tasks: links.clone(),
            },
        );
        let state = AppState::new(Shared {
            clock: deps.clock,
            ids: deps.ids,
            store: shared_store,
            public,
            gateway_origins,
            seal,
            grants,
            wakes: config.wake_on_connect,
            max_port_visibility: config.max_port_visibility,
            bootstrap,
            failures: FailureLimiter::default(),
            orchestrator,
            hub,
            gateways: GatewayFeed::new(),
            streams: StreamLimit::default(),
            stop,
            jobs: TaskTracker::new(),
        });
        let router =
            api::router(&state, hub_routes).map_err(|source| BuildError::Describe { source })?;
        Ok(Self {
            state,
            router,
            listen: config.listen,
            parts: Some(Parts {
                orchestrator: orchestrator_task,
                listener: deps.listener,
                tls: deps.tls,
                links,
            }),
        })
    }

    /// Binds where no listener was given, and spawns what serves, orchestrates and tidies. Answers with the address that is listened on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(&mut self, lifecycle: &Lifecycle) -> Result<SocketAddr, StartError> {
        let parts = self.parts.take().ok_or(StartError::Again)?;
        let bound = match parts.listener {
            Some(listener) => listener,
            None => bind(self.listen).map_err(|source| StartError::Bind {
                address: self.listen,
                source,
            })?,
        };
        let listener = bound
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(bound))
            .map_err(|source| StartError::Listener { source })?;
        let address = listener
            .local_addr()
            .map_err(|source| StartError::Listener { source })?;

        let state = self.state.clone();
        lifecycle.spawn(
            "orchestrator",
            parts.orchestrator.run(
                lifecycle.drain_token(),
                lifecycle.tasks().pulse("orchestrator"),
            ),
        );
        lifecycle.spawn(
            "control plane housekeeping",
            tidy(state.clone(), lifecycle.drain_token()),
        );
        lifecycle.spawn(
            "tunnel offers",
            offers::run(state.clone(), lifecycle.drain_token()),
        );
        let (router, drain, links) = (self.router.clone(), lifecycle.drain_token(), parts.links);
        let door = Door::new(listener, parts.tls);
        lifecycle.spawn("control plane", async move {
            let stop = state.stop.clone();
            let stopping = stop.clone();
            let (served, ()) = tokio::join!(serve(door, router, stop.clone()), async {
                // Streams and links end; then the connections do.
                tokio::select! {
                    () = drain.cancelled() => stopping.cancel(),
                    () = stopping.cancelled() => {}
                }
            });
            for tracker in [&links, &state.jobs] {
                tracker.close();
                tracker.wait().await;
            }
            served
        });
        tracing::info!(%address, url = self.state.public.as_str(), "Control plane listens");
        Ok(address)
    }

    /// How it is, while it serves.
    #[must_use]
    pub fn view(&self) -> ControlPlaneView {
        ControlPlaneView::new(self.state.clone())
    }

    /// Everything that is served, to drive it in the same process.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Public keys that grants are verified with, base64url without padding.
    #[must_use]
    pub fn grant_keys(&self) -> Vec<String> {
        self.state.grants.public_keys()
    }

    /// Origin of the control plane, as users and delegates reach it.
    #[must_use]
    pub fn public_url(&self) -> &str {
        self.state.public.as_str()
    }

    /// `host[:port]` that the gateway serves gitspaces under.
    #[must_use]
    pub fn gateway_domain(&self) -> &str {
        self.state.gateway_origins.domain()
    }

    /// The way in for the first administrator.
    #[must_use]
    pub fn bootstrap(&self) -> Bootstrap {
        self.state.bootstrap.clone()
    }

    /// The gateway in the same process: its id, kept over restarts, and a fresh token.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn embedded_gateway(&self) -> Result<EmbeddedGateway, MintError> {
        let token = OpaqueToken::generate(TokenKind::Gateway)
            .map_err(|source| MintError::Random { source })?;
        let record = self
            .state
            .store
            .put_gateway(&GatewayRecord {
                id: self.state.ids.typed(),
                name: EMBEDDED_GATEWAY.to_owned(),
                token_hash: *token.hash().as_bytes(),
                created: self.state.now(),
            })
            .await
            .map_err(|source| MintError::Store { source })?;
        Ok(EmbeddedGateway {
            id: record.id,
            token: token.to_secret(),
        })
    }

    /// A join token for the delegate in the same process; good for one enrolment as `name` within `life`, and for its return where that delegate
    /// was revoked: whoever owns this process owns its host.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn mint_join_token(
        &self,
        name: &str,
        comment: &str,
        life: Duration,
    ) -> Result<Secret, MintError> {
        let known = self.state.store.delegate_by_name(name).await;
        let known = known.map_err(|source| MintError::Store { source })?;
        let wanted = CreateJoinToken {
            expires_in: Some(u32::try_from(life.as_secs()).unwrap_or(u32::MAX)),
            uses: Some(1),
            comment: Some(comment.to_owned()),
            delegate: known.filter(|known| known.revoked).map(|known| known.name),
        };
        let refused = |why: String| MintError::Refused { why };
        let made = api::delegates::create_join_token::make(&self.state, wanted)
            .await
            .map_err(|error| refused(ErrorChain(&error).to_string()))?;
        made.token
            .ok_or_else(|| refused("it was not shown".to_owned()))
    }
}

/// Every delegate dials within seconds of a restart. A connection that finds the kernel's queue full tries again a second later, then three.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// The state directory, for this user alone, and the sealing key in it.
fn open_state_dir(path: &Utf8Path, seal_key: Option<&Secret>) -> Result<SealKey, BuildError> {
    let failed = |source| BuildError::StateDir {
        path: path.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let mode = std::fs::metadata(path)
        .map_err(failed)?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        tracing::warn!(dir = %path, mode = format!("{:o}", mode & 0o777), "The state directory can be entered by every user of this host");
    }
    match seal_key {
        Some(key) => SealKey::given(key),
        None => SealKey::open_or_make(&path.join(SEAL_KEY)),
    }
    .map_err(|source| BuildError::Seal { source })
}

/// Drops what has expired, from time to time.
async fn tidy(state: AppState, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
    loop {
        match state.store.drop_expired(state.now()).await {
            Ok(dropped) => tracing::debug!(dropped, "Dropped what has expired"),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "Cannot drop what has expired");
            }
        }
        if let Err(error) = state.bootstrap.tidy().await {
            tracing::warn!(error = %ErrorChain(&error), "Cannot tidy up after the bootstrap token");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
    }
}
