//! End to end: the real binaries, a real Docker, real git, curl and a browser, on loopback.
//!
//! Every test has a deployment of its own (ports, state, deployment label) and removes what it made. `./test` builds the binaries and
//! names their folder in `GITSPACES_TEST_BIN`.

#![expect(
    clippy::print_stderr,
    reason = "what a test could not clean up is for the person who reads its output"
)]

mod deployment;
mod docker;
mod git_server;
mod own_docker;
mod small_disk;

mod admin_sockets;
mod browser;
mod chaos;
mod clock_steps;
mod daemons_killed;
mod data_path;
mod disk_full;
mod dockerd_killed;
mod example_configs;
mod failures;
mod few_files;
mod gateway_door;
mod hostile_input;
mod identity;
mod isolation;
mod lifecycle;
mod processes_apart;
mod shared_ports;
mod ssh;
mod ssh_gateway;
mod ssh_lines;
mod stopped;
mod tls;
mod tunnel;
mod units;
