//! Dialling: a connected socket for the caller, handed over, so that user bytes do not pass through this process.

use crate::{
    agent::{Agent, lock},
    clock, ports, ssh, workspace,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use local_rpc::{
    fd,
    server::{self, Body, PendingUpgrade, RequestError},
};
use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::{TcpStream, UnixStream};
use wire::{
    agent::ListeningPort,
    problem::Problem,
    runner::{DIAL_PROTOCOL, DialTarget, STREAM_HEADER},
};

/// A connection to the same network namespace is made or refused at once; only a full queue takes longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Local ports remembered for counting what is still open.
const MAX_REMEMBERED: usize = 4096;
/// The byte that goes with the descriptor says nothing.
const FD_BYTE: u8 = 0;

/// What was dialled, for the activity report.
#[derive(Debug, Default)]
pub(crate) struct Dialled {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Timestamp>,
    /// Our ends of the connections that were handed over. They stay in the tables of this network namespace.
    local_ports: HashSet<u16>,
    workspaces: u32,
}

impl Dialled {
    pub(crate) fn last(&self) -> Option<Timestamp> {
        lock(&self.state).last
    }

    fn note(&self, local_port: Option<u16>) {
        let mut state = lock(&self.state);
        state.last = Some(clock::now());
        if state.local_ports.len() < MAX_REMEMBERED {
            state.local_ports.extend(local_port);
        }
    }

    /// How many of the connections are still open.
    pub(crate) async fn open(&self) -> u32 {
        let established = ports::established_local_ports().await;
        let mut state = lock(&self.state);
        state.local_ports.retain(|port| established.contains(port));
        u32::try_from(state.local_ports.len())
            .unwrap_or(u32::MAX)
            .saturating_add(state.workspaces)
    }

    pub(crate) fn workspace_opened(&self) {
        let mut state = lock(&self.state);
        state.last = Some(clock::now());
        state.workspaces += 1;
    }

    pub(crate) fn workspace_closed(&self) {
        let mut state = lock(&self.state);
        state.last = Some(clock::now());
        state.workspaces = state.workspaces.saturating_sub(1);
    }
}

pub(crate) async fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    let target: Option<DialTarget> = server::query_value(request.uri(), "target")?;
    let Some(target) = target else {
        return Ok(server::problem(
            StatusCode::BAD_REQUEST,
            &Problem::new(
                "invalid_query",
                "`target` is missing: a port, `workspace` or `ssh`",
            ),
        ));
    };
    let upgrade = server::prepare_upgrade(&mut request, DIAL_PROTOCOL)?;
    match target {
        DialTarget::Port(port) => match connect(port).await {
            Ok(stream) => {
                agent
                    .dialled
                    .note(stream.local_addr().ok().map(|address| address.port()));
                Ok(hand_over(
                    agent,
                    upgrade,
                    stream.into_std().map(OwnedFd::from),
                ))
            }
            Err(error) => Ok(refused(agent, port, &error).await),
        },
        DialTarget::Workspace | DialTarget::Ssh => {
            let (ours, theirs) = match UnixStream::pair() {
                Ok(pair) => pair,
                Err(error) => return Ok(internal(&error)),
            };
            let shared = Arc::clone(agent);
            if target == DialTarget::Ssh {
                agent.ssh_sessions.spawn(ssh::serve(shared, ours));
            } else {
                agent.tasks.spawn(workspace::serve(shared, ours));
            }
            Ok(hand_over(
                agent,
                upgrade,
                theirs.into_std().map(OwnedFd::from),
            ))
        }
    }
}

/// Answers `101`; the descriptor follows.
fn hand_over(
    agent: &Arc<Agent>,
    upgrade: PendingUpgrade,
    fd: io::Result<OwnedFd>,
) -> Response<Body> {
    let fd = match fd {
        Ok(fd) => fd,
        Err(error) => return internal(&error),
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_static(STREAM_HEADER),
        HeaderValue::from_static("fd"),
    );
    let response = upgrade.response(headers);
    agent.tasks.spawn(async move {
        match upgrade.stream().await {
            Ok(upgraded) => {
                if let Err(error) = fd::send_fd(&upgraded.stream, fd, FD_BYTE).await {
                    tracing::debug!(%error, "A dialled connection was not taken");
                }
            }
            Err(error) => tracing::debug!(%error, "A dialled connection was not taken"),
        }
    });
    response
}

/// Over IPv4, then over IPv6: a server may listen on either loopback address alone.
pub(crate) async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            // The kernel may join a socket to itself where nobody listens on a port of the ephemeral range.
            Ok(Ok(stream)) if stream.local_addr().ok() == stream.peer_addr().ok() => {}
            Ok(Ok(stream)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "A dialled connection stays without TCP_NODELAY");
                }
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // Without IPv6 there is no such address; what IPv4 said is the news.
            Ok(Err(_)) if address.is_ipv6() => {}
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

async fn refused(agent: &Arc<Agent>, port: u16, error: &io::Error) -> Response<Body> {
    if error.kind() != io::ErrorKind::ConnectionRefused {
        return server::problem(
            StatusCode::BAD_GATEWAY,
            &Problem::new("port_unreachable", format!("port {port} does not answer"))
                .cause(error.to_string())
                .hint("is the app overloaded? see its output"),
        );
    }
    let listening = ports::listening(agent).await;
    server::problem(StatusCode::BAD_GATEWAY, &port_closed(port, &listening))
}

fn port_closed(port: u16, listening: &[ListeningPort]) -> Problem {
    const SHOWN: usize = 20;
    let words: Vec<String> = listening
        .iter()
        .take(SHOWN)
        .map(|open| match &open.process {
            Some(process) => format!("{} ({process} on {})", open.port, open.address),
            None => format!("{} (on {})", open.port, open.address),
        })
        .collect();
    let what = if words.is_empty() {
        "nothing in the gitspace listens on any port".to_owned()
    } else {
        format!("listening are: {}", words.join(", "))
    };
    Problem::new(
        "port_closed",
        format!("nothing listens on port {port}; {what}"),
    )
    .hint("start the app, or open one of the ports that listen")
}

fn internal(error: &io::Error) -> Response<Body> {
    server::problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        &Problem::new("internal", "the connection cannot be made").cause(error.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_names_what_does_listen() {
        let open = ListeningPort {
            port: 3000,
            address: "127.0.0.1".to_owned(),
            process: Some("node".to_owned()),
            pid: Some(7),
            forwarded: false,
        };
        let problem = port_closed(3001, &[open]);
        assert_eq!(
            problem.message,
            "nothing listens on port 3001; listening are: 3000 (node on 127.0.0.1)"
        );
    }
}
