//! The orchestrator on a real database, with a recording sink instead of links and a clock that stands still.

mod batch;
mod data_path;
mod lifecycle;
mod links;
mod planning;
mod runner_ahead;
pub(in crate::orchestrator) mod support;
mod unaccounted;
