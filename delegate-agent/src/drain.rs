//! Draining this host: the control plane gives it nothing more, and at the deadline what still runs is handed back.
//!
//! Handed back means cancelled at the runner: the control plane gives the task again when the host takes work again. Gitspaces that run
//! are left alone.

use crate::{runner::Runner, status::Board, uplink::LinkHandle};
use admin::{DrainFile, DrainFileError, DrainRequest, DrainState};
use daemon::{Clock, ErrorChain};
use link::Class;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::control::Up;

/// Before a runner that did not answer is asked again to cancel.
const RETRY: Duration = Duration::from_secs(5);
/// The clock may be set meanwhile: a deadline is looked at this often at least.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    file: DrainFile,
    link: LinkHandle,
    board: Board,
    clock: Arc<dyn Clock>,
    changed: Arc<Notify>,
}

impl Drain {
    #[must_use]
    pub fn new(file: DrainFile, link: LinkHandle, board: Board, clock: Arc<dyn Clock>) -> Self {
        Self {
            file,
            link,
            board,
            clock,
            changed: Arc::default(),
        }
    }

    #[must_use]
    pub fn state(&self) -> DrainState {
        self.file.state(self.board.tasks.borrow().len())
    }

    /// Kept before the control plane hears of it; one that is away hears of it by the next hello.
    ///
    /// # Errors
    /// Nothing has changed where it cannot be kept.
    pub async fn begin(&self, request: DrainRequest) -> Result<DrainState, DrainFileError> {
        let (file, now) = (self.file.clone(), self.clock.now());
        tokio::task::block_in_place(|| file.begin(request, now))?;
        tracing::info!(deadline_s = request.deadline_s, "Draining");
        self.tell(true).await;
        Ok(self.state())
    }

    /// # Errors
    /// Nothing has changed where the file stays.
    pub async fn end(&self) -> Result<DrainState, DrainFileError> {
        tokio::task::block_in_place(|| self.file.end())?;
        tracing::info!("Taking work again");
        self.tell(false).await;
        Ok(self.state())
    }

    async fn tell(&self, draining: bool) {
        self.changed.notify_one();
        let live = self.board.link.borrow().state == "live";
        if live
            && self
                .link
                .send(Up::Draining { draining }, Class::Control)
                .await
                .is_err()
        {
            tracing::debug!(
                "The uplink has ended; the next start says whether the host is drained"
            );
        }
    }

    /// Hands tasks back at the deadline, until `stop`.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, runner: Runner, stop: CancellationToken) -> Result<(), Infallible> {
        let work = async {
            loop {
                let deadline = self.state().deadline;
                let left = deadline.map(|deadline| {
                    Duration::try_from(deadline.duration_since(self.clock.now()))
                        .unwrap_or_default()
                });
                let wait = match left {
                    Some(left) if left.is_zero() => {
                        self.hand_back(&runner).await;
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
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            never = work => never,
        }
    }

    async fn hand_back(&self, runner: &Runner) {
        let tasks = match runner.tasks().await {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "Cannot hand tasks back; trying again");
                return;
            }
        };
        for task in tasks.into_iter().filter(|task| !task.finished) {
            tracing::info!(task = %task.task, gitspace = %task.gitspace, "Handing a task back at the end of the drain");
            if let Err(error) = runner.cancel(task.task).await {
                tracing::warn!(task = %task.task, error = %ErrorChain(&error), "Cannot hand a task back; trying again");
            }
        }
    }
}
