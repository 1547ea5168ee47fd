//! One task for each gitspace: it alone changes what the gitspace is.
//!
//! ```text
//!            submit                    the work ends, is cancelled, or its time is over
//!   idle ──────────────▶ working ─────────────────────────────────────────▶ idle (or gone, after a delete)
//!     ▲  look (events, reconcile): observe and publish │
//!     └────────────────────────────────────────────────┘
//! ```
//!
//! Invariants: one active task at a time; no task of an older generation than one that was taken before; the task is journaled before it
//! is acknowledged; work may be dropped at any await, because
//! everything it has done is in the ledger or can be seen in Docker; `finished` carries what was really seen.
//!
//! Its mailbox holds [`MAILBOX`] requests; a sender waits while it is full.

mod agent;
mod container;
mod hooks;
mod look;
mod provision;
mod remove;
mod work;

use crate::{
    board::Sighting,
    journal::{JournalError, TaskJournal, time_left},
    ledger::{LedgerError, Record},
    sandbox::{Busy, Pool},
    shared::Shared,
};
use futures_util::{StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use wire::{
    control::TaskStatus,
    failure::{Failure, FailureCode},
    gitspace::{Generation, GitCredential, GitspaceSpec, Observed, ObservedState},
    ids::{GitspaceUuid, TaskUuid},
    task::{LogStream, Phase, Task, TaskEventKind, TaskKind, TaskOutcome, TaskVerb},
};
use work::Work;

/// A delegate has one task for a gitspace at a time; the rest are looks, which are dropped where the mailbox is full.
const MAILBOX: usize = 16;
/// At once, at start.
const LOOKS: usize = 16;

/// Why a task is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the gitspace is busy with task {active}")]
    Busy { active: TaskUuid },
    #[error("task {task} belongs to another gitspace")]
    OtherGitspace { task: TaskUuid },
    #[error(
        "the task is of generation {generation} of the gitspace, and one of generation {taken} was taken before it"
    )]
    Superseded {
        generation: Generation,
        taken: Generation,
    },
    #[error("the task's generation cannot be written down")]
    Ledger {
        #[source]
        source: LedgerError,
    },
    #[error("the task cannot be journaled")]
    Journal {
        #[source]
        source: JournalError,
    },
    #[error("the runner is drained, and starts nothing more")]
    Draining,
    #[error("the runner is stopping")]
    Stopping,
}

enum Request {
    Submit {
        task: Box<Task>,
        reply: oneshot::Sender<Result<TaskStatus, SubmitError>>,
    },
    Resume {
        journal: Arc<TaskJournal>,
    },
    Cancel {
        task: TaskUuid,
    },
    Look,
    /// Its agent does not answer.
    ReplaceAgent(Silent),
    /// The kernel killed something in the dev container for want of memory.
    OutOfMemory {
        at: Timestamp,
    },
}

/// An agent that does not answer for as long as the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silent {
    ForLong,
    /// It was replaced for it already.
    Still,
}

/// What to do about a task that came too late.
pub(crate) const SUPERSEDED_HINT: &str =
    "the later action decides; repeat this one where it is still wanted";

/// The tasks of all gitspaces.
#[derive(Clone, Debug)]
pub(crate) struct Gitspaces {
    shared: Arc<Shared>,
    handles: Arc<Mutex<HashMap<GitspaceUuid, mpsc::Sender<Request>>>>,
}

impl Gitspaces {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            handles: Arc::default(),
        }
    }

    /// Looks at everything the ledger holds, so that whoever asks first hears of all of it, and goes on with unfinished tasks.
    pub(crate) async fn resume(&self) {
        futures_util::stream::iter(self.shared.ledger.records())
            .for_each_concurrent(LOOKS, |record| async move {
                let sighting = look::look(&self.shared, record.gitspace, &[], None).await;
                self.shared.board.publish(sighting);
            })
            .await;
        for journal in self.shared.journal.all() {
            if !journal.finished() {
                tracing::info!(task = %journal.task().id, gitspace = %journal.task().gitspace, "Going on with a task");
                self.send(journal.task().gitspace, Request::Resume { journal })
                    .await;
            }
        }
    }

    /// Takes a task; the same one again is answered with where it is.
    pub(crate) async fn submit(&self, task: Task) -> Result<TaskStatus, SubmitError> {
        if let Some(known) = self.shared.journal.get(task.id) {
            return if known.task().gitspace == task.gitspace {
                Ok(known.status())
            } else {
                Err(SubmitError::OtherGitspace { task: task.id })
            };
        }
        // What takes away is still done: a host is drained so that it becomes empty.
        let starts = matches!(task.verb.kind(), TaskKind::Provision | TaskKind::Start);
        if starts && self.shared.drain.is_draining() {
            return Err(SubmitError::Draining);
        }
        let gitspace = task.gitspace;
        let (reply, answer) = oneshot::channel();
        let sent = self
            .send(
                gitspace,
                Request::Submit {
                    task: Box::new(task),
                    reply,
                },
            )
            .await;
        if !sent {
            return Err(SubmitError::Stopping);
        }
        answer.await.unwrap_or(Err(SubmitError::Stopping))
    }

    pub(crate) async fn cancel(&self, journal: &TaskJournal) {
        let task = journal.task();
        self.send(task.gitspace, Request::Cancel { task: task.id })
            .await;
    }

    /// Something may have changed. A full mailbox means that it will be looked at anyway.
    pub(crate) fn look(&self, gitspace: GitspaceUuid) {
        if let Err(error) = self.handle(gitspace).try_send(Request::Look) {
            tracing::debug!(%gitspace, %error, "Not looked at");
        }
    }

    /// Its container's first process is to start its agent again. A full mailbox means that a task is at work, or the next probe says it again.
    pub(crate) fn replace_agent(&self, gitspace: GitspaceUuid, silent: Silent) {
        let request = Request::ReplaceAgent(silent);
        if let Err(error) = self.handle(gitspace).try_send(request) {
            tracing::debug!(%gitspace, %error, "Its agent is not replaced");
        }
    }

    pub(crate) fn out_of_memory(&self, gitspace: GitspaceUuid, at: Timestamp) {
        let request = Request::OutOfMemory { at };
        if let Err(error) = self.handle(gitspace).try_send(request) {
            tracing::debug!(%gitspace, %error, "A kill for want of memory is not told");
        }
    }

    async fn send(&self, gitspace: GitspaceUuid, request: Request) -> bool {
        let mut request = request;
        // A task ends after a delete; what comes at that moment goes to the next one.
        for _ in 0..3 {
            let handle = self.handle(gitspace);
            match handle.send(request).await {
                Ok(()) => return true,
                Err(mpsc::error::SendError(back)) => request = back,
            }
        }
        false
    }

    fn handle(&self, gitspace: GitspaceUuid) -> mpsc::Sender<Request> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(&gitspace)
            && !handle.is_closed()
        {
            return handle.clone();
        }
        let (sender, requests) = mpsc::channel(MAILBOX);
        handles.insert(gitspace, sender.clone());
        let task = GitspaceTask {
            id: gitspace,
            shared: Arc::clone(&self.shared),
            requests,
            active: None,
            credentials: Vec::new(),
            out_of_memory: None,
        };
        let handles = Arc::clone(&self.handles);
        self.shared.tasks.spawn_job("gitspace", async move {
            task.run().await;
            let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
            if handles.get(&gitspace).is_some_and(mpsc::Sender::is_closed) {
                handles.remove(&gitspace);
            }
        });
        sender
    }
}

struct Active {
    journal: Arc<TaskJournal>,
    work: Arc<Work>,
    cancel: CancellationToken,
    running: BoxFuture<'static, TaskOutcome>,
    _busy: Busy,
}

struct GitspaceTask {
    id: GitspaceUuid,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    active: Option<Active>,
    /// Of the last task that brought some; in memory alone.
    credentials: Vec<GitCredential>,
    /// When something was last killed for want of memory, since the last task. Docker's own mark stays for the whole run of a container,
    /// also where it ends much later and of something else.
    out_of_memory: Option<Timestamp>,
}

enum Event {
    Request(Request),
    Ended(TaskOutcome),
    Stop,
}

impl GitspaceTask {
    async fn run(mut self) {
        let drain = self.shared.tasks.drain_token();
        loop {
            let event = {
                let active = self.active.as_mut();
                let running = async {
                    match active {
                        Some(active) => (&mut active.running).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = drain.cancelled() => Event::Stop,
                    outcome = running => Event::Ended(outcome),
                    request = self.requests.recv() => request.map_or(Event::Stop, Event::Request),
                }
            };
            match event {
                // Unfinished work is in the journal and goes on at the next start.
                Event::Stop => return,
                Event::Ended(outcome) => {
                    if self.finish(outcome).await {
                        return;
                    }
                }
                Event::Request(Request::Submit { task, reply }) => {
                    drop(reply.send(self.submit(*task)));
                }
                Event::Request(Request::Resume { journal }) => self.resume(journal).await,
                Event::Request(Request::Cancel { task }) => {
                    if let Some(active) = &self.active
                        && active.journal.task().id == task
                    {
                        active.cancel.cancel();
                    }
                }
                Event::Request(Request::OutOfMemory { at }) => {
                    self.out_of_memory = Some(at);
                    if self.active.is_none() {
                        self.look().await;
                    }
                }
                Event::Request(Request::Look) => {
                    if self.active.is_none() {
                        self.look().await;
                    }
                }
                Event::Request(Request::ReplaceAgent(silent)) => {
                    if self.active.is_none() {
                        agent::replace(&self.shared, self.id, silent).await;
                    }
                }
            }
        }
    }

    fn submit(&mut self, task: Task) -> Result<TaskStatus, SubmitError> {
        if let Some(known) = self.shared.journal.get(task.id) {
            return Ok(known.status());
        }
        let taken = self.shared.ledger.taken(self.id);
        if task.generation < taken {
            return Err(SubmitError::Superseded {
                generation: task.generation,
                taken,
            });
        }
        if let Some(active) = &self.active {
            return Err(SubmitError::Busy {
                active: active.journal.task().id,
            });
        }
        self.take(&task)
            .map_err(|source| SubmitError::Ledger { source })?;
        let journal = self
            .shared
            .journal
            .create(&task)
            .map_err(|source| SubmitError::Journal { source })?;
        let status = journal.status();
        self.begin(journal, Some(task));
        Ok(status)
    }

    /// Writes down how far the gitspace has come, and what it is to be.
    fn take(&self, task: &Task) -> Result<(), LedgerError> {
        let spec = task.verb.spec().map(GitspaceSpec::without_secrets);
        let update = |record: &mut Record| {
            record.taken = record.taken.max(task.generation);
            if spec.is_some() {
                record.spec = spec;
            }
        };
        self.shared.ledger.update(self.id, update).map(|_| ())
    }

    /// Goes on with a task from the journal, unless a later one was taken: then its end was lost, and it must not be carried out again.
    async fn resume(&mut self, journal: Arc<TaskJournal>) {
        let task = journal.task();
        let taken = self.shared.ledger.taken(self.id);
        if task.generation >= taken && self.active.is_none() {
            // A record that was damaged is made again.
            if let Err(error) = self.take(task) {
                tracing::error!(error = %daemon::ErrorChain(&error), "Cannot write the ledger");
            }
            self.begin(journal, None);
            return;
        }
        tracing::warn!(task = %task.id, gitspace = %self.id, generation = %task.generation, %taken, "A task from the journal is superseded");
        let failure = Failure::new(
            FailureCode::Superseded,
            SubmitError::Superseded {
                generation: task.generation,
                taken,
            }
            .to_string(),
        )
        .hint(SUPERSEDED_HINT);
        let observed = match self.shared.board.get(self.id) {
            Some(observed) => observed,
            None => self.look().await,
        };
        journal.add(TaskEventKind::Finished {
            outcome: TaskOutcome::Failed { failure },
            observed: Box::new(observed),
        });
    }

    /// Starts the work. `task` has its secrets; a task from the journal has not.
    fn begin(&mut self, journal: Arc<TaskJournal>, task: Option<Task>) {
        if self.active.is_some() || journal.finished() {
            return;
        }
        let resumed = task.is_none();
        self.out_of_memory = None;
        let task = task.unwrap_or_else(|| journal.task().clone());
        if let Some(spec) = task.verb.spec() {
            self.credentials.clone_from(&spec.git_credentials);
        }
        if resumed && journal.status().last_seq > 0 {
            journal.log(
                Phase::Other,
                LogStream::System,
                "the runner was started again and goes on\n",
            );
        }
        let span = tracing::info_span!(
            "task", id = %task.id, gitspace = %task.gitspace, trace = %task.trace, verb = task.verb.kind().as_str()
        );
        let left = time_left(self.shared.clock.now(), task.deadline);
        let cancel = CancellationToken::new();
        let work = Arc::new(Work::new(
            Arc::clone(&self.shared),
            Arc::clone(&journal),
            task,
            resumed,
        ));
        let running = {
            let (work, cancel) = (Arc::clone(&work), cancel.clone());
            let run = async move {
                tracing::info!("Task begins");
                let (why, failure) = tokio::select! {
                    biased;
                    () = cancel.cancelled() => ("cancelled", None),
                    () = tokio::time::sleep(left) => ("out of time", Some(Failure::new(
                        FailureCode::DeadlineExceeded,
                        "the task did not end in its time",
                    ).hint("try again; where it is the clone or the image that takes long, its log says so"))),
                    result = Box::pin(work.run()) => {
                        return match result {
                            Ok(()) => TaskOutcome::Done {},
                            Err(failure) => TaskOutcome::Failed { failure },
                        };
                    }
                };
                tracing::info!(why, "Task is broken off");
                work.abandon(failure.as_ref()).await;
                match failure {
                    None => TaskOutcome::Cancelled {},
                    Some(failure) => TaskOutcome::Failed { failure },
                }
            };
            Box::pin(run.instrument(span))
        };
        self.publish_task(Some(journal.task().id));
        self.active = Some(Active {
            journal,
            work,
            cancel,
            running,
            _busy: Pool::hold(&self.shared),
        });
    }

    /// Says that a task is under way, with what was last seen.
    fn publish_task(&self, task: Option<TaskUuid>) {
        let last = self.shared.board.get(self.id);
        let sighting = last.map_or_else(
            || Sighting {
                gitspace: self.id,
                state: ObservedState::Absent,
                generation: self
                    .shared
                    .ledger
                    .get(self.id)
                    .map(|record| record.generation)
                    .unwrap_or_default(),
                failure: None,
                task,
                dev_container: None,
            },
            |last| Sighting {
                gitspace: self.id,
                state: last.state,
                generation: last.generation,
                failure: last.failure,
                task,
                dev_container: last.dev_container,
            },
        );
        self.shared.board.publish(sighting);
    }

    /// Tells the end of the active task; `true` where nothing is left of the gitspace.
    async fn finish(&mut self, outcome: TaskOutcome) -> bool {
        let Some(active) = self.active.take() else {
            return false;
        };
        let task = active.journal.task();
        let carried_out = !matches!(outcome, TaskOutcome::Cancelled {});
        let deleted = matches!(task.verb, TaskVerb::Delete {})
            && matches!(outcome, TaskOutcome::Done {})
            && self.shared.ledger.get(self.id).is_none();
        if carried_out && !deleted {
            let generation = task.generation;
            let updated = self.shared.ledger.update(self.id, |record| {
                record.generation = record.generation.max(generation);
            });
            if let Err(error) = updated {
                tracing::error!(error = %daemon::ErrorChain(&error), "Cannot write the ledger");
            }
        }
        let observed = if deleted {
            self.shared.board.publish(Sighting {
                gitspace: self.id,
                state: ObservedState::Absent,
                generation: task.generation,
                failure: None,
                task: None,
                dev_container: None,
            })
        } else {
            self.look().await
        };
        let outcome = as_seen(outcome, observed.failure.as_ref());
        match &outcome {
            TaskOutcome::Done {} => tracing::info!(task = %task.id, "Task done"),
            TaskOutcome::Cancelled {} => tracing::info!(task = %task.id, "Task cancelled"),
            TaskOutcome::Failed { failure } => {
                tracing::warn!(task = %task.id, code = ?failure.code, %failure, detail = failure.detail, "Task failed");
            }
        }
        active.journal.add(TaskEventKind::Finished {
            outcome,
            observed: Box::new(observed),
        });
        active.work.sweep();
        if deleted {
            self.shared.board.retire(self.id);
            self.requests.close();
        }
        deleted && self.requests.is_empty()
    }

    async fn look(&mut self) -> Observed {
        let sighting =
            look::look(&self.shared, self.id, &self.credentials, self.out_of_memory).await;
        self.shared.board.publish(sighting)
    }
}

/// What may be said of a task after the look that follows it. Where Docker went away in between, what was last seen is from before the task, and
/// nobody knows that it worked: it is asked for again.
fn as_seen(outcome: TaskOutcome, seen: Option<&Failure>) -> TaskOutcome {
    match (outcome, seen) {
        (TaskOutcome::Done {}, Some(failure)) if failure.code == FailureCode::DockerUnavailable => {
            TaskOutcome::Failed {
                failure: failure.clone(),
            }
        }
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_not_done_where_nobody_can_see_that_it_is() {
        let gone = Failure::new(FailureCode::DockerUnavailable, "Docker does not answer");
        let done = as_seen(TaskOutcome::Done {}, Some(&gone));
        assert!(
            matches!(&done, TaskOutcome::Failed { failure } if failure.code.is_transient()),
            "{done:?}"
        );
        let silent = Failure::new(FailureCode::AgentSilent, "its agent does not answer");
        for seen in [None, Some(&silent)] {
            assert!(matches!(
                as_seen(TaskOutcome::Done {}, seen),
                TaskOutcome::Done {}
            ));
        }
        assert!(matches!(
            as_seen(TaskOutcome::Cancelled {}, Some(&gone)),
            TaskOutcome::Cancelled {}
        ));
    }
}
