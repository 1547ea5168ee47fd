//! The whole control plane in one process: real routes, real SQLite, a clock that stands still.

mod authorization;
mod bootstrap;
mod browser;
mod delegate_keys;
mod gateway_link;
mod gateways;
mod gitspaces;
mod hostile;
mod ports;
mod repeated;
mod ssh;
mod support;
