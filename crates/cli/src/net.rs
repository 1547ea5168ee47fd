//! The wire between this command and the control plane or a gateway: HTTP/1.1 and WebSocket, plain or over TLS.
//!
//! Invariants: every wait has a limit, every answer has a size limit, no redirect is followed (so a token goes to the origin
//! it is meant for and to no other), and whatever is sent again after a cut connection is safe to be sent again.
//!
//! It does not know what the API's paths mean; that is `crate::api`.

mod client;
mod connect;
mod error;
mod origin;
mod sse;
mod tls;
mod websocket;

#[cfg(test)]
mod tests;

pub(crate) use client::{Call, Client, Reply};
pub(crate) use connect::{Connector, Stream};
pub(crate) use error::RequestError;
pub(crate) use origin::{Base, Origin};
pub(crate) use sse::SseParser;
pub(crate) use websocket::{Socket, open as open_websocket};
