//! The listener: accepts connections, owns their tasks, and lets the sweeper look at them.

use crate::{
    Dial, GatewayConfig, GatewayError, Listen, SshConfig, SshView,
    codes::Codes,
    connection::{Carrier, Connection},
    control,
    endpoint::Endpoint,
    judge::Client,
    known::Known,
    link_board::{LinkBoard, LinkView},
    live::{Census, SWEEP_PERIOD},
    pool::Pool,
    probe::{self, ProbeBoard},
    renewal,
    site::Domain,
    ssh,
    tunnels::{self, Joining, Served, Tunnels, TunnelsView},
    wake::Waking,
    ways::Ways,
};
use daemon::{Clock, Lifecycle, Pulse};
use jiff::Timestamp;
use nix::sys::socket::{setsockopt, sockopt};
use ssh_transport::{Agreements, HostKey};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tls_server::{Door, Incoming};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use wire::{control::ProbeReport, gateway::SshEndpoint};

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of a client's socket: a host that is gone is noticed after about two minutes.
const KEEPALIVE_IDLE_S: u32 = 60;
const KEEPALIVE_PERIOD_S: u32 = 20;
const KEEPALIVE_PROBES: u32 = 3;

/// What every connection works with.
pub(crate) struct Shared {
    pub(crate) domain: Domain,
    pub(crate) known: Known,
    pub(crate) ways: Ways,
    /// `None` where it takes none.
    pub(crate) tunnels: Option<Arc<Tunnels>>,
    /// Where delegates open them, for the control plane.
    pub(crate) tunnel_url: Option<String>,
    pub(crate) pool: Pool,
    pub(crate) census: Census,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) codes: Codes,
    pub(crate) waking: Waking,
    pub(crate) link: LinkBoard,
    pub(crate) probe: ProbeBoard,
    pub(crate) ssh: Arc<ssh::Board>,
    /// Where SSH is taken, for the control plane.
    pub(crate) ssh_endpoint: Option<SshEndpoint>,
    draining: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// A gateway that listens and does not serve yet.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    address: SocketAddr,
    ssh: Option<Ssh>,
    joined: Option<mpsc::Receiver<Joining>>,
}

/// The port for SSH, bound.
#[derive(Debug)]
struct Ssh {
    listener: std::net::TcpListener,
    address: SocketAddr,
    host_key: Arc<HostKey>,
    agreements: Agreements,
    passwords: bool,
}

impl Gateway {
    /// Checks the configuration and opens the port. `local` leads to the gitspaces of this host, where there are any.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn build(
        config: GatewayConfig,
        local: Option<Arc<dyn Dial>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GatewayError> {
        let (domain, endpoint) = config.parts()?;
        let endpoint = Arc::new(endpoint);
        let failed = |address, source| GatewayError::Listen { address, source };
        let (listener, address) = listen(config.listen, failed)?;
        let public_port = config.ssh.as_ref().and_then(|ssh| ssh.public_port);
        let ssh = config.ssh.map(Ssh::open).transpose()?;
        let ssh_endpoint = ssh.as_ref().and_then(|ssh| {
            Some(SshEndpoint {
                host: domain.name().to_owned(),
                port: public_port.unwrap_or(ssh.address.port()),
                host_key: ssh.host_key.public()?,
            })
        });
        let tunnel_url = config.tunnels.map(|url| url.origin().ascii_serialization());
        let (tunnels, joined) = tunnel_url.as_ref().map(|_| Tunnels::new()).unzip();
        let tunnels = tunnels.map(Arc::new);
        Ok(Self {
            joined,
            shared: Arc::new(Shared {
                domain,
                known: Known::default(),
                ways: Ways::new(local, tunnels.clone()),
                tunnels,
                tunnel_url,
                pool: Pool::default(),
                census: Census::new(clock.clone()),
                clock,
                codes: Codes::new(endpoint.clone()),
                waking: Waking::new(endpoint.clone()),
                link: LinkBoard::default(),
                probe: ProbeBoard::default(),
                ssh: Arc::default(),
                ssh_endpoint,
                draining: AtomicBool::new(false),
            }),
            endpoint,
            listener,
            tls: config.tls,
            address,
            ssh,
        })
    }

    /// Where it listens, for a port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for SSH.
    #[must_use]
    pub fn ssh_addr(&self) -> Option<SocketAddr> {
        self.ssh.as_ref().map(|ssh| ssh.address)
    }

    /// How it is, while it serves.
    #[must_use]
    pub fn view(&self) -> GatewayView {
        GatewayView(Arc::clone(&self.shared))
    }

    /// Starts its tasks. Must be called inside a tokio runtime.
    pub fn start(self, lifecycle: &Lifecycle) {
        let drain = lifecycle.drain_token();
        let pulse = lifecycle.tasks().pulse("gateway-listener");
        let (serves, served) = mpsc::channel(1);
        let serve = serve(
            self.shared.clone(),
            (self.listener, self.tls),
            drain.clone(),
            pulse,
        );
        lifecycle.spawn("gateway-listener", hold(serves.clone(), serve));
        if let Some(ssh) = self.ssh {
            let service = Arc::new(ssh::Service {
                shared: Arc::clone(&self.shared),
                endpoint: Arc::clone(&self.endpoint),
                host_key: ssh.host_key,
                agreements: ssh.agreements,
                passwords: ssh.passwords,
                board: Arc::clone(&self.shared.ssh),
            });
            let pulse = lifecycle.tasks().pulse("gateway-ssh");
            let serve = ssh::serve(service, ssh.listener, drain.clone(), pulse);
            lifecycle.spawn("gateway-ssh", hold(serves, serve));
        }
        if let (Some(tunnels), Some(joined)) = (&self.shared.tunnels, self.joined) {
            let run = tunnels::run(
                Arc::clone(&self.shared),
                Arc::clone(tunnels),
                joined,
                served,
            );
            lifecycle.spawn("gateway-tunnels", run);
        }
        lifecycle.spawn(
            "gateway-renewal",
            renewal::run(
                Arc::clone(&self.shared),
                Arc::clone(&self.endpoint),
                drain.clone(),
            ),
        );
        lifecycle.spawn(
            "gateway-probe",
            probe::run(Arc::clone(&self.shared), drain.clone()),
        );
        lifecycle.spawn(
            "gateway-control",
            control::run(self.shared, self.endpoint, drain),
        );
    }
}

/// How a gateway is, for its operator. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayView(Arc<Shared>);

impl GatewayView {
    /// The link to the control plane.
    #[must_use]
    pub fn link(&self) -> LinkView {
        self.0.link.get()
    }

    /// Gitspaces that it knows a way to.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.0.known.read().routes.len()
    }

    /// Open connections of clients.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.census.len()
    }

    /// What tunnels there are; `None` where it takes none.
    #[must_use]
    pub fn tunnels(&self) -> Option<TunnelsView> {
        self.0.tunnels.as_ref().map(|tunnels| tunnels.view())
    }

    /// What its SSH does; `None` where it is off.
    #[must_use]
    pub fn ssh(&self) -> Option<SshView> {
        self.0.ssh_endpoint.as_ref().map(|_| self.0.ssh.view())
    }

    /// What the last probe of the way into gitspaces found, and when.
    #[must_use]
    pub fn probe(&self) -> Option<(Timestamp, ProbeReport)> {
        self.0.probe.get()
    }

    /// Makes the link to the control plane anew.
    pub fn reconnect(&self) {
        self.0.link.reconnect();
    }
}

impl Ssh {
    fn open(config: SshConfig) -> Result<Self, GatewayError> {
        let host_key = ssh::load_or_make(&config.host_key)?;
        let failed = |address, source| GatewayError::SshListen { address, source };
        let (listener, address) = listen(config.listen, failed)?;
        Ok(Self {
            listener,
            address,
            host_key: Arc::new(host_key),
            agreements: if config.post_quantum_only {
                Agreements::PostQuantum
            } else {
                Agreements::All
            },
            passwords: config.passwords,
        })
    }
}

fn listen(
    listen: Listen,
    error: fn(String, io::Error) -> GatewayError,
) -> Result<(std::net::TcpListener, SocketAddr), GatewayError> {
    let failed = |address: String| move |source| error(address, source);
    let (listener, name) = match listen {
        Listen::Address(address) => {
            let name = address.to_string();
            let listener = std::net::TcpListener::bind(address).map_err(failed(name.clone()))?;
            (listener, name)
        }
        Listen::Listener(listener) => (listener, "the socket that was passed".to_owned()),
    };
    listener
        .set_nonblocking(true)
        .map_err(failed(name.clone()))?;
    let address = listener.local_addr().map_err(failed(name))?;
    Ok((listener, address))
}

async fn hold<T>(serves: Served, task: impl Future<Output = T>) -> T {
    let _serves = serves;
    task.await
}

enum Event {
    Accepted(io::Result<(Incoming, SocketAddr)>),
    Ended,
    Tick,
    Voided,
    Drain,
}

async fn serve(
    shared: Arc<Shared>,
    (listener, tls): (std::net::TcpListener, Option<Arc<rustls::ServerConfig>>),
    drain: CancellationToken,
    mut pulse: Pulse,
) -> io::Result<()> {
    let mut door = Some(Door::new(TcpListener::from_std(listener)?, tls));
    // Dropping it, as a kill does, ends every connection.
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(SWEEP_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut voided = shared.known.voided();
    loop {
        let is_open = door.is_some();
        let open = door.as_mut().filter(|_| shared.census.has_room());
        let event = tokio::select! {
            accepted = accept(open) => Event::Accepted(accepted),
            Some(_) = connections.join_next() => Event::Ended,
            _ = ticks.tick() => Event::Tick,
            Ok(()) = voided.changed() => Event::Voided,
            () = drain.cancelled(), if is_open => Event::Drain,
            never = pulse.beat() => match never {},
        };
        match event {
            Event::Accepted(Ok((incoming, peer))) => {
                if let Err(error) = set_options(incoming.socket()) {
                    // It was reset meanwhile: reading it says so.
                    tracing::debug!(%error, "Cannot set a client socket's options");
                }
                match incoming {
                    Incoming::Plain(stream) => admit(&shared, &mut connections, stream, peer),
                    Incoming::Tls(stream) => admit(&shared, &mut connections, stream, peer),
                }
            }
            Event::Accepted(Err(error)) => {
                // A client that gave up before it was accepted is no reason to wait.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) {
                    tracing::warn!(%error, "Cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            Event::Ended => {}
            Event::Tick => {
                shared.census.sweep(&shared.known);
                shared.pool.sweep(shared.census.now_ms());
                if door.is_none() {
                    shared.census.end_waiting();
                }
            }
            Event::Voided => shared.census.sweep(&shared.known),
            Event::Drain => {
                door = None;
                shared.draining.store(true, Ordering::Relaxed);
                shared.pool.close();
                shared.census.end_waiting();
            }
        }
        if door.is_none() && connections.is_empty() {
            return Ok(());
        }
    }
}

async fn accept(door: Option<&mut Door>) -> io::Result<(Incoming, SocketAddr)> {
    match door {
        Some(door) => door.next().await,
        None => std::future::pending().await,
    }
}

fn admit<S: Carrier>(
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    stream: S,
    peer: SocketAddr,
) {
    let live = shared.census.newcomer();
    let client = Client::new(peer.ip(), shared.domain.scheme());
    let connection = Connection::new(shared.clone(), live.clone(), stream, client);
    let handle = connections.spawn(connection.run());
    shared.census.enter(peer.ip(), live, handle);
}

pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_PERIOD_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(())
}
