//! delegate-agent: connects one host to its control plane, from the inside out.
//!
//! Responsible for: the delegate's identity ([`identity`], [`enrol`], [`rotate`]) in a folder of its own ([`state_folder`]), the outbound link ([`uplink`], the shell around `link::client`) over
//! any way out of the host ([`transport`]: direct, HTTP proxy, TLS with private roots), carrying tasks to the runner and their events back
//! ([`tasks`]), what the runner observes ([`watch`]), and, on one host, the embedded control plane and gateway ([`embedded`]).
//!
//! | task | owns | speaks to |
//! |---|---|---|
//! | uplink | the link's state machine and its socket | tasks, watch (bounded channels) |
//! | tasks | one follower per task of the runner | runner's socket, uplink |
//! | watch | what the runner was last heard to say | runner's socket, uplink |
//! | drain | whether the host is drained ([`drain`]) | runner's socket, uplink |
//! | admin | nothing | reads what the others publish ([`status`]) |
//!
//! Invariants: it keeps nothing that matters: tasks and their events lie in the runner's journal, what is desired in the control plane's
//! store, and each hello brings the two together, so that it may be killed at any instruction. It never makes up a result. Every queue is
//! bounded, and a full one holds back the runner's stream.
//!
//! It does not: know Docker, machines or devcontainer.json (the runner does), or decide what a task means (the control plane does).

mod admin;
pub mod app;
pub mod ask;
mod certificates;
mod checks;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod drain;
pub mod embedded;
pub mod enrol;
pub mod identity;
pub mod inventory;
mod link_task;
pub mod probe;
pub mod rotate;
pub mod runner;
pub mod state_folder;
pub mod status;
pub mod stranger;
pub mod tasks;
pub mod transport;
pub mod tunnels;
mod unattended;
pub mod uplink;
pub mod watch;

/// Of this software.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
