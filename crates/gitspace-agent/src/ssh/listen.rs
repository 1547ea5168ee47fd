//! Ports of the gitspace that lead to a client (`-R`). They are on the loopback addresses alone, whatever a client asks for: who may reach a
//! port from outside is the gateway's decision.

use super::forward;
use crate::agent::Agent;
use russh::server::Handle;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Of one client.
const MAX_LISTENERS: usize = 64;
/// Below, a port is root's.
const FIRST_FREE: u16 = 1024;

/// One of the channels that a client may have open.
pub(super) type Place = OwnedSemaphorePermit;

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
    open: HashMap<(String, u32), DropGuard>,
}

impl Listeners {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            open: HashMap::new(),
        }
    }

    /// The port that is listened on: the asked one, or a free one for 0.
    pub(super) async fn listen(
        &mut self,
        address: &str,
        port: u32,
        handle: Handle,
        channels: &Arc<Semaphore>,
    ) -> Result<u16, ListenError> {
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
        let first = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .map_err(ListenError::Bind)?;
        let bound = first.local_addr().map_err(ListenError::Bind)?.port();
        // Where there is no IPv6, nobody comes over it.
        let second = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, bound)))
            .await
            .ok();
        let stop = CancellationToken::new();
        for listener in [Some(first), second].into_iter().flatten() {
            let task = Task {
                agent: Arc::clone(&self.agent),
                address: address.to_owned(),
                port: bound.into(),
                handle: handle.clone(),
                channels: Arc::clone(channels),
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

struct Task {
    agent: Arc<Agent>,
    /// As the client said it, who knows the forwarding by it.
    address: String,
    port: u32,
    handle: Handle,
    channels: Arc<Semaphore>,
}

impl Task {
    async fn accept(self, listener: TcpListener) {
        loop {
            // Whoever is one too many waits in the queue of the socket.
            let Ok(place) = Arc::clone(&self.channels).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, from)) => self.open(stream, from, place),
                Err(error) => {
                    tracing::warn!(%error, "A forwarded port takes no connection");
                    return;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, from: SocketAddr, place: Place) {
        let (handle, address, port) = (self.handle.clone(), self.address.clone(), self.port);
        self.agent.tasks.spawn(async move {
            let opened = handle
                .channel_open_forwarded_tcpip(
                    address,
                    port,
                    from.ip().to_string(),
                    u32::from(from.port()),
                )
                .await;
            match opened {
                Ok(channel) => forward::carry(channel, stream).await,
                Err(error) => tracing::debug!(%error, "A client takes no forwarded connection"),
            }
            drop(place);
        });
    }
}
