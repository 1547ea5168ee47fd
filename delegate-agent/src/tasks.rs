//! Carries tasks to the runner and their events back.
//!
//! One task owns who follows what; each follower and each call to the runner is a job of its own. Everything here lives as long as one
//! connection of the link: the next connection's hello and its verdicts say where to go on, so that nothing has to be remembered. That is
//! also the answer to a job that panics: the link is made anew ([`recovery`]).
//!
//! Invariants: a task's events are sent in order by one follower; a task is forgotten at the runner only when the control plane has stored
//! its end, or does not know it; no result is made up: what the runner does not say is not said.

mod jobs;
mod recovery;

use crate::{
    probe::Prober,
    runner::Runner,
    status::{Board, TaskView},
    uplink::{LinkEvent, LinkHandle, Told},
};
use daemon::Pulse;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use jobs::{Follower, abandon, assign, cancel, forget};
use recovery::Recovery;
use std::{
    any::Any,
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{Down, TaskVerdict},
    ids::{GitspaceUuid, TaskUuid},
    tunnel::TunnelOffers,
};

/// Jobs at once. A host has far fewer gitspaces; more is a control plane gone wrong, which then waits.
const MAX_JOBS: usize = 4096;

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
    /// A defect of ours: what it was about is carried on by nobody.
    Panicked {
        job: &'static str,
        /// Where it was about one.
        task: Option<TaskUuid>,
        message: String,
    },
}

/// What [`TasksTask::run`] waits for.
enum Event {
    Stop,
    Job(Result<Ended, JoinError>),
    Link(Option<LinkEvent>),
    Recover,
}

#[derive(Debug)]
pub struct TasksTask {
    runner: Runner,
    link: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    board: Board,
    jobs: JoinSet<Ended>,
    recovery: Recovery,
    prober: Prober,
    /// Where tunnels are to lead.
    offers: watch::Sender<Option<TunnelOffers>>,
    /// Cancelled when the connection ends.
    life: CancellationToken,
    /// Number of the follower of each followed task.
    followers: HashMap<TaskUuid, u64>,
    last_follower: u64,
    assigning: HashSet<TaskUuid>,
    /// Cancelled while they were being assigned.
    cancel_after: HashSet<TaskUuid>,
    pulse: Pulse,
}

impl TasksTask {
    #[must_use]
    pub fn new(
        runner: Runner,
        link: LinkHandle,
        events: mpsc::Receiver<LinkEvent>,
        prober: Prober,
        offers: watch::Sender<Option<TunnelOffers>>,
        pulse: Pulse,
    ) -> Self {
        Self {
            runner,
            link,
            events,
            board: prober.board.clone(),
            prober,
            offers,
            jobs: JoinSet::new(),
            recovery: Recovery::new(),
            life: CancellationToken::new(),
            followers: HashMap::new(),
            last_follower: 0,
            assigning: HashSet::new(),
            cancel_after: HashSet::new(),
            pulse,
        }
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// Ends where the uplink has.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TasksError> {
        loop {
            match self.wait(&stop).await {
                Event::Stop => return Ok(()),
                Event::Job(Ok(ended)) => self.on_ended(ended),
                // Only the end of this task cancels jobs.
                Event::Job(Err(error)) => {
                    tracing::debug!(%error, "A job for the runner was dropped");
                }
                Event::Link(Some(event)) => self.on_event(event),
                Event::Link(None) if stop.is_cancelled() => return Ok(()),
                Event::Link(None) => return Err(TasksError::LinkEnded),
                Event::Recover => {
                    self.recovery.done();
                    self.link.reconnect();
                }
            }
        }
    }

    async fn wait(&mut self, stop: &CancellationToken) -> Event {
        let recover = self.recovery.due();
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            never = self.pulse.beat() => match never {},
            Some(ended) = self.jobs.join_next() => Event::Job(ended),
            event = self.events.recv(), if self.jobs.len() < MAX_JOBS => Event::Link(event),
            () = async {
                match recover {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => Event::Recover,
        }
    }

    fn on_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Lost => self.begin_life(),
            LinkEvent::Live { verdicts, told } => {
                self.begin_life();
                self.on_verdicts(verdicts, &told);
            }
            // Through this task, so that a probe finds out whether it turns.
            LinkEvent::Probe {
                epoch,
                id,
                all,
                asked,
            } => {
                let (prober, link) = (self.prober.clone(), self.link.clone());
                self.spawn("probe", None, async move {
                    let report = prober.answer(asked, all).await;
                    // Where the uplink has ended, the process stops.
                    let _ended = link.probed(epoch, id, report).await;
                    Ended::Called
                });
            }
            LinkEvent::Down(Down::Assign { mut task, limit_ms }) => {
                if let Some(limit) = limit_ms {
                    // By this host's clock, which is the runner's too.
                    let now = self.prober.clock.now();
                    task.deadline = now
                        .checked_add(Duration::from_millis(limit))
                        .unwrap_or(Timestamp::MAX);
                }
                tracing::info!(task = %task.id, gitspace = %task.gitspace, kind = task.verb.kind().as_str(), trace = %task.trace, "Task assigned");
                self.assigning.insert(task.id);
                let (runner, link) = (self.runner.clone(), self.link.clone());
                self.spawn("assign", task.id, assign(runner, link, task));
            }
            LinkEvent::Down(Down::Tunnels { offers }) => {
                tracing::debug!(gateways = offers.open.len(), "Gateways are offered");
                self.offers.send_replace(Some(offers));
            }
            LinkEvent::Down(Down::Cancel { task }) => {
                if self.assigning.contains(&task) {
                    self.cancel_after.insert(task);
                } else {
                    self.spawn("cancel", task, cancel(self.runner.clone(), task));
                }
            }
            LinkEvent::Down(Down::Stored { task, .. }) => {
                self.spawn("forget", task, forget(self.runner.clone(), task));
            }
        }
    }

    /// What the last connection wanted is void.
    fn begin_life(&mut self) {
        self.life.cancel();
        self.life = CancellationToken::new();
        self.recovery.done();
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
                    self.spawn("cancel", task, cancel(self.runner.clone(), task));
                    if let Some(gitspace) = gitspace_of(task) {
                        self.follow(task, gitspace, after);
                    }
                }
                TaskVerdict::Forget { task } => {
                    self.spawn("abandon", task, abandon(self.runner.clone(), task));
                }
            }
        }
    }

    fn on_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Taken(task, gitspace) => {
                // Of an earlier connection where it is not known any more: the hello of this one has told of the task.
                if self.assigning.remove(&task) {
                    self.follow(task, gitspace, 0);
                    if self.cancel_after.remove(&task) {
                        self.spawn("cancel", task, cancel(self.runner.clone(), task));
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
            Ended::Panicked { job, task, message } => {
                let now = Instant::now();
                let pause = self.recovery.panicked(now).saturating_duration_since(now);
                tracing::error!(
                    job,
                    task = task.map(tracing::field::display),
                    message,
                    reconnect_in_ms = pause.as_millis(),
                    "A job for the runner panicked; the link is made anew to see where its task stands"
                );
            }
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
        self.spawn("follow", task, async move {
            follower.run().await;
            Ended::Followed(task, number)
        });
    }

    /// Runs a job until the connection ends. Its panic matters while the connection lasts: the next one's hello compares anyway.
    fn spawn(
        &mut self,
        job: &'static str,
        task: impl Into<Option<TaskUuid>>,
        work: impl Future<Output = Ended> + Send + 'static,
    ) {
        let task = task.into();
        let life = self.life.clone();
        self.jobs.spawn(async move {
            let work = AssertUnwindSafe(work).catch_unwind();
            match life.run_until_cancelled(work).await {
                Some(Ok(ended)) => ended,
                Some(Err(panic)) => Ended::Panicked {
                    job,
                    task,
                    message: words_of(&*panic),
                },
                None => Ended::Called,
            }
        });
    }
}

/// What a panic said, where it said it in words.
fn words_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;
    use std::time::Duration;
    use wire::{control::TaskStatus, gitspace::Generation, task::TaskKind};

    fn task_id(n: u128) -> TaskUuid {
        TaskUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
    }

    /// A task without a runner, and the sending end of what the link says.
    fn tasks(link: &LinkHandle) -> (TasksTask, mpsc::Sender<LinkEvent>) {
        let (events, receiver) = mpsc::channel(8);
        let runner = Runner::new("/nonexistent/runner.sock".into());
        let prober = Prober {
            runner: runner.clone(),
            board: Board::default(),
            clock: std::sync::Arc::new(daemon::SystemClock),
        };
        let tasks = TasksTask::new(
            runner,
            link.clone(),
            receiver,
            prober,
            watch::Sender::default(),
            daemon::Pulses::default().register("tasks"),
        );
        (tasks, events)
    }

    fn live(task: TaskUuid) -> LinkEvent {
        let status = TaskStatus {
            task,
            gitspace: GitspaceUuid::nil(),
            generation: Generation(1),
            kind: TaskKind::Start,
            finished: false,
            last_seq: 3,
        };
        LinkEvent::Live {
            verdicts: vec![TaskVerdict::Continue { task, after: 3 }],
            told: Told {
                runner_ready: true,
                draining: false,
                runner_draining: false,
                tasks: vec![status],
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicked_job_makes_the_link_anew_whose_hello_finds_its_task_again() {
        let (link, ends) = LinkHandle::loose();
        let (mut tasks, events) = tasks(&link);
        let board = tasks.board.clone();
        tasks.spawn("follow", task_id(1), async { panic!("a defect") });
        let begun = Instant::now();
        let run = tasks.run(CancellationToken::new());
        let seen = async {
            ends.reconnect.notified().await;
            assert_eq!(begun.elapsed(), Duration::from_secs(1));
            for event in [LinkEvent::Lost, live(task_id(1))] {
                events.send(event).await.expect("taken");
            }
            let mut followed = board.tasks.subscribe();
            let followed = followed.wait_for(|tasks| tasks.contains_key(&task_id(1)));
            followed.await.expect("published");
        };
        tokio::select! {
            ended = run => panic!("the task ended: {ended:?}"),
            () = seen => {}
        }
    }

    #[tokio::test]
    async fn a_job_of_a_connection_that_is_over_panics_without_consequence() {
        let (link, _ends) = LinkHandle::loose();
        for is_over in [false, true] {
            let (mut tasks, _events) = tasks(&link);
            tasks.spawn("cancel", task_id(1), async { panic!("a defect") });
            if is_over {
                tasks.on_event(LinkEvent::Lost);
            }
            match tasks.wait(&CancellationToken::new()).await {
                Event::Job(Ok(ended)) => tasks.on_ended(ended),
                Event::Job(Err(_)) | Event::Stop | Event::Link(_) | Event::Recover => {
                    panic!("the job was to end first")
                }
            }
            assert_eq!(tasks.recovery.due().is_some(), !is_over);
        }
    }
}
