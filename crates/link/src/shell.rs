//! The part of a shell that both ends have: one WebSocket, one frame that waits for it, and the last words.
//!
//! It knows sinks and streams of messages and does no I/O of its own; each end says in its [`Dialect`] what a message of its library is.

use futures_util::{Sink, SinkExt as _, Stream};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};
use wire::control::DisconnectCode;

/// What a message of a WebSocket library says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<T> {
    Text(T),
    Binary,
    /// The number in the close frame, where there was one, and its reason.
    Close(Option<(u16, String)>),
    /// The library's own: pings and the like.
    Other,
}

/// A WebSocket library.
pub trait Dialect {
    type Message;
    type Error: std::error::Error;
    type Text;

    fn text(frame: String) -> Self::Message;
    /// A close frame.
    fn close(code: u16, reason: &'static str) -> Self::Message;
    fn read(message: Self::Message) -> Incoming<Self::Text>;
    /// Whether the error is about a message above the socket's limit.
    fn is_oversized(error: &Self::Error) -> bool;
}

/// What came of the socket.
#[derive(Debug)]
pub enum Event<T> {
    Text(T),
    Binary,
    Oversized,
    /// It is gone, and its close frame had one of our codes, or none.
    Closed {
        code: Option<DisconnectCode>,
        reason: String,
    },
    /// It took something, or said nothing for us: ask again.
    Progress,
}

/// One WebSocket.
#[derive(Debug)]
pub struct Connection<S, D: Dialect> {
    socket: S,
    next: Option<String>,
    is_unflushed: bool,
    dialect: std::marker::PhantomData<fn() -> D>,
}

impl<S, D, E> Connection<S, D>
where
    D: Dialect<Error = E>,
    S: Sink<D::Message, Error = E> + Stream<Item = Result<D::Message, E>> + Unpin,
    E: std::error::Error,
{
    pub const fn new(socket: S) -> Self {
        Self {
            socket,
            next: None,
            is_unflushed: false,
            dialect: std::marker::PhantomData,
        }
    }

    /// Takes the next frame from the machine, where none waits for the socket already.
    pub fn fill(&mut self, poll_transmit: impl FnOnce() -> Option<String>) {
        if self.next.is_none() {
            self.next = poll_transmit();
        }
    }

    /// Writes what waits, and reads where `is_reading`. Nothing is lost where it is dropped before it ends.
    pub async fn event(&mut self, is_reading: bool) -> Event<D::Text> {
        poll_fn(|cx| self.poll_event(cx, is_reading)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, is_reading: bool) -> Poll<Event<D::Text>> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Event::Progress),
            Poll::Ready(Err(error)) => return Poll::Ready(failed::<D>(&error)),
            Poll::Pending => {}
        }
        if !is_reading {
            return Poll::Pending;
        }
        let closed = |code, reason: &str| Event::Closed {
            code,
            reason: reason.to_owned(),
        };
        Pin::new(&mut self.socket)
            .poll_next(cx)
            .map(|message| match message {
                Some(Ok(message)) => match D::read(message) {
                    Incoming::Text(text) => Event::Text(text),
                    Incoming::Binary => Event::Binary,
                    Incoming::Other => Event::Progress,
                    Incoming::Close(None) => closed(None, "the other side closed it"),
                    Incoming::Close(Some((number, reason))) => {
                        let code = DisconnectCode::of_close_code(number);
                        let reason = match code {
                            Some(code) => format!("the other side closed it: {code}"),
                            None => format!(
                                "the other side closed it with {number} `{}`",
                                reason.escape_debug()
                            ),
                        };
                        closed(code, &reason)
                    }
                },
                Some(Err(error)) => failed::<D>(&error),
                None => closed(None, "the other side closed it"),
            })
    }

    /// Brings one frame to the socket, or flushes it. Pending where there is nothing to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let mut socket = Pin::new(&mut self.socket);
        if self.next.is_some() {
            futures_util::ready!(socket.as_mut().poll_ready(cx))?;
            if let Some(frame) = self.next.take() {
                socket.start_send(D::text(frame))?;
                self.is_unflushed = true;
            }
            return Poll::Ready(Ok(()));
        }
        if self.is_unflushed {
            futures_util::ready!(socket.poll_flush(cx))?;
            self.is_unflushed = false;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Says what the machine still has to say, and why it ends. The caller bounds how long that may take.
    ///
    /// # Errors
    /// The other side left first.
    pub async fn farewell(
        mut self,
        code: DisconnectCode,
        mut poll_transmit: impl FnMut() -> Option<String>,
    ) -> Result<(), E> {
        if let Some(frame) = self.next.take() {
            self.socket.send(D::text(frame)).await?;
        }
        while let Some(frame) = poll_transmit() {
            self.socket.send(D::text(frame)).await?;
        }
        self.socket
            .send(D::close(code.close_code(), code.as_str()))
            .await?;
        self.socket.close().await
    }
}

fn failed<D: Dialect>(error: &D::Error) -> Event<D::Text> {
    if D::is_oversized(error) {
        Event::Oversized
    } else {
        Event::Closed {
            code: None,
            reason: crate::client::chain(error),
        }
    }
}

/// Waits for ever where there is nothing to wait for.
pub async fn some<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
