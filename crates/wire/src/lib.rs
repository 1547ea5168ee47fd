//! Types on every wire of the system, by version. No I/O, no clock, no randomness.
//!
//! | module | wire |
//! |---|---|
//! | [`control`] | control plane and delegate: bodies of the link (`gitspaces.control.v1`) |
//! | [`runner`] | delegate and runner: the runner's API socket (`/v1`) |
//! | [`agent`] | runner and gitspace-agent: the agent's control socket (`/v1`) |
//! | [`workspace`] | users and gitspace-agent, through the gateway |
//! | [`gateway`] | control plane and gateways: grants, routes, revocations |
//! | [`tunnel`] | delegate and gateway: streams to a host that nobody can connect to |
//! | [`api`] | users and control plane: the public REST API (`/api/v1`) |
//!
//! Invariant: text that a user or a remote party controls and that reaches a command line, a path or a host name is held in a
//! type of [`text`], which can only be made by checking it.

pub mod agent;
pub mod api;
pub mod control;
pub mod failure;
pub mod gateway;
pub mod gitspace;
pub mod ids;
pub mod problem;
pub mod runner;
pub mod secret;
pub mod shown;
pub mod task;
pub mod text;
pub mod tunnel;
pub mod workspace;
