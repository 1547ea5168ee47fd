//! Making answers.

use crate::BoxError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use serde::Serialize;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use wire::problem::Problem;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The longest line of an NDJSON stream, at both ends.
pub const MAX_LINE: usize = 256 * 1024;

/// An empty line is sent after this much silence, so that each side notices that the other is gone.
pub const KEEPALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("a line of {length} bytes is longer than {MAX_LINE}")]
    TooLong { length: usize },
    #[error("an item cannot be written as JSON")]
    Json {
        #[source]
        source: serde_json::Error,
    },
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer with bytes of the caller's.
#[must_use]
pub fn bytes(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    response(status, content_type, full(bytes))
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A JSON answer. A value that cannot be written (a map with keys that are not strings) is a `500`.
#[must_use]
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => response(status, "application/json", full(bytes)),
        Err(error) => {
            tracing::error!(%error, "An answer cannot be written as JSON");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                &Problem::new("internal", "the answer cannot be written as JSON")
                    .cause(error.to_string()),
            )
        }
    }
}

/// An error answer.
#[must_use]
pub fn problem(status: StatusCode, problem: &Problem) -> Response<Body> {
    // Four strings always have a JSON form.
    let bytes = serde_json::to_vec(problem).unwrap_or_default();
    response(status, "application/problem+json", full(bytes))
}

/// Code of [`no_route`]'s answer: whoever is asked is of a version without it.
pub const NO_ROUTE: &str = "no_route";

/// `404` for a path that no route has.
#[must_use]
pub fn no_route(request: &http::request::Parts) -> Response<Body> {
    problem(
        StatusCode::NOT_FOUND,
        &Problem::new(
            NO_ROUTE,
            format!("nothing answers {} {}", request.method, request.uri.path()),
        ),
    )
}

/// A stream of bytes of the caller's; an error breaks the connection off, so that the client sees that it is not whole.
#[must_use]
pub fn stream<S, E>(status: StatusCode, content_type: &'static str, chunks: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    let frames = chunks.map(|chunk| chunk.map(Frame::data).map_err(Into::into));
    response(status, content_type, StreamBody::new(frames).boxed_unsync())
}

/// A `200` whose body is one JSON value a line, until `items` ends. Silence is filled with empty lines.
///
/// End `items` when the daemon drains: the server waits for open answers, but only so long.
#[must_use]
pub fn ndjson<S, T>(items: S) -> Response<Body>
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize + 'static,
{
    let mut keepalive = tokio::time::interval_at(Instant::now() + KEEPALIVE, KEEPALIVE);
    keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let body = NdjsonBody {
        items: Box::pin(items),
        keepalive,
    };
    response(StatusCode::OK, "application/x-ndjson", body.boxed_unsync())
}

struct NdjsonBody<S> {
    items: Pin<Box<S>>,
    keepalive: Interval,
}

impl<S, T> http_body::Body for NdjsonBody<S>
where
    S: Stream<Item = T>,
    T: Serialize,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.items.as_mut().poll_next(cx) {
            Poll::Ready(Some(item)) => {
                this.keepalive.reset();
                Poll::Ready(Some(line(&item).map(Frame::data).map_err(Into::into)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => this
                .keepalive
                .poll_tick(cx)
                .map(|_| Some(Ok(Frame::data(Bytes::from_static(b"\n"))))),
        }
    }
}

fn line<T: Serialize>(item: &T) -> Result<Bytes, LineError> {
    let mut line = serde_json::to_vec(item).map_err(|source| LineError::Json { source })?;
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong { length: line.len() });
    }
    line.push(b'\n');
    Ok(line.into())
}
