//! Both ends of a delegate's control link as state machines without I/O.
//!
//! Responsible for: the greeting, numbering, cumulative acknowledgement, resending, de-duplication, heartbeats, silence limits, bounds on
//! every queue, and the client's back-off. Time and randomness are arguments; a shell moves bytes:
//!
//! ```text
//! machine.handle(now, Input::..);            what happened
//! while let Some(out) = machine.poll_output() { .. }    what to do about it
//! machine.poll_transmit(now)                 the next frame, asked for only when the socket can take it
//! machine.deadline()                         when to say Input::Tick
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`client`] | the delegate's end: dials for ever |
//! | [`server`] | the control plane's end: one connection |
//! | [`session`] | what a live connection does at either end |
//! | `hello` | a hello as frames, however much a host holds |
//! | [`outbox`] | what waits to be sent and to be acknowledged |
//! | [`inbox`] | what was taken from the peer |
//! | `shell` | with the feature of that name: what both ends' shells have in common |
//! | [`backoff`] | how long to wait before dialling again |
//!
//! Invariants: no input panics; no queue grows above [`limits`]; a body is numbered when it is first sent, so that control never waits
//! behind bulk; an acknowledgement says that the receiver's application has *consumed* a body, so a slow application holds the sender back.
//!
//! It signs and verifies nothing: proofs and hellos come from and go to the shell.

pub mod backoff;
pub mod client;
pub mod codec;
mod hello;
pub mod inbox;
pub mod limits;
pub mod outbox;
pub mod server;
pub mod session;
#[cfg(feature = "shell")]
pub mod shell;

pub use backoff::Rng;
pub use client::Client;
pub use hello::HelloRefused;
pub use outbox::{Class, SendRefused};
pub use server::Server;
pub use session::Timing;
