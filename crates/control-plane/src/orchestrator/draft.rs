//! A change of one gitspace before it is stored. Pure: the rules by which actions, task events and observations change a record.

use super::{
    handle::{ActionDenied, OrchestratorConfig},
    plan::{backoff, is_retried, later},
    view::{is_settled, visible_state},
    words,
};
use jiff::Timestamp;
use store::{GitspaceCommit, GitspaceRecord, NewLogEntry, NewTimelineEvent, TaskRecord, TaskState};
use wire::{
    api::{GitspaceAction, TimelineKind},
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, GitspaceState, Observed, ObservedState},
    ids::TraceUuid,
    task::{TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

/// Where an observation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// While connected: one of a lower revision is old news.
    Watch,
    /// A hello, before anything else of the connection: a lower revision says that the runner lost what it knew.
    Hello,
}

/// The record and its unfinished task, copied, with what is to be written beside them.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) record: GitspaceRecord,
    pub(super) task: Option<TaskRecord>,
    task_touched: bool,
    timeline: Vec<NewTimelineEvent>,
    log: Vec<NewLogEntry>,
    now: Timestamp,
}

impl Draft {
    pub(super) fn new(record: &GitspaceRecord, task: Option<&TaskRecord>, now: Timestamp) -> Self {
        Self {
            record: record.clone(),
            task: task.cloned(),
            task_touched: false,
            timeline: Vec::new(),
            log: Vec::new(),
            now,
        }
    }

    /// What is to be written.
    pub(super) fn into_commit(mut self) -> (GitspaceCommit, Option<TaskRecord>) {
        if !self.timeline.is_empty() {
            self.record.updated = self.now;
        }
        let open = self
            .task
            .clone()
            .filter(|task| task.state != TaskState::Finished);
        (
            GitspaceCommit {
                made: false,
                gitspace: self.record,
                tasks: self
                    .task
                    .filter(|_| self.task_touched)
                    .into_iter()
                    .collect(),
                timeline: self.timeline,
                log: self.log,
            },
            open,
        )
    }

    /// Appends to the timeline. Called after the change it tells of: the event carries the state from there on.
    pub(super) fn say(&mut self, kind: TimelineKind, message: impl Into<String>) {
        self.say_more(kind, message.into(), |_| {});
    }

    fn say_more(
        &mut self,
        kind: TimelineKind,
        message: String,
        more: impl FnOnce(&mut NewTimelineEvent),
    ) {
        let mut event = NewTimelineEvent {
            at: self.now,
            kind,
            message,
            phase: None,
            duration_ms: None,
            failure: None,
            generation: self.record.generation,
            task: self.task.as_ref().map(|task| task.id),
            trace: self.record.trace,
            state: visible_state(&self.record),
        };
        more(&mut event);
        self.timeline.push(event);
    }

    /// Waits for `why`. `false` where that was said before.
    pub(super) fn wait(&mut self, why: Failure) -> bool {
        if self.record.waiting.as_ref() == Some(&why) {
            return false;
        }
        self.record.waiting = Some(why.clone());
        let message = format!("Waiting: {}", why.message);
        self.say_more(TimelineKind::Retrying, message, |event| {
            event.failure = Some(why);
        });
        true
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.record.error = Some(failure.clone());
        self.record.waiting = None;
        self.record.retry_at = None;
        let message = format!("The gitspace is in error: {}", failure.message);
        self.say_more(TimelineKind::StateChanged, message, |event| {
            event.failure = Some(failure);
        });
    }

    pub(super) fn remove(&mut self) {
        self.record.deleted = Some(self.now);
        self.record.waiting = None;
        self.record.error = None;
        self.say(TimelineKind::StateChanged, "The gitspace is deleted");
    }

    /// Makes `task` the gitspace's own.
    pub(super) fn issue(&mut self, task: TaskRecord, delegate: &str) {
        self.record.task = Some(task.id);
        self.record.phase = None;
        self.record.waiting = None;
        self.record.retry_at = None;
        let message = match task.attempt {
            0 | 1 => format!("{} given to delegate {delegate}", words::verb(task.kind)),
            attempt => format!(
                "{} given to delegate {delegate}, attempt {attempt}",
                words::verb(task.kind)
            ),
        };
        self.task = Some(task);
        self.task_touched = true;
        self.say(TimelineKind::TaskAssigned, message);
    }

    /// `until`: how long its end is awaited, where it is to be cancelled.
    pub(super) fn set_task_state(&mut self, state: TaskState, until: Option<Timestamp>) {
        if let Some(task) = &mut self.task {
            task.state = state;
            task.deadline = until.unwrap_or(task.deadline);
            self.task_touched = true;
        }
    }

    /// Takes a user's action. `false` where it is already so.
    pub(super) fn act(
        &mut self,
        action: GitspaceAction,
        actor: &str,
        trace: TraceUuid,
    ) -> Result<bool, ActionDenied> {
        let state = visible_state(&self.record);
        if state == GitspaceState::Deleted {
            return Err(ActionDenied::NotFound);
        }
        let desired = match action {
            GitspaceAction::Delete if state == GitspaceState::Deleting => return Ok(false),
            GitspaceAction::Delete => DesiredState::Deleted,
            GitspaceAction::Cancel => match state {
                GitspaceState::Starting | GitspaceState::Resetting => DesiredState::Stopped,
                // Nothing of it was begun: it can be taken back.
                GitspaceState::Deleting if self.is_untouched() => DesiredState::Stopped,
                GitspaceState::Deleting => {
                    let message = format!("Cancel by {actor}: a delete that has begun is finished");
                    self.say(TimelineKind::Action, message);
                    return Ok(true);
                }
                // A stop is on its way to where it can rest.
                GitspaceState::Stopping
                | GitspaceState::Uninitialized
                | GitspaceState::Running
                | GitspaceState::Stopped
                | GitspaceState::Deleted
                | GitspaceState::Error => return Ok(false),
            },
            GitspaceAction::Start | GitspaceAction::Stop | GitspaceAction::Reset => {
                if self.record.desired == DesiredState::Deleted {
                    return Err(ActionDenied::Deleting);
                }
                // What is under way already is no second action.
                if let (GitspaceAction::Start, GitspaceState::Starting)
                | (GitspaceAction::Stop, GitspaceState::Stopping)
                | (GitspaceAction::Reset, GitspaceState::Resetting) = (action, state)
                {
                    return Ok(false);
                }
                if state.is_busy() {
                    return Err(ActionDenied::Busy {
                        state,
                        phase: self.record.phase,
                        since: self
                            .task
                            .as_ref()
                            .map_or(self.record.updated, |task| task.created),
                    });
                }
                match (action, state) {
                    (GitspaceAction::Start, GitspaceState::Running)
                    | (
                        GitspaceAction::Stop,
                        GitspaceState::Stopped | GitspaceState::Uninitialized,
                    )
                    | (GitspaceAction::Reset, GitspaceState::Uninitialized) => return Ok(false),
                    (GitspaceAction::Start, _) => DesiredState::Running,
                    (GitspaceAction::Stop, _) => DesiredState::Stopped,
                    _ => DesiredState::Uninitialized,
                }
            }
        };
        let record = &mut self.record;
        record.desired = desired;
        // A control plane that was put back to an older state is behind what its runner has taken.
        let seen = record.observed.as_ref().map(|seen| seen.generation);
        record.generation = record.generation.max(seen.unwrap_or_default()).next();
        record.trace = trace;
        record.attempts = 0;
        record.retry_at = None;
        record.exits.clear();
        record.error = None;
        record.waiting = None;
        let message = format!("{} by {actor}", words::action(action));
        self.say_more(TimelineKind::Action, message, |event| event.task = None);
        Ok(true)
    }

    /// Whether no runner was asked to do what is desired.
    fn is_untouched(&self) -> bool {
        self.record.attempts == 0
            && self.task.as_ref().is_none_or(|task| {
                task.state == TaskState::Queued || task.generation != self.record.generation
            })
    }

    /// Takes the next event of the open task. `draining`: whether its host takes nothing more.
    pub(super) fn take_event(
        &mut self,
        event: TaskEvent,
        draining: bool,
        config: &OrchestratorConfig,
    ) {
        let Some(task) = &mut self.task else { return };
        task.stored_seq = event.seq;
        // Hearing of it is the proof that it reached the runner.
        if task.state == TaskState::Queued {
            task.state = TaskState::Assigned;
        }
        self.task_touched = true;
        let current = task.generation == self.record.generation;
        let at = event.at;
        match event.event {
            TaskEventKind::PhaseStarted { phase } => {
                self.record.phase = Some(phase);
                let message = format!("{} started", words::phase(phase));
                self.say_more(TimelineKind::PhaseStarted, message, |event| {
                    (event.at, event.phase) = (at, Some(phase));
                });
            }
            TaskEventKind::PhaseCompleted {
                phase,
                duration_ms,
                detail,
            } => {
                let message = detail.map_or_else(
                    || format!("{} completed", words::phase(phase)),
                    |detail| format!("{} completed: {detail}", words::phase(phase)),
                );
                self.say_more(TimelineKind::PhaseCompleted, message, |event| {
                    (event.at, event.phase) = (at, Some(phase));
                    event.duration_ms = Some(duration_ms);
                });
            }
            TaskEventKind::PhaseFailed {
                phase,
                duration_ms,
                failure,
            } => {
                let message = format!("{} failed: {}", words::phase(phase), failure.message);
                self.say_more(TimelineKind::PhaseFailed, message, |event| {
                    (event.at, event.phase) = (at, Some(phase));
                    event.duration_ms = Some(duration_ms);
                    event.failure = Some(failure);
                });
            }
            TaskEventKind::Log {
                phase,
                stream,
                text,
            } => self.log.push(NewLogEntry {
                at,
                phase,
                stream,
                text,
            }),
            TaskEventKind::Finished { outcome, observed } => {
                if observed.gitspace == self.record.id {
                    accept(&mut self.record, *observed, Source::Watch);
                }
                match outcome {
                    TaskOutcome::Done {} => self.task_done(current, config),
                    TaskOutcome::Failed { failure } => self.task_failed(failure, config),
                    TaskOutcome::Cancelled {} => self.task_given_back(current, draining, config),
                }
            }
        }
    }

    /// Ends the open task; answers with it as it was.
    fn end_task(&mut self) -> Option<TaskRecord> {
        let task = self.task.as_mut()?;
        let before = task.clone();
        task.state = TaskState::Finished;
        task.finished = Some(self.now);
        self.task_touched = true;
        self.record.task = None;
        self.record.phase = None;
        Some(before)
    }

    fn task_done(&mut self, current: bool, config: &OrchestratorConfig) {
        let Some(task) = self.end_task() else { return };
        if let Some(observed) = &mut self.record.observed {
            observed.generation = observed.generation.max(task.generation);
        }
        if !current {
            return;
        }
        let state = self
            .record
            .observed
            .as_ref()
            .map_or(ObservedState::Absent, |observed| observed.state);
        let reached = match task.kind {
            TaskKind::Delete => state == ObservedState::Absent,
            TaskKind::Provision
            | TaskKind::Start
            | TaskKind::Stop
            | TaskKind::Reset
            | TaskKind::Observe => is_settled(&self.record),
        };
        if !reached {
            self.attempt_failed(task.kind, words::not_there_yet(task.kind, state), config);
            return;
        }
        self.record.attempts = 0;
        self.record.retry_at = None;
        self.record.waiting = None;
        // A removal is told of when it is stored.
        if task.kind != TaskKind::Delete {
            let message = words::reached(visible_state(&self.record));
            self.say(TimelineKind::StateChanged, message);
        }
    }

    /// Ends the open task, which did not work (or was not taken).
    pub(super) fn task_failed(&mut self, failure: Failure, config: &OrchestratorConfig) {
        let Some(task) = self.end_task() else { return };
        // Where the user wants something else meanwhile, its failure decides nothing.
        if task.generation == self.record.generation {
            self.attempt_failed(task.kind, failure, config);
        }
    }

    /// Ends the open task, which the runner does not hold any more: what is still wanted is given anew.
    pub(super) fn task_lost(&mut self) {
        if let Some(task) = self.end_task()
            && task.generation != self.record.generation
        {
            let message = format!("{} was cancelled", words::verb(task.kind));
            self.say(TimelineKind::StateChanged, message);
        }
    }

    /// Ends the open task, which its runner has cancelled.
    fn task_given_back(&mut self, current: bool, draining: bool, config: &OrchestratorConfig) {
        let is_ours = self
            .task
            .as_ref()
            .is_none_or(|task| task.state == TaskState::Cancelling);
        // A host that is not being drained has no reason to give anything back: that counts as an attempt, or it could go on for ever.
        if is_ours || !current || !draining {
            self.task_cancelled(config);
            return;
        }
        // Nobody here asked for it, and nothing went wrong. Not at once, in case something else cancels it again.
        let Some(task) = self.end_task() else { return };
        self.record.retry_at = Some(later(self.now, config.first_retry));
        let message = format!("{} was handed back by its host", words::verb(task.kind));
        self.say(TimelineKind::StateChanged, message);
    }

    /// Ends the open task, which was cancelled or whose end nobody will tell.
    pub(super) fn task_cancelled(&mut self, config: &OrchestratorConfig) {
        let Some(task) = self.end_task() else { return };
        if task.generation != self.record.generation {
            let message = format!("{} was cancelled", words::verb(task.kind));
            self.say(TimelineKind::StateChanged, message);
            return;
        }
        let failure = match task.state {
            TaskState::Cancelling => words::deadline_exceeded(task.kind),
            // It never reached a runner: that is no attempt.
            TaskState::Queued => return,
            TaskState::Assigned | TaskState::Finished => words::given_up(task.kind),
        };
        self.attempt_failed(task.kind, failure, config);
    }

    fn attempt_failed(&mut self, kind: TaskKind, failure: Failure, config: &OrchestratorConfig) {
        self.record.attempts = self.record.attempts.saturating_add(1);
        if !is_retried(kind, failure.code) || self.record.attempts >= config.max_attempts {
            self.fail(failure);
            return;
        }
        let delay = backoff(&self.record, self.record.attempts, config);
        self.record.retry_at = Some(later(self.now, delay));
        self.record.waiting = Some(failure.clone());
        let message = format!(
            "{} failed and is tried again in {} s: {}",
            words::verb(kind),
            delay.as_secs().max(1),
            failure.message
        );
        self.say_more(TimelineKind::Retrying, message, |event| {
            event.failure = Some(failure);
        });
    }

    /// Takes what the runner sees. `false` where that changes nothing.
    pub(super) fn take_observed(
        &mut self,
        observed: Observed,
        source: Source,
        config: &OrchestratorConfig,
    ) -> bool {
        let state = |record: &GitspaceRecord| {
            record
                .observed
                .as_ref()
                .map_or(ObservedState::Absent, |observed| observed.state)
        };
        let before = state(&self.record);
        let was_running = visible_state(&self.record) == GitspaceState::Running;
        let failure = observed.failure.clone();
        let told = self
            .record
            .observed
            .as_ref()
            .and_then(|known| known.failure.as_ref())
            .map(|known| (known.code, known.message.clone()));
        if !accept(&mut self.record, observed, source) {
            return false;
        }
        let after = state(&self.record);
        // While a task is under way, its own events tell.
        if self.record.task.is_some() {
            return true;
        }
        if before == after {
            match failure {
                // It runs on, and something in it is wrong.
                Some(failure)
                    if was_running && told != Some((failure.code, failure.message.clone())) =>
                {
                    let message = capital(&failure.message);
                    self.say_more(TimelineKind::StateChanged, message, |event| {
                        event.failure = Some(failure);
                    });
                }
                None if was_running
                    && told.is_some_and(|(code, _)| code == FailureCode::AgentSilent) =>
                {
                    let message = "The agent of the gitspace answers again";
                    self.say(TimelineKind::StateChanged, message);
                }
                Some(_) | None => {}
            }
            return true;
        }
        if was_running && after != ObservedState::Running {
            self.container_ended(failure.unwrap_or_else(words::container_exited), config);
            return true;
        }
        let message = format!("The runner sees it {}", words::observed(after));
        self.say_more(TimelineKind::StateChanged, message, |event| {
            event.failure = failure;
        });
        true
    }

    /// It ran, nobody stopped it, and it does not run: it is started again, but not for ever.
    fn container_ended(&mut self, failure: Failure, config: &OrchestratorConfig) {
        let now = self.now;
        let record = &mut self.record;
        record
            .exits
            .retain(|at| later(*at, config.exit_window) > now);
        record.exits.push(now);
        let exits = u32::try_from(record.exits.len()).unwrap_or(u32::MAX);
        if exits > config.max_restarts {
            self.fail(failure);
            return;
        }
        // The first time at once.
        record.retry_at = (exits > 1).then(|| later(now, backoff(record, exits - 1, config)));
        record.waiting = Some(failure.clone());
        let message = format!("{}; it is started again", capital(&failure.message));
        self.say_more(TimelineKind::Retrying, message, |event| {
            event.failure = Some(failure);
        });
    }
}

/// Keeps the later of two observations; its generation never goes back. `false` where it is not later.
fn accept(record: &mut GitspaceRecord, mut observed: Observed, source: Source) -> bool {
    if let Some(known) = &record.observed {
        let later = match source {
            Source::Watch => observed.revision > known.revision,
            Source::Hello => observed.revision != known.revision || observed.state != known.state,
        };
        if !later {
            return false;
        }
        observed.generation = observed.generation.max(known.generation);
    }
    record.observed = Some(observed);
    true
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
