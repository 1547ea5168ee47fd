//! Connections: accepted, limited, served, drained.

use crate::api::guard::PeerAddress;
use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tls_server::{Door, Incoming as Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::Instrument as _;

/// At once, streams included. Upgraded connections are not: a delegate's has proved its key, and those that have not yet are bounded by the hub. More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// From the first byte of a request, or from the connection's start, to the end of its headers.
const HEADER_LIMIT: Duration = Duration::from_secs(15);
/// Request line and headers together.
const MAX_HEADERS: usize = 32 * 1024;
/// After an error of `accept` (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// For answers under way at the stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Serves until `stop`, then waits for what is under way.
pub(crate) async fn serve(
    mut door: Door,
    router: Router,
    stop: CancellationToken,
) -> Result<(), io::Error> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.next() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if let Err(error) = stream.socket().set_nodelay(true) {
                    tracing::debug!(%error, "Cannot set TCP_NODELAY");
                }
                let (router, stop) = (router.clone(), stop.clone());
                let span = tracing::debug_span!("connection", %from);
                drop(
                    connections.spawn(
                        async move {
                            match stream {
                                Stream::Plain(stream) => {
                                    connection(stream, from, router, stop).await;
                                }
                                Stream::Tls(stream) => {
                                    connection(stream, from, router, stop).await;
                                }
                            }
                            drop(permit);
                        }
                        .instrument(span),
                    ),
                );
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    from: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request
            .extensions_mut()
            .insert(PeerAddress(from.ip().to_canonical()));
        router.clone().oneshot(request.map(Body::new))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_LIMIT, serving).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %daemon::ErrorChain(&error), "Connection ended");
    }
}
