//! What to do next about one gitspace: a pure function of what is stored and known.
//!
//! ```text
//! no task:  settled, in error -> Rest          deleted and nothing left -> Remove
//!           too early -> WaitUntil             no delegate yet -> Place
//!           delegate away or full -> Wait      else -> Issue
//! a task:   queued     -> Send, or Drop where nobody wants it any more
//!           assigned   -> WaitUntil its deadline, Cancel after it or where nobody wants it any more
//!           cancelling -> WaitUntil its end, Drop when that does not come
//! ```

use super::{handle::OrchestratorConfig, seams::DelegateView, view::is_settled, words};
use jiff::Timestamp;
use std::time::Duration;
use store::{GitspaceRecord, TaskRecord, TaskState};
use wire::{
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, ObservedState},
    task::TaskKind,
};

/// All that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub record: &'a GitspaceRecord,
    /// Its unfinished task.
    pub task: Option<&'a TaskRecord>,
    /// The delegate it is placed on.
    pub delegate: Option<&'a DelegateView>,
    /// Whether it fits beside what else that delegate runs.
    pub has_room: bool,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing, until something happens.
    Rest,
    /// Nothing before this.
    WaitUntil(Timestamp),
    /// It cannot go on for a reason that its user has to hear (once).
    Wait {
        why: Failure,
        until: Option<Timestamp>,
    },
    /// Choose a delegate, then issue a start.
    Place,
    Issue(TaskKind),
    /// Hand the stored task over.
    Send,
    /// Its end is awaited until `cancel_limit`.
    Cancel,
    /// Nobody will tell how it ended, or it never reached anybody.
    Drop,
    Fail(Failure),
    /// Nothing is left of it: mark it as deleted.
    Remove,
}

#[must_use]
pub fn plan(situation: Situation<'_>, config: &OrchestratorConfig, now: Timestamp) -> Decision {
    if situation.record.deleted.is_some() {
        return Decision::Rest;
    }
    match situation.task {
        Some(task) => with_task(situation, task, config, now),
        None => without_task(situation, config, now),
    }
}

fn with_task(
    situation: Situation<'_>,
    task: &TaskRecord,
    config: &OrchestratorConfig,
    now: Timestamp,
) -> Decision {
    let record = situation.record;
    let Some(delegate) = situation.delegate.filter(|delegate| !delegate.revoked) else {
        return Decision::Drop;
    };
    let wanted = task.generation == record.generation;
    match task.state {
        TaskState::Queued if !wanted || now >= task.deadline => Decision::Drop,
        TaskState::Queued => match obstacle(delegate, task.kind, config, now) {
            None => Decision::Send,
            Some(Obstacle::Brief(until)) => Decision::WaitUntil(until.min(task.deadline)),
            Some(Obstacle::Said(why)) => Decision::Wait {
                why,
                until: Some(task.deadline),
            },
        },
        TaskState::Assigned => {
            let end = later(task.deadline, config.deadline_grace);
            if !wanted || now >= end {
                Decision::Cancel
            } else {
                Decision::WaitUntil(end)
            }
        }
        TaskState::Cancelling if now < task.deadline => Decision::WaitUntil(task.deadline),
        // While the delegate is away, its runner may still be at it: the next hello tells.
        TaskState::Cancelling => match away(delegate, config, now) {
            None => Decision::Drop,
            Some(Obstacle::Brief(until)) => Decision::WaitUntil(until),
            Some(Obstacle::Said(why)) => Decision::Wait { why, until: None },
        },
        TaskState::Finished => Decision::Drop,
    }
}

fn without_task(situation: Situation<'_>, config: &OrchestratorConfig, now: Timestamp) -> Decision {
    let record = situation.record;
    if record.error.is_some() || is_settled(record) {
        return Decision::Rest;
    }
    let kind = match record.desired {
        DesiredState::Running => TaskKind::Start,
        DesiredState::Stopped => TaskKind::Stop,
        DesiredState::Uninitialized => TaskKind::Reset,
        DesiredState::Deleted => {
            let gone = record.observed.as_ref().is_some_and(|observed| {
                observed.state == ObservedState::Absent && observed.generation >= record.generation
            });
            // What a revoked delegate's host holds cannot be reached; if it enrols anew, its hello tells of it and it is deleted then.
            if gone || situation.delegate.is_none_or(|delegate| delegate.revoked) {
                return Decision::Remove;
            }
            TaskKind::Delete
        }
    };
    if let Some(retry_at) = record.retry_at.filter(|at| now < *at)
        && retry_at <= later(now, longest_backoff(config))
    {
        return Decision::WaitUntil(retry_at);
    }
    let Some(delegate) = situation.delegate else {
        // Nothing of it is anywhere: all but a start have nothing to do.
        return match kind {
            TaskKind::Start => Decision::Place,
            TaskKind::Provision
            | TaskKind::Stop
            | TaskKind::Reset
            | TaskKind::Delete
            | TaskKind::Observe => Decision::Rest,
        };
    };
    if delegate.revoked {
        return Decision::Fail(words::delegate_revoked(&delegate.name));
    }
    match obstacle(delegate, kind, config, now) {
        Some(Obstacle::Brief(until)) => Decision::WaitUntil(until),
        Some(Obstacle::Said(why)) => Decision::Wait { why, until: None },
        None if kind == TaskKind::Start && !situation.has_room => Decision::Wait {
            why: words::delegate_full(&delegate.name),
            until: None,
        },
        None => Decision::Issue(kind),
    }
}

enum Obstacle {
    /// It may be over before anybody has to hear of it.
    Brief(Timestamp),
    Said(Failure),
}

/// Why the delegate takes no task of that kind at this time.
fn obstacle(
    delegate: &DelegateView,
    kind: TaskKind,
    config: &OrchestratorConfig,
    now: Timestamp,
) -> Option<Obstacle> {
    let starts = match kind {
        TaskKind::Provision | TaskKind::Start => true,
        // A host is drained so that it becomes empty: what takes away goes on.
        TaskKind::Stop | TaskKind::Reset | TaskKind::Delete | TaskKind::Observe => false,
    };
    away(delegate, config, now).or_else(|| {
        (starts && delegate.draining)
            .then(|| Obstacle::Said(words::delegate_draining(&delegate.name)))
    })
}

/// Why nobody answers there.
fn away(delegate: &DelegateView, config: &OrchestratorConfig, now: Timestamp) -> Option<Obstacle> {
    let patience = later(delegate.since, config.away_grace);
    let said = if !delegate.connected {
        words::delegate_away
    } else if !delegate.runner_ready {
        words::runner_away
    } else {
        return None;
    };
    Some(if now < patience {
        Obstacle::Brief(patience)
    } else {
        Obstacle::Said(said(&delegate.name))
    })
}

/// Before the next attempt after `failed` ones: four times as long each time, and up to a quarter more, by the gitspace, so that those that failed
/// together do not come again together.
#[must_use]
pub fn backoff(record: &GitspaceRecord, failed: u32, config: &OrchestratorConfig) -> Duration {
    use newtype_uuid::GenericUuid as _;
    let factor = 4_u32.saturating_pow(failed.saturating_sub(1).min(16));
    let base = config
        .first_retry
        .saturating_mul(factor)
        .min(config.longest_retry);
    let [.., spread] = *record.id.as_untyped_uuid().as_bytes();
    base + base.mul_f64(f64::from(spread) / 1024.0)
}

/// What is put down for later than this was so by a clock that has stepped back since.
fn longest_backoff(config: &OrchestratorConfig) -> Duration {
    config.longest_retry.mul_f64(1.25)
}

/// Longest time that any of this waits for, a task's deadline included.
pub(super) fn longest_wait(config: &OrchestratorConfig) -> Duration {
    let deadline = config
        .start_limit
        .max(config.stop_limit)
        .max(config.delete_limit)
        .saturating_add(config.deadline_grace);
    deadline
        .max(longest_backoff(config))
        .max(config.cancel_limit)
}

/// Whether another attempt of the same makes sense without anybody changing anything.
#[must_use]
pub const fn is_retried(kind: TaskKind, code: FailureCode) -> bool {
    match kind {
        TaskKind::Provision | TaskKind::Start => code.is_transient(),
        // They only take away: what did not end in time is tried again, and where a disk was full, a moment later it may not be.
        TaskKind::Stop | TaskKind::Reset | TaskKind::Delete | TaskKind::Observe => {
            code.is_transient()
                || matches!(code, FailureCode::DeadlineExceeded | FailureCode::DiskFull)
        }
    }
}

/// What is left until then.
pub(super) fn left(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
