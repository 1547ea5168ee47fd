//! The server: accepts, checks the peer, serves HTTP/1.1, stops in order.
//!
//! Each connection is a task of the server's own `JoinSet`; a panic of a handler costs its connection only.
//! A handler is *dropped* when its client goes away: work that must finish belongs into a task of the daemon.

use crate::{Listener, Peer, PeerPolicy};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::libc;
use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};
use tokio::{net::UnixStream, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

pub use crate::{
    request::{
        BODY_DEADLINE, RequestError, query_param, query_value, read_bytes, read_json, segments,
    },
    respond::{
        Body, KEEPALIVE, MAX_LINE, NO_ROUTE, bytes, empty, json, ndjson, no_route, problem, stream,
    },
    upgrade::{PendingUpgrade, UpgradeError, Upgraded, prepare_upgrade},
};
pub use hyper::body::Incoming as RequestBody;

/// Local APIs have small heads.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
/// Connections that are only told why they are not served; more are closed without a word.
const MAX_REFUSALS: usize = 16;
/// A refused peer gets little time to say what it wants.
const REFUSED_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// After an `accept` that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub policy: PeerPolicy,
    /// More at once get a `503`. Upgraded connections do not count: they belong to the handler.
    pub max_connections: usize,
    pub header_timeout: Duration,
    /// How long open answers may go on after the stop.
    pub drain: Duration,
}

impl ServerConfig {
    #[must_use]
    pub fn new(policy: PeerPolicy) -> Self {
        Self {
            policy,
            max_connections: 256,
            header_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot accept connections on a Unix socket")]
    Accept {
        #[source]
        source: io::Error,
    },
}

/// Serves until `stop`, then lets open answers finish for as long as the configuration says.
///
/// # Errors
/// Fails where the socket is broken; a lack of descriptors or memory is waited for.
pub async fn serve<S, F>(
    listener: Listener,
    config: ServerConfig,
    service: S,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let served = Arc::new(Semaphore::new(config.max_connections));
    let refused = Arc::new(Semaphore::new(MAX_REFUSALS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_transient(&error) => {
                tracing::warn!(%error, "Cannot accept a connection yet");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                }
            }
            Err(source) => return Err(ServeError::Accept { source }),
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "A peer without credentials is not served");
                continue;
            }
        };
        let refusal = match config.policy.check(&peer) {
            Err(why) => {
                tracing::warn!(
                    uid = peer.uid,
                    gid = peer.gid,
                    pid = peer.pid,
                    "Peer refused"
                );
                Refusal {
                    status: StatusCode::FORBIDDEN,
                    problem: Problem::new("peer_refused", why.to_string())
                        .hint("use a user or a group that the daemon's configuration allows"),
                }
            }
            Ok(()) => match Arc::clone(&served).try_acquire_owned() {
                Ok(permit) => {
                    let connection = serve_connection(
                        stream,
                        peer,
                        config.header_timeout,
                        service.clone(),
                        stop.clone(),
                    );
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                    continue;
                }
                Err(_) => {
                    tracing::warn!(limit = config.max_connections, "Too many connections");
                    Refusal {
                        status: StatusCode::SERVICE_UNAVAILABLE,
                        problem: Problem::new(
                            "too_many_connections",
                            format!("{} connections are open already", config.max_connections),
                        ),
                    }
                }
            },
        };
        if let Ok(permit) = Arc::clone(&refused).try_acquire_owned() {
            let stop = stop.clone();
            connections.spawn(async move {
                refuse(stream, peer, refusal, stop).await;
                drop(permit);
            });
        }
    }
    // The file goes first: whoever comes now gets "connection refused" or finds no socket, and tries again later.
    drop(listener);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(config.drain, finish).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "Connections cut off at the end of the drain"
        );
        connections.shutdown().await;
    }
    Ok(())
}

struct Refusal {
    status: StatusCode,
    problem: Problem,
}

async fn refuse(stream: UnixStream, peer: Peer, refusal: Refusal, stop: CancellationToken) {
    let refusal = Arc::new(refusal);
    let service = move |_: Request<Incoming>, _: Peer| {
        let refusal = Arc::clone(&refusal);
        async move {
            let mut response = problem(refusal.status, &refusal.problem);
            response.headers_mut().insert(
                http::header::CONNECTION,
                http::HeaderValue::from_static("close"),
            );
            response
        }
    };
    serve_connection(stream, peer, REFUSED_HEADER_TIMEOUT, service, stop).await;
}

async fn serve_connection<S, F>(
    stream: UnixStream,
    peer: Peer,
    header_timeout: Duration,
    service: S,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answer = service(request, peer.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&error), pid = peer.pid, "Connection ended with an error");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "A handler panicked; its connection is closed");
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
        )
    )
}

/// hyper keeps its causes out of its messages.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
