//! HTTP/1.1 and JSON over Unix sockets, with peer credentials, and streams that leave HTTP.
//!
//! Responsible for: binding and dialling the local sockets of the system, saying who is on the other end, reading
//! and writing JSON and NDJSON within limits, upgrades, file descriptors over a socket, and framed streams.
//!
//! Invariants:
//! - No byte of a client that the [`PeerPolicy`] refuses reaches a handler.
//! - Everything read from a peer has a cap and a deadline, but for NDJSON streams and upgraded streams, which have a
//!   cap and a silence limit, or belong to the caller.
//! - A client never reads past the head of a `101` answer, so that a file descriptor sent right after it is not lost.
//!
//! It knows no route and no type of any API: those are `wire`'s and the daemons'.

pub mod client;
pub mod connect;
pub mod fd;
pub mod frames;
mod listen;
mod passed;
mod peer;
mod request;
mod respond;
pub mod server;
mod upgrade;

pub use client::{Client, ClientError};
pub use listen::{BindError, BindOptions, Listener};
pub use peer::{Peer, PeerPolicy, PeerRefused};
pub use server::ServerConfig;

/// An error of a body or a stream whose cause is somebody else's type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests;
