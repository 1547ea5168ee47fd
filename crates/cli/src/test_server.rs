//! A small HTTP server on loopback, for tests: real sockets, scripted answers.

use crate::{api::Api, config::Login, net::Base};
use bytes::Bytes;
use daemon::SequentialIds;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, future::Future, io, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use wire::secret::Secret;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Answer = Result<Response<Body>, io::Error>;

pub(crate) fn full(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    full(status, value.to_string())
}

/// Pieces of a body, each of its own; then its end, or a cut.
pub(crate) fn pieces(pieces: &[&str], cut: bool) -> Response<Body> {
    let mut items: Vec<Result<_, io::Error>> = pieces
        .iter()
        .map(|piece| Ok(hyper::body::Frame::data(Bytes::from((*piece).to_owned()))))
        .collect();
    if cut {
        items.push(Err(io::Error::other("cut")));
    }
    let body =
        http_body_util::StreamBody::new(futures_util::stream::iter(items).then(|item| async {
            // What is pending is flushed first: the cut comes after the pieces.
            tokio::task::yield_now().await;
            item
        }));
    Response::new(body.boxed_unsync())
}

/// Serves until the runtime ends. An error of `answer` cuts the connection.
pub(crate) async fn serve<F, A>(answer: F) -> u16
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(request)),
                )
                .with_upgrades();
            tasks.spawn(async { drop(connection.await) });
        }
    });
    port
}

/// The API at that port.
pub(crate) fn api(port: u16) -> Api {
    let login = Login {
        base: Base::parse(&format!("http://127.0.0.1:{port}")).unwrap(),
        token: Secret::new("gsp_test"),
        ca_file: None,
    };
    Api::new(login, Arc::new(SequentialIds::default()))
}

/// A gitspace as the API shows it.
pub(crate) fn gitspace(state: &str, generation: u64) -> serde_json::Value {
    serde_json::json!({
        "id": "00000000-0000-4000-8000-00000000000a", "name": "demo", "slug": "demo-abc123", "owner": "ada",
        "repo": {"url": "http://git.localhost/demo.git"}, "machine": "small",
        "resources": {"cpu_millis": 1000, "memory_bytes": 1_073_741_824, "pids": 512},
        "state": state, "desired": "running", "generation": generation, "actions": ["stop"],
        "delegate": "host", "delegate_connected": true, "reachable": true,
        "url": "http://demo-abc123.gitspaces.localhost:8080/",
        "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "field_of_the_future": 1,
    })
}
