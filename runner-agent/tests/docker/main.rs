//! The runner as a whole: its real process, a real Docker, a real gitspace-agent in real containers.
//!
//! Needs a Docker that answers, root, the default image, `git`, openssh-server, and gitspace-agent built beside the runner. Each test has a deployment of
//! its own, and removes everything of it at its end.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    reason = "the test's own helpers fail the test"
)]

mod generations;
mod gitspaces;
mod harness;
mod ledger_lost;
mod limits;
mod ssh;
