//! The orchestrator: brings every gitspace to where its user wants it.
//!
//! Responsible for: users' actions on gitspaces, placement on delegates, tasks and their ends, retries, deadlines, what runners observe, and
//! the state a user sees. One [`OrchestratorTask`] owns all of it; everybody else holds an [`OrchestratorHandle`].
//!
//! It is level-triggered: [`plan`](plan::plan) compares what is desired of one gitspace with what was observed and answers with one next step. It is asked
//! after everything that could change the answer, and for every gitspace at the start, so that nothing depends on having seen an event.
//!
//! Invariants:
//! - What was answered to anybody is stored first. An event is acknowledged only when it and all its consequences are stored, once. What
//!   queues up meanwhile is stored together ([`batch`]).
//! - A gitspace has at most one unfinished task. The next one is given only when that one has ended or nobody can tell of it any more.
//! - Cancel and delete are always taken, and every state has a way out that its user can reach.
//! - A gitspace stays on the delegate that holds its disk.
//! - What a host holds and no record accounts for is kept until somebody orders its removal ([`unaccounted`]).
//!
//! It does not: speak to delegates (the hub does, behind [`TaskSink`]), know users or secrets ([`SpecSource`]), or read requests.

mod batch;
mod book;
mod draft;
mod gitspaces;
mod handle;
mod hello;
pub mod placement;
pub mod plan;
mod request;
mod rotation;
mod said;
mod seams;
mod serve;
mod steps;
mod task;
#[cfg(test)]
mod tests;
mod unaccounted;
mod view;
mod words;

pub use handle::{
    ActionDenied, CreateDenied, Heard, NewGitspace, OrchestratorConfig, OrchestratorError,
    OrchestratorHandle, RemovalDenied,
};
pub use rotation::{OutBecause, StartRecord};
pub use seams::{AssignRefused, Change, DelegateView, Probed, SpecSource, TaskSink, Unaccounted};
pub use task::{OrchestratorParts, OrchestratorTask};
pub use view::{actions, is_reachable, visible_state};
