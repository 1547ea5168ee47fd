//! Ports of the gitspace that lead to a client (`-R`). They are on the loopback addresses alone, whatever a client asks for: who may reach a
//! port from outside is the gateway's decision.

use super::{channels::Channels, forward};
use crate::agent::Agent;
use ssh_transport::Writer;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Of one client.
const MAX_LISTENERS: usize = 64;
/// After an accept that failed.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Below, a port is root's.
const FIRST_FREE: u16 = 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("a client has at most {MAX_LISTENERS} forwarded ports")]
    TooMany,
    #[error("it is no port")]
    NoPort,
    #[error("ports below {FIRST_FREE} are root's")]
    Reserved,
    #[error("cannot find out who works here: {0}")]
    NoUser(String),
    #[error("cannot listen: {0}")]
    Bind(#[source] io::Error),
}

/// Those of one client; they end with it.
pub(super) struct Listeners {
    agent: Arc<Agent>,
    channels: Channels,
    open: HashMap<(String, u32), DropGuard>,
}

impl Listeners {
    pub(super) fn new(agent: Arc<Agent>, channels: Channels) -> Self {
        Self {
            agent,
            channels,
            open: HashMap::new(),
        }
    }

    /// The port that is listened on: the asked one, or a free one for 0.
    pub(super) fn listen(&mut self, address: &str, port: u32) -> Result<u16, ListenError> {
        if self.open.len() >= MAX_LISTENERS {
            return Err(ListenError::TooMany);
        }
        let port = u16::try_from(port).map_err(|_| ListenError::NoPort)?;
        let (_, account) = self
            .agent
            .remote_user()
            .map_err(|problem| ListenError::NoUser(problem.message))?;
        if (1..FIRST_FREE).contains(&port) && account.uid != 0 {
            return Err(ListenError::Reserved);
        }
        let first =
            bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(ListenError::Bind)?;
        let bound = first.local_addr().map_err(ListenError::Bind)?.port();
        // Where there is no IPv6, nobody comes over it.
        let second = bind(SocketAddr::from((Ipv6Addr::LOCALHOST, bound))).ok();
        let stop = CancellationToken::new();
        for listener in [Some(first), second].into_iter().flatten() {
            let task = Task {
                agent: Arc::clone(&self.agent),
                address: address.to_owned(),
                port: bound.into(),
                channels: self.channels.clone(),
            };
            let stop = stop.clone();
            self.agent.tasks.spawn(async move {
                tokio::select! {
                    () = task.accept(listener) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        self.open
            .insert((address.to_owned(), bound.into()), stop.drop_guard());
        Ok(bound)
    }

    pub(super) fn cancel(&mut self, address: &str, port: u32) -> bool {
        self.open.remove(&(address.to_owned(), port)).is_some()
    }
}

/// At once: nothing is waited for.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

struct Task {
    agent: Arc<Agent>,
    /// As the client said it, who knows the forwarding by it.
    address: String,
    port: u32,
    channels: Channels,
}

impl Task {
    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.open(stream, from),
                // A client that gave up, or a process that has no descriptor left for a while.
                Err(error) => {
                    tracing::warn!(%error, "A forwarded port took no connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, from: SocketAddr) {
        let (channels, address, port) = (self.channels.clone(), self.address.clone(), self.port);
        self.agent.tasks.spawn(async move {
            let about = |message: Writer| {
                message
                    .string(address)
                    .number(port)
                    .string(from.ip().to_string())
                    .number(from.port().into())
            };
            match channels.open("forwarded-tcpip", about).await {
                Ok(channel) => forward::carry(channel, stream).await,
                Err(error) => tracing::debug!(%error, "A client takes no forwarded connection"),
            }
        });
    }
}
