//! Carries tasks to the runner and their events back.
//!
//! One task owns who follows what; each follower and each call to the runner is a job of its own. Everything here lives as long as one
//! connection of the link: the next connection's hello and its verdicts say where to go on, so that nothing has to be remembered.
//!
//! Invariants: a task's events are sent in order by one follower; a task is forgotten at the runner only when the control plane has stored
//! its end, or does not know it; no result is made up: what the runner does not say is not said.

use crate::{
    runner::{Runner, failure_of},
    status::{Board, TaskView},
    uplink::{LinkEvent, LinkHandle, Told},
};
use daemon::ErrorChain;
use futures_util::StreamExt as _;
use link::Class;
use local_rpc::ClientError;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{Down, TaskVerdict, Up},
    ids::{GitspaceUuid, TaskUuid},
    task::{Task, TaskEventKind},
};

/// Jobs at once. A host has far fewer gitspaces; more is a control plane gone wrong, which then waits.
const MAX_JOBS: usize = 4096;
/// A runner that restarts is waited for this long before its task is given back.
const ASSIGN_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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

#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    #[error("the uplink has ended")]
    LinkEnded,
}

/// How a job ended.
#[derive(Debug)]
enum Ended {
    /// The runner holds the task.
    Taken(TaskUuid, GitspaceUuid),
    NotTaken(TaskUuid),
    /// Follower `number` of the task has no more to send.
    Followed(TaskUuid, u64),
    Called,
}

#[derive(Debug)]
pub struct TasksTask {
    runner: Runner,
    link: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    board: Board,
    jobs: JoinSet<Ended>,
    /// Cancelled when the connection ends.
    life: CancellationToken,
    /// Number of the follower of each followed task.
    followers: HashMap<TaskUuid, u64>,
    last_follower: u64,
    assigning: HashSet<TaskUuid>,
    /// Cancelled while they were being assigned.
    cancel_after: HashSet<TaskUuid>,
}

impl TasksTask {
    #[must_use]
    pub fn new(
        runner: Runner,
        link: LinkHandle,
        events: mpsc::Receiver<LinkEvent>,
        board: Board,
    ) -> Self {
        Self {
            runner,
            link,
            events,
            board,
            jobs: JoinSet::new(),
            life: CancellationToken::new(),
            followers: HashMap::new(),
            last_follower: 0,
            assigning: HashSet::new(),
            cancel_after: HashSet::new(),
        }
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// Ends where the uplink has.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TasksError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(ended) = self.jobs.join_next() => match ended {
                    Ok(ended) => self.on_ended(&ended),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "A job for the runner failed"),
                },
                event = self.events.recv(), if self.jobs.len() < MAX_JOBS => match event {
                    Some(event) => self.on_event(event),
                    None if stop.is_cancelled() => return Ok(()),
                    None => return Err(TasksError::LinkEnded),
                },
            }
        }
    }

    fn on_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Lost => self.begin_life(),
            LinkEvent::Live { verdicts, told } => {
                self.begin_life();
                self.on_verdicts(verdicts, &told);
            }
            LinkEvent::Down(Down::Assign { task }) => {
                tracing::info!(task = %task.id, gitspace = %task.gitspace, kind = task.verb.kind().as_str(), trace = %task.trace, "Task assigned");
                self.assigning.insert(task.id);
                let (runner, link) = (self.runner.clone(), self.link.clone());
                self.spawn(assign(runner, link, task));
            }
            LinkEvent::Down(Down::Cancel { task }) => {
                if self.assigning.contains(&task) {
                    self.cancel_after.insert(task);
                } else {
                    self.spawn(cancel(self.runner.clone(), task));
                }
            }
            LinkEvent::Down(Down::Stored { task, .. }) => {
                self.spawn(forget(self.runner.clone(), task));
            }
        }
    }

    /// What the last connection wanted is void.
    fn begin_life(&mut self) {
        self.life.cancel();
        self.life = CancellationToken::new();
        self.followers.clear();
        self.assigning.clear();
        self.cancel_after.clear();
        self.board.tasks.send_modify(|tasks| tasks.clear());
    }

    fn on_verdicts(&mut self, verdicts: Vec<TaskVerdict>, told: &Told) {
        let gitspace_of = |wanted: TaskUuid| {
            told.tasks
                .iter()
                .find(|status| status.task == wanted)
                .map(|status| status.gitspace)
        };
        for verdict in verdicts {
            match verdict {
                TaskVerdict::Continue { task, after } => {
                    if let Some(gitspace) = gitspace_of(task) {
                        self.follow(task, gitspace, after);
                    }
                }
                TaskVerdict::Cancel { task, after } => {
                    self.spawn(cancel(self.runner.clone(), task));
                    if let Some(gitspace) = gitspace_of(task) {
                        self.follow(task, gitspace, after);
                    }
                }
                TaskVerdict::Forget { task } => {
                    self.spawn(abandon(self.runner.clone(), task));
                }
            }
        }
    }

    fn on_ended(&mut self, ended: &Ended) {
        match *ended {
            Ended::Taken(task, gitspace) => {
                // Of an earlier connection where it is not known any more: the hello of this one has told of the task.
                if self.assigning.remove(&task) {
                    self.follow(task, gitspace, 0);
                    if self.cancel_after.remove(&task) {
                        self.spawn(cancel(self.runner.clone(), task));
                    }
                }
            }
            Ended::NotTaken(task) => {
                self.assigning.remove(&task);
                self.cancel_after.remove(&task);
            }
            Ended::Followed(task, number) => {
                if self.followers.get(&task) == Some(&number) {
                    self.followers.remove(&task);
                    self.board.tasks.send_modify(|tasks| {
                        tasks.remove(&task);
                    });
                }
            }
            Ended::Called => {}
        }
    }

    fn follow(&mut self, task: TaskUuid, gitspace: GitspaceUuid, after: u64) {
        if self.followers.contains_key(&task) {
            return;
        }
        self.last_follower += 1;
        let number = self.last_follower;
        self.followers.insert(task, number);
        self.board.tasks.send_modify(|tasks| {
            tasks.insert(
                task,
                TaskView {
                    gitspace,
                    sent_seq: after,
                },
            );
        });
        let follower = Follower {
            runner: self.runner.clone(),
            link: self.link.clone(),
            board: self.board.clone(),
            task,
            gitspace,
            after,
        };
        self.spawn(async move {
            follower.run().await;
            Ended::Followed(task, number)
        });
    }

    /// Runs a job until the connection ends.
    fn spawn(&mut self, job: impl Future<Output = Ended> + Send + 'static) {
        let life = self.life.clone();
        self.jobs
            .spawn(async move { life.run_until_cancelled(job).await.unwrap_or(Ended::Called) });
    }
}

/// Sends one task's events in order, from wherever the control plane stands.
struct Follower {
    runner: Runner,
    link: LinkHandle,
    board: Board,
    task: TaskUuid,
    gitspace: GitspaceUuid,
    after: u64,
}

impl Follower {
    async fn run(mut self) {
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

async fn assign(runner: Runner, link: LinkHandle, task: Box<Task>) -> Ended {
    let (id, gitspace) = (task.id, task.gitspace);
    let started = Instant::now();
    let mut pause = Pause::new();
    let error = loop {
        match runner.put_task(&task).await {
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

async fn cancel(runner: Runner, task: TaskUuid) -> Ended {
    if let Err(error) = insist("cancel", task, || runner.cancel(task)).await {
        tracing::warn!(%task, error = %ErrorChain(&error), "The runner does not cancel a task");
    }
    Ended::Called
}

/// The control plane has stored the task's end.
async fn forget(runner: Runner, task: TaskUuid) -> Ended {
    if let Err(error) = insist("forget", task, || runner.forget(task)).await {
        // Its next hello tells of it again.
        tracing::warn!(%task, error = %ErrorChain(&error), "The runner does not forget a task");
    }
    Ended::Called
}

/// Nobody wants the task: it is ended, and then forgotten.
async fn abandon(runner: Runner, task: TaskUuid) -> Ended {
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
