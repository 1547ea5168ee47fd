//! The gateway on loopback with raw sockets: a control plane that signs real grants, an app that notes every byte it gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests fail by panicking"
)]

mod forwarding;
mod grants;
mod harness;
mod hostile;
mod opening;
mod probes;
mod shared_ports;
mod ssh;
mod ssh_raw;
mod ssh_server;
mod ssh_windows;
mod tls;
mod tunnels;
mod upgrade;
mod wake;
