//! runner-agent: makes gitspaces on a host's Docker, and keeps them as its ledger says.
//!
//! | module | subject |
//! |---|---|
//! | [`api`] | the API socket (`wire::runner`) and the admin socket |
//! | [`gitspace`] | one task per gitspace: carries out its tasks, observes it |
//! | [`journal`], [`ledger`], [`board`] | tasks with their events; what is made; what was seen |
//! | [`machine`], [`docker`] | which Docker; what it is asked |
//! | [`devcontainer`] | what the repository says of its dev container |
//! | [`sandbox`] | where repositories are cloned; the pool of ready ones |
//! | [`reconcile`], [`firewall`] | Docker and the packet filter as they should be |
//! | [`dial`], [`agent_client`] | into a gitspace |
//!
//! Invariant: killed at any instruction, the next start looks, compares and goes on: nothing is lost, nothing is made twice.
//!
//! It does not know users, policy, the control plane or the gateway.

mod agent_client;
mod agent_copy;
mod api;
mod app;
mod board;
mod checks;
mod cli;
mod config;
mod devcontainer;
mod dial;
mod docker;
mod firewall;
mod gitspace;
mod host_report;
mod journal;
mod ledger;
mod machine;
mod names;
mod probe;
mod reconcile;
mod sandbox;
mod shared;
mod silence;

use std::process::ExitCode;

fn main() -> ExitCode {
    admin::main(cli::run)
}
