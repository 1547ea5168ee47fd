//! From start to drained stop.
//!
//! Two tokens: *drain* (finish, accept nothing) is a child of *kill* (drop everything).
//!
//! ```text
//! running --SIGTERM, SIGINT, a vital task ends--> draining --all ended--------------------> stopped
//!    \--SIGHUP--> reloading --> running              \--grace over, a second signal--> killed --> stopped
//! ```
//!
//! Invariants: a vital task that ends or panics before the drain stops the process with a failing code; nothing that
//! was spawned here outlives [`Lifecycle::run`]; the service manager's watchdog is fed only while every registered loop answers.

use crate::{ErrorChain, Exit, Pulse, Pulses};
use sd_notify::NotifyState;
use std::{
    error::Error,
    fmt,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// A configuration is a few files.
const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// Where tasks are spawned and learn of the stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    drain: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
    pulses: Pulses,
    /// With which the process ends, where a task says so.
    exit: Arc<OnceLock<Exit>>,
}

impl Tasks {
    /// Stops the process in order, with this code: the task that calls it knows better than 1 what became of it. The first call counts.
    pub fn stop(&self, exit: Exit) {
        self.exit.get_or_init(|| exit);
        self.drain.cancel();
    }

    /// Registers the loop of a vital task, which then has to answer; see [`Pulse`].
    #[must_use]
    pub fn pulse(&self, name: &'static str) -> Pulse {
        self.pulses.register(name)
    }

    /// All registered loops.
    #[must_use]
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Tells the service manager what is going on, in a few words (`systemctl status` shows them).
    pub fn status(&self, words: &str) {
        // A line end would end the value.
        notify(&[NotifyState::Status(&words.replace('\n', " "))]);
    }

    /// Spawns a vital task: its end before a drain stops the process with a failing code.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        // Dropped on return and on panic alike.
        let stop_process = self.drain.clone().drop_guard();
        let (drain, kill) = (self.drain.clone(), self.kill.clone());
        let work = async move {
            let _stop_process = stop_process;
            tokio::select! {
                result = task => match result {
                    Err(error) => tracing::error!(error = %ErrorChain(&error), "Task failed"),
                    Ok(()) if !drain.is_cancelled() => tracing::error!("Task ended before the stop"),
                    Ok(()) => tracing::debug!("Task ended"),
                },
                () = kill.cancelled() => tracing::warn!("Task killed"),
            }
        };
        drop(
            self.tracker
                .spawn(work.instrument(tracing::info_span!("task", name))),
        );
    }

    /// Spawns a job, which may end at any time: the stop waits for it, and kills it after the grace.
    pub fn spawn_job<F>(&self, name: &'static str, job: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let kill = self.kill.clone();
        let work = async move {
            tokio::select! {
                () = job => {}
                () = kill.cancelled() => tracing::warn!("Job killed"),
            }
        };
        drop(
            self.tracker
                .spawn(work.instrument(tracing::info_span!("job", name))),
        );
    }

    /// Cancelled when the process should finish and accept nothing more.
    #[must_use]
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Cancelled when the grace is over.
    #[must_use]
    pub fn kill_token(&self) -> CancellationToken {
        self.kill.clone()
    }
}

/// What a reload came to: words for the log, or why everything stays as it was.
pub type Reloaded = Result<String, Box<dyn Error + Send + Sync>>;

type ReloadFuture = Pin<Box<dyn Future<Output = Reloaded> + Send>>;

/// Reads the configuration again, and applies what can be applied.
struct Reload(Box<dyn FnMut() -> ReloadFuture + Send>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// The life of one process.
#[derive(Debug)]
pub struct Lifecycle {
    tasks: Tasks,
    grace: Duration,
    reloads: Vec<Reload>,
}

impl Lifecycle {
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let kill = CancellationToken::new();
        Self {
            tasks: Tasks {
                drain: kill.child_token(),
                kill,
                tracker: TaskTracker::new(),
                pulses: Pulses::default(),
                exit: Arc::default(),
            },
            grace,
            reloads: Vec::new(),
        }
    }

    /// What SIGHUP does, after what was named before. Without any the signal is logged and changes nothing.
    pub fn on_reload<F>(&mut self, mut reload: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Reloaded> + Send + 'static,
    {
        self.reloads
            .push(Reload(Box::new(move || Box::pin(reload()))));
    }

    /// For what spawns tasks of its own.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// See [`Tasks::spawn`].
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        self.tasks.spawn(name, task);
    }

    #[must_use]
    pub fn drain_token(&self) -> CancellationToken {
        self.tasks.drain_token()
    }

    #[must_use]
    pub fn kill_token(&self) -> CancellationToken {
        self.tasks.kill_token()
    }

    /// Says that the daemon is ready, then runs until a signal or the end of a vital task, and stops in order.
    pub async fn run(self) -> ExitCode {
        let Self {
            tasks,
            grace,
            mut reloads,
        } = self;
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "Cannot install signal handlers");
                return ExitCode::FAILURE;
            }
        };
        let mut watchdog = Box::pin(feed_watchdog(tasks.pulses()));
        notify(&[NotifyState::Ready]);
        let mut reloading: Option<ReloadFuture> = None;
        let asked = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Asked::Stop(name) => {
                        tracing::info!(signal = name, "Stopping");
                        break true;
                    }
                    // What is read meanwhile may be older than what asked: read once more.
                    Asked::Reload => reloading = begin_reload(&mut reloads),
                },
                reloaded = async {
                    match &mut reloading {
                        Some(reloading) => reloading.await,
                        None => std::future::pending().await,
                    }
                } => {
                    reloading = None;
                    end_reload(reloaded, &tasks);
                }
                () = tasks.drain.cancelled() => {
                    tracing::error!("Stopping, because a task ended");
                    break false;
                }
                never = &mut watchdog => match never {},
            }
        };
        notify(&[NotifyState::Stopping]);
        tasks.drain.cancel();
        tasks.tracker.close();
        let over = tokio::time::sleep(grace);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = tasks.tracker.wait() => break,
                () = &mut over => {
                    tracing::warn!(open = tasks.tracker.len(), "The grace is over");
                    break;
                }
                signal = signals.next() => match signal {
                    Asked::Stop(name) => {
                        tracing::warn!(signal = name, open = tasks.tracker.len(), "Killed by a second signal");
                        break;
                    }
                    Asked::Reload => tracing::warn!("Not reloading while stopping"),
                },
                never = &mut watchdog => match never {},
            }
        }
        tasks.kill.cancel();
        tasks.tracker.wait().await;
        if asked {
            ExitCode::SUCCESS
        } else {
            (*tasks.exit.get().unwrap_or(&Exit::Failure)).into()
        }
    }
}

fn begin_reload(reloads: &mut [Reload]) -> Option<ReloadFuture> {
    if reloads.is_empty() {
        tracing::warn!("This daemon has nothing to reload");
        return None;
    }
    // The service manager wants to know when the reload began, by its own clock.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "Cannot read the monotonic clock");
            notify(&[NotifyState::Reloading]);
        }
    }
    let works: Vec<ReloadFuture> = reloads.iter_mut().map(|Reload(reload)| reload()).collect();
    let work = async move {
        let mut changed = Vec::new();
        let mut failed = None;
        // One that fails keeps no other from its part.
        for work in works {
            match work.await {
                Ok(words) => changed.push(words),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or_else(|| Ok(changed.join("; ")), Err)
    };
    Some(Box::pin(async move {
        tokio::time::timeout(RELOAD_LIMIT, work)
            .await
            .unwrap_or_else(|_| Err("the configuration could not be read in time".into()))
    }))
}

fn end_reload(reloaded: Reloaded, tasks: &Tasks) {
    match reloaded {
        Ok(words) => {
            tracing::info!(changed = words, "Reloaded");
            tasks.status(&format!("reloaded: {words}"));
        }
        Err(error) => {
            tracing::error!(error = %ErrorChain(&*error), "Not reloaded; what is wrong stays as it was");
            tasks.status(&format!("not reloaded: {}", ErrorChain(&*error)));
        }
    }
    notify(&[NotifyState::Ready]);
}

enum Asked {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

/// Asks every loop three times in each period, and says so where all have answered and the service manager wants to hear it.
async fn feed_watchdog(pulses: Pulses) -> std::convert::Infallible {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return std::future::pending().await;
    };
    let every = period / 3;
    let mut ticks = tokio::time::interval_at(Instant::now(), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = pulses.silent(every).await;
        if silent.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else {
            let loops = silent.join(", ");
            tracing::error!(loops, "Loops do not answer; the watchdog is not fed");
            notify(&[NotifyState::Status(&format!("stuck: {loops}"))]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "Cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("stopped")]
    struct Stopped;

    fn same(code: ExitCode, expected: ExitCode) -> bool {
        format!("{code:?}") == format!("{expected:?}")
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_early_fails_the_process() {
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        lifecycle.spawn("early", async { Err::<(), _>(Stopped) });
        assert!(same(lifecycle.run().await, ExitCode::FAILURE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_fails_the_process() {
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        lifecycle.spawn("panics", async {
            if true {
                panic!("boom")
            }
            Ok::<(), Stopped>(())
        });
        assert!(same(lifecycle.run().await, ExitCode::FAILURE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_drain_is_killed_after_the_grace() {
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        lifecycle.spawn("stuck", std::future::pending::<Result<(), Stopped>>());
        lifecycle
            .tasks()
            .spawn_job("stuck too", std::future::pending());
        lifecycle.drain_token().cancel();
        let start = Instant::now();
        lifecycle.run().await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_may_end_before_the_stop_and_the_stop_waits_for_another() {
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let tasks = lifecycle.tasks();
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn_job("short", async move { drop(ended) });
        assert!(wait.await.is_err());
        assert!(!lifecycle.drain_token().is_cancelled());
        let drain = lifecycle.drain_token();
        tasks.spawn_job("tidies up", async move {
            drain.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        lifecycle.drain_token().cancel();
        let start = Instant::now();
        lifecycle.run().await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_part_that_cannot_be_reloaded_keeps_no_other_from_it() {
        let mut lifecycle = Lifecycle::new(Duration::from_secs(1));
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        lifecycle.on_reload(|| async { Err("the first is broken".into()) });
        lifecycle.on_reload(move || {
            let tell = tell.clone();
            async move { Ok(tell.send(()).await.map(|()| "the second".to_owned())?) }
        });
        let reloaded = begin_reload(&mut lifecycle.reloads).unwrap().await;
        assert_eq!(reloaded.unwrap_err().to_string(), "the first is broken");
        assert_eq!(told.recv().await, Some(()));
    }
}
