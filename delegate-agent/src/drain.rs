//! Draining this host: the control plane gives it nothing more, and at the deadline what still runs is handed back.
//!
//! Handed back are starts, by cancelling them at the runner: the control plane gives them again when the host takes work again. What stops,
//! resets or deletes goes on, and gitspaces that run are left alone.

use crate::{
    runner::Runner,
    status::Board,
    uplink::{LinkHandle, LiveLink},
};
use admin::{DrainFile, DrainFileError, DrainRequest, DrainState};
use daemon::{Clock, ErrorChain};
use link::Class;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{TaskStatus, Up},
    task::TaskKind,
};

/// Before a runner that did not answer is asked again to cancel.
const RETRY: Duration = Duration::from_secs(5);
/// The clock may be set meanwhile: a deadline is looked at this often at least.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    file: DrainFile,
    board: Board,
    clock: Arc<dyn Clock>,
    /// The deadline may be another.
    changed: Arc<Notify>,
}

/// What the drain's task speaks to.
#[derive(Debug)]
pub struct DrainEnds {
    pub runner: Runner,
    pub link: LinkHandle,
    pub live: watch::Receiver<Option<LiveLink>>,
}

impl Drain {
    #[must_use]
    pub fn new(file: DrainFile, board: Board, clock: Arc<dyn Clock>) -> Self {
        Self {
            file,
            board,
            clock,
            changed: Arc::default(),
        }
    }

    #[must_use]
    pub fn state(&self) -> DrainState {
        self.file.state(self.board.tasks.borrow().len())
    }

    /// # Errors
    /// Nothing has changed where it cannot be kept.
    pub fn begin(&self, request: DrainRequest) -> Result<DrainState, DrainFileError> {
        let now = self.clock.now();
        tokio::task::block_in_place(|| self.file.begin(request, now))?;
        tracing::info!(deadline_s = request.deadline_s, "Draining");
        self.changed.notify_one();
        Ok(self.state())
    }

    /// # Errors
    /// Nothing has changed where the file stays.
    pub fn end(&self) -> Result<DrainState, DrainFileError> {
        tokio::task::block_in_place(|| self.file.end())?;
        tracing::info!("Taking work again");
        self.changed.notify_one();
        Ok(self.state())
    }

    /// Keeps the control plane's knowledge true, and hands tasks back at the deadline, until `stop`.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, ends: DrainEnds, stop: CancellationToken) -> Result<(), Infallible> {
        let DrainEnds { runner, link, live } = ends;
        let work = async {
            tokio::join!(self.tell(&link, live), self.hand_back_in_time(&runner));
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        Ok(())
    }

    /// A hello says what held when it was written. What holds is compared with what was told last, at every change of either.
    async fn tell(&self, link: &LinkHandle, mut live: watch::Receiver<Option<LiveLink>>) {
        let mut draining = self.file.subscribe();
        let mut told = None;
        loop {
            let now = *live.borrow_and_update();
            let own = *draining.borrow_and_update();
            match now {
                None => told = None,
                Some(now) => {
                    let known = match told {
                        Some((epoch, known)) if epoch == now.epoch => known,
                        Some(_) | None => now.draining,
                    };
                    let wanted = own || now.runner_draining;
                    if known != wanted
                        && link
                            .send(Up::Draining { draining: wanted }, Class::Control)
                            .await
                            .is_err()
                    {
                        return;
                    }
                    told = Some((now.epoch, wanted));
                }
            }
            let ended = tokio::select! {
                changed = live.changed() => changed.is_err(),
                changed = draining.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    async fn hand_back_in_time(&self, runner: &Runner) {
        let mut tasks = self.board.tasks.subscribe();
        loop {
            // What changes from here on is looked at again.
            tasks.mark_unchanged();
            let deadline = self.state().deadline;
            let left = deadline.map(|deadline| {
                Duration::try_from(deadline.duration_since(self.clock.now())).unwrap_or_default()
            });
            let wait = match left {
                Some(left) if left.is_zero() => {
                    if self.hand_back(runner).await {
                        // Nothing more is handed back until something more was given. A runner that was killed meanwhile has forgotten
                        // the cancel, and while the link is down nothing changes here.
                        tokio::select! {
                            () = self.changed.notified() => {}
                            _ = tasks.changed() => {}
                            () = tokio::time::sleep(LONGEST_WAIT) => {}
                        }
                        continue;
                    }
                    RETRY
                }
                Some(left) => left.min(LONGEST_WAIT),
                None => {
                    self.changed.notified().await;
                    continue;
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Whether the runner has taken back all that it was asked to.
    async fn hand_back(&self, runner: &Runner) -> bool {
        let tasks = match runner.tasks().await {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "Cannot hand tasks back; trying again");
                return false;
            }
        };
        let mut all = true;
        // What takes away makes the host empty, and goes on.
        let starts = |task: &TaskStatus| matches!(task.kind, TaskKind::Provision | TaskKind::Start);
        for task in tasks
            .into_iter()
            .filter(|task| !task.finished && starts(task))
        {
            tracing::info!(task = %task.task, gitspace = %task.gitspace, "Handing a task back at the end of the drain");
            if let Err(error) = runner.cancel(task.task).await {
                tracing::warn!(task = %task.task, error = %ErrorChain(&error), "Cannot hand a task back; trying again");
                all = false;
            }
        }
        all
    }
}
