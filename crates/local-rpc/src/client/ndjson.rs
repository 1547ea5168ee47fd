//! Reading a stream of one JSON value a line.

use super::{ClientError, Driver, error::Call};
use crate::{request::decode_json, respond::MAX_LINE};
use bytes::{Buf as _, BytesMut};
use futures_util::{FutureExt as _, Stream};
use http_body::Body as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Four keep-alives of the server.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Items of a stream; ends after the first error. Dropping it closes the connection.
pub struct NdjsonStream<T> {
    call: Call,
    driver: Driver,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no end of a line.
    searched: usize,
    silence: Pin<Box<Sleep>>,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for NdjsonStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NdjsonStream")
            .field("call", &self.call)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> NdjsonStream<T> {
    pub(super) fn new(call: Call, body: Incoming, driver: Driver) -> Self {
        Self {
            call,
            driver,
            body,
            buffer: BytesMut::new(),
            searched: 0,
            silence: Box::pin(tokio::time::sleep(SILENCE_LIMIT)),
            ended: false,
            item: PhantomData,
        }
    }

    /// The next whole line, without its end; keep-alives are skipped.
    fn take_line(&mut self) -> Option<Result<BytesMut, ClientError>> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            match unsearched.iter().position(|byte| *byte == b'\n') {
                Some(offset) => {
                    let line = self.buffer.split_to(self.searched + offset);
                    self.buffer.advance(1);
                    self.searched = 0;
                    if line.len() > MAX_LINE {
                        return Some(Err(self.call.too_large(MAX_LINE)));
                    }
                    if !line.trim_ascii().is_empty() {
                        return Some(Ok(line));
                    }
                }
                None if self.buffer.len() > MAX_LINE => {
                    return Some(Err(self.call.too_large(MAX_LINE)));
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            }
        }
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, ClientError>>> {
        loop {
            if let Some(line) = self.take_line() {
                let item = line.and_then(|line| {
                    decode_json(&line).map_err(|(path, message)| self.call.decode(path, message))
                });
                return Poll::Ready(Some(item));
            }
            // Its end and its error reach the body.
            if self.driver.poll_unpin(cx).is_ready() {
                tracing::trace!(call = ?self.call, "Connection of a stream ended");
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                    self.silence.as_mut().reset(Instant::now() + SILENCE_LIMIT);
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(self.call.protocol(error))));
                }
                Poll::Ready(None) if self.buffer.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) => {
                    return Poll::Ready(Some(Err(self
                        .call
                        .protocol("the stream ended in the middle of a line"))));
                }
                Poll::Pending => {
                    return self
                        .silence
                        .poll_unpin(cx)
                        .map(|()| Some(Err(self.call.timeout(SILENCE_LIMIT))));
                }
            }
        }
    }
}

impl<T: DeserializeOwned> Stream for NdjsonStream<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = this.poll_item(cx);
        this.ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }
}
