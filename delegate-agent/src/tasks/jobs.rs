//! What is said to the runner for one task: each of these is a job.

use super::Ended;
use crate::{
    runner::{Runner, failure_of},
    status::Board,
    uplink::LinkHandle,
};
use daemon::ErrorChain;
use futures_util::StreamExt as _;
use link::Class;
use local_rpc::ClientError;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wire::{
    control::Up,
    ids::{GitspaceUuid, TaskUuid},
    task::{Task, TaskEventKind},
};

/// A runner that restarts is waited for this long before its task is given back.
const ASSIGN_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Doubles from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`].
#[derive(Debug)]
struct Pause(Duration);

impl Pause {
    const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Sends one task's events in order, from wherever the control plane stands.
pub(super) struct Follower {
    pub(super) runner: Runner,
    pub(super) link: LinkHandle,
    pub(super) board: Board,
    pub(super) task: TaskUuid,
    pub(super) gitspace: GitspaceUuid,
    pub(super) after: u64,
}

impl Follower {
    pub(super) async fn run(mut self) {
        let mut pause = Pause::new();
        loop {
            let before = self.after;
            match self.read().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if error.is_not_found() => {
                    tracing::warn!(task = %self.task, "The runner does not know the task any more");
                    return;
                }
                Err(error) => {
                    tracing::warn!(task = %self.task, error = %ErrorChain(&error), "Cannot read a task's events; trying again");
                }
            }
            if self.after > before {
                pause = Pause::new();
            }
            pause.wait().await;
        }
    }

    /// Reads one stream to its end. Whether there is nothing more to send.
    async fn read(&mut self) -> Result<bool, ClientError> {
        let mut events = self.runner.events(self.task, self.after).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if event.seq <= self.after {
                continue;
            }
            let seq = event.seq;
            let last = matches!(event.event, TaskEventKind::Finished { .. });
            let body = Up::TaskEvent {
                task: self.task,
                gitspace: self.gitspace,
                event,
            };
            if self.link.send(body, Class::Bulk).await.is_err() {
                return Ok(true);
            }
            self.after = seq;
            self.board.tasks.send_if_modified(|tasks| {
                if let Some(view) = tasks.get_mut(&self.task) {
                    view.sent_seq = seq;
                }
                false
            });
            if last {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) async fn assign(runner: Runner, link: LinkHandle, task: Box<Task>) -> Ended {
    let (id, gitspace) = (task.id, task.gitspace);
    let started = Instant::now();
    let mut pause = Pause::new();
    let error = loop {
        daemon::fail_point("delegate.put-task.before");
        let put = runner.put_task(&task).await;
        daemon::fail_point("delegate.put-task.after");
        match put {
            Ok(_) => return Ended::Taken(id, gitspace),
            Err(error) if error.is_unreachable() && started.elapsed() < ASSIGN_LIMIT => {
                pause.wait().await;
            }
            Err(error) => break error,
        }
    };
    tracing::warn!(task = %id, %gitspace, error = %ErrorChain(&error), "The runner does not take a task");
    let body = Up::TaskRefused {
        task: id,
        gitspace,
        failure: failure_of(&error),
    };
    if link.send(body, Class::Control).await.is_err() {
        tracing::debug!(task = %id, "Nobody hears that a task was refused");
    }
    Ended::NotTaken(id)
}

/// Repeats a call while nobody answers, until the connection ends.
async fn insist<F>(
    what: &'static str,
    task: TaskUuid,
    call: impl Fn() -> F,
) -> Result<(), ClientError>
where
    F: Future<Output = Result<(), ClientError>>,
{
    let mut pause = Pause::new();
    loop {
        match call().await {
            Err(error) if error.is_unreachable() => {
                tracing::debug!(%task, what, error = %ErrorChain(&error), "The runner does not answer; trying again");
                pause.wait().await;
            }
            // It has no such task: there is nothing to do.
            Err(error) if error.is_not_found() => return Ok(()),
            other => return other,
        }
    }
}

pub(super) async fn cancel(runner: Runner, task: TaskUuid) -> Ended {
    if let Err(error) = insist("cancel", task, || runner.cancel(task)).await {
        tracing::warn!(%task, error = %ErrorChain(&error), "The runner does not cancel a task");
    }
    Ended::Called
}

/// The control plane has stored the task's end.
pub(super) async fn forget(runner: Runner, task: TaskUuid) -> Ended {
    daemon::fail_point("delegate.forget.before");
    let forgotten = insist("forget", task, || runner.forget(task)).await;
    daemon::fail_point("delegate.forget.after");
    if let Err(error) = forgotten {
        // Its next hello tells of it again.
        tracing::warn!(%task, error = %ErrorChain(&error), "The runner does not forget a task");
    }
    Ended::Called
}

/// Nobody wants the task: it is ended, and then forgotten.
pub(super) async fn abandon(runner: Runner, task: TaskUuid) -> Ended {
    let mut pause = Pause::new();
    loop {
        match insist("forget", task, || runner.forget(task)).await {
            Ok(()) => return Ended::Called,
            Err(error) if error.status() == Some(http::StatusCode::CONFLICT) => {
                tracing::info!(%task, "A task that nobody wants is cancelled");
                cancel(runner.clone(), task).await;
                // Its stream ends with the task.
                if let Ok(mut events) = runner.events(task, 0).await {
                    while let Some(Ok(event)) = events.next().await {
                        if matches!(event.event, TaskEventKind::Finished { .. }) {
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%task, error = %ErrorChain(&error), "The runner does not forget a task");
                return Ended::Called;
            }
        }
        pause.wait().await;
    }
}
