//! Connections: accepted, limited, served, drained.

use crate::api::guard::PeerAddress;
use axum::{
    Router,
    body::{Body, Bytes},
};
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tls_server::{Crowd, Door, Guest, Incoming as Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::Instrument as _;

/// At once, streams included. Upgraded connections are not: a delegate's has proved its key, and those that have not yet are bounded by the hub.
/// Beyond it those that wait for a request give way, or else new ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// From the first byte of a request, or from the connection's start, to the end of its headers.
const HEADER_LIMIT: Duration = Duration::from_secs(15);
/// Request line and headers together.
const MAX_HEADERS: usize = 32 * 1024;
/// How often it is looked whether there is a place, where there was none.
const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// After an error of `accept` (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// For answers under way at the stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Serves until `stop`, then waits for what is under way.
pub(crate) async fn serve(
    door: Door,
    router: Router,
    stop: CancellationToken,
) -> Result<(), io::Error> {
    serve_at_most(MAX_CONNECTIONS, door, router, stop).await
}

async fn serve_at_most(
    limit: usize,
    mut door: Door,
    router: Router,
    stop: CancellationToken,
) -> Result<(), io::Error> {
    let crowd = Crowd::new(limit);
    let connections = TaskTracker::new();
    loop {
        while !crowd.has_room() && !stop.is_cancelled() {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
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
                let requests = Requests::default();
                let guest = requests.clone();
                let serving = async move {
                    match stream {
                        Stream::Plain(stream) => {
                            connection(stream, from, router, requests, stop).await;
                        }
                        Stream::Tls(stream) => {
                            connection(stream, from, router, requests, stop).await;
                        }
                    }
                };
                let task = connections.spawn(serving.instrument(span));
                crowd.enter(from.ip(), guest, task.abort_handle());
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

/// Of one connection: how many have been taken and not answered to the end.
#[derive(Clone, Debug, Default)]
struct Requests(Arc<AtomicUsize>);

/// One that was taken.
struct Taken(Requests);

impl Requests {
    fn take(&self) -> Taken {
        self.0.fetch_add(1, Ordering::Relaxed);
        Taken(self.clone())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guest for Requests {
    fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// An answer's body: its request is taken until the last byte is handed over, or nobody wants it any more.
struct Answer {
    body: Body,
    #[expect(dead_code, reason = "dropped with the body")]
    taken: Taken,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    from: SocketAddr,
    router: Router,
    requests: Requests,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request
            .extensions_mut()
            .insert(PeerAddress(from.ip().to_canonical()));
        let taken = requests.take();
        let answering = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answering.await?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, taken }))
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::Ipv4Addr;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket, TcpStream},
        sync::Notify,
    };

    const LIMIT: usize = 8;

    async fn connect(to: SocketAddr, from: [u8; 4]) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::from(from), 0).into())?;
        socket.connect(to).await
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> io::Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn silent_connections_give_way_and_requests_under_way_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (taken, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (is_taken, slow) = (Arc::clone(&taken), Arc::clone(&answer));
        let router = Router::new().route("/", get(async || "quick")).route(
            "/slow",
            get(async move || {
                is_taken.notify_one();
                slow.notified().await;
                "slow"
            }),
        );
        let stop = CancellationToken::new();
        let door = Door::new(listener, None);
        let tasks = TaskTracker::new();
        let serving = tasks.spawn(serve_at_most(LIMIT, door, router, stop.clone()));

        let mut first = connect(to, [127, 0, 0, 9]).await.unwrap();
        let slow = tasks.spawn(async move { ask(&mut first, "/slow").await.unwrap() });
        taken.notified().await;
        let mut silent = Vec::new();
        for _ in 0..5 * LIMIT {
            silent.push(connect(to, [127, 0, 0, 9]).await.unwrap());
        }
        let mut honest = connect(to, [127, 0, 0, 1]).await.unwrap();
        let said = ask(&mut honest, "/").await.unwrap();
        assert!(said.ends_with("quick"), "{said}");
        assert!(said.contains("content-length: 5"), "{said}");
        answer.notify_one();
        let said = slow.await.unwrap();
        assert!(said.ends_with("slow"), "{said}");
        drop(silent);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
