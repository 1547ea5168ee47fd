//! The real binary on a run folder of its own, driven over its sockets as the runner and a user drive it.

mod clone;
mod credentials;
mod dial;
mod git_server;
mod harness;
mod init;
mod jobs;
mod terminals;
