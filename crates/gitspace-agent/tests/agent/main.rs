//! The real binary on a run folder of its own, driven over its sockets as the runner and a user drive it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in tests a panic is the message; clippy knows the test functions only, not what they share"
)]

mod clone;
mod credentials;
mod dial;
mod git_server;
mod harness;
mod init;
mod jobs;
mod ssh;
mod terminals;
