//! The port: accepts, owns every session's task, and lets the sweeper look at them.

use super::{board::Board, session};
use crate::{
    endpoint::Endpoint,
    gateway::{Shared, set_options},
    live::SWEEP_PERIOD,
};
use daemon::Pulse;
use ssh_transport::{Agreements, HostKey};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

/// What this side calls itself.
pub(super) const SOFTWARE: &str = "Gitspaces";
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every session works with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) host_key: Arc<HostKey>,
    pub(crate) agreements: Agreements,
    /// Whether an access token is taken as a password.
    pub(crate) passwords: bool,
    pub(crate) board: Arc<Board>,
}

enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Ended,
    Look,
    Drain,
}

pub(crate) async fn serve(
    service: Arc<Service>,
    listener: std::net::TcpListener,
    drain: CancellationToken,
    mut pulse: Pulse,
) -> io::Result<()> {
    let mut listener = Some(TcpListener::from_std(listener)?);
    // Dropping it, as a kill does, ends every session.
    let mut sessions = JoinSet::new();
    let mut ticks = tokio::time::interval(SWEEP_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut voided = service.shared.known.voided();
    loop {
        let event = tokio::select! {
            accepted = accept(listener.as_ref()) => Event::Accepted(accepted),
            Some(_) = sessions.join_next() => Event::Ended,
            _ = ticks.tick() => Event::Look,
            Ok(()) = voided.changed() => Event::Look,
            () = drain.cancelled(), if listener.is_some() => Event::Drain,
            never = pulse.beat() => match never {},
        };
        match event {
            Event::Accepted(Ok((stream, peer))) => admit(&service, &mut sessions, stream, peer),
            Event::Accepted(Err(error)) => {
                // A client that gave up before it was accepted is no reason to wait.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) {
                    tracing::warn!(%error, "Cannot accept an SSH connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            Event::Ended => {}
            Event::Look => service
                .board
                .sweep(&service.shared.known, service.shared.clock.now()),
            Event::Drain => {
                listener = None;
                service.board.end_strangers();
            }
        }
        if listener.is_none() && sessions.is_empty() {
            return Ok(());
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn admit(service: &Arc<Service>, sessions: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = set_options(&stream) {
        // It was reset meanwhile: reading it says so.
        tracing::debug!(%error, "Cannot set a client socket's options");
    }
    match service.board.enter(peer.ip().to_canonical()) {
        Ok(place) => {
            sessions.spawn(session::run(Arc::clone(service), place, stream, peer));
        }
        Err(crowded) => tracing::debug!(%peer, %crowded, "An SSH connection was turned away"),
    }
}
