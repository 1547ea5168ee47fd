//! PID 1 of a gitspace.
//!
//! ```text
//! running --serve ends, or is killed on SIGUSR1--> back-off --its time--> running
//!    \---------\--SIGTERM, SIGINT, SIGQUIT, SIGPWR--> stopping --no process left, or killed after the grace--> exit 0
//! ```
//!
//! Responsible for: reaping every orphan, keeping `serve` running, replacing it where the runner says by SIGUSR1 that it hangs (terminals are in
//! processes of their own, and stay), passing the stop on to every process. One thread, no runtime, no
//! allocation that grows: it must not die, as the container dies with it.
//!
//! Invariant: refuses to be anything but PID 1, because it signals *every* process it can see.

use crate::{agent::forget_config, command_line::ServeOptions};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};
use std::{
    io,
    os::fd::AsFd as _,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// From SIGTERM to SIGKILL: Docker gives ten seconds before it kills the container.
const STOP_GRACE: Duration = Duration::from_secs(8);
/// After SIGKILL only a process stuck in the kernel stays; the kernel ends it with us.
const KILL_GRACE: Duration = Duration::from_secs(1);
const STOP_POLL: Duration = Duration::from_millis(20);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A `serve` that ran this long starts anew without waiting.
const STEADY: Duration = Duration::from_secs(60);

const STOP_SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGPWR,
];
/// From the runner, which asks `serve` and hears nothing for long.
const REPLACE: Signal = Signal::SIGUSR1;
/// Received and ignored: as PID 1 they would be dropped anyway, but not where somebody's image says so.
const OTHER_SIGNALS: [Signal; 2] = [Signal::SIGHUP, Signal::SIGUSR2];

enum State {
    Running { serve: Pid, since: Instant },
    Backoff { until: Instant },
    Stopping { until: Instant, killed: bool },
}

pub(crate) fn run(options: &ServeOptions) -> ExitCode {
    if getpid().as_raw() != 1 {
        tracing::error!("`init` is for PID 1 of a container; use `serve` elsewhere");
        return ExitCode::from(64);
    }
    let mut signals = SigSet::empty();
    for signal in STOP_SIGNALS
        .into_iter()
        .chain(OTHER_SIGNALS)
        .chain([REPLACE, Signal::SIGCHLD])
    {
        signals.add(signal);
    }
    let signals = signals.thread_block().and_then(|()| {
        SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    });
    let signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "Cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    // What an earlier life of this container was told does not hold for this one.
    forget_config(&options.run_dir);
    Init {
        options,
        backoff: FIRST_BACKOFF,
    }
    .run(&signals)
}

struct Init<'a> {
    options: &'a ServeOptions,
    backoff: Duration,
}

impl Init<'_> {
    fn run(mut self, signals: &SignalFd) -> ExitCode {
        let mut state = self.start();
        loop {
            let deadline = match &state {
                State::Running { .. } => None,
                State::Backoff { until } => Some(*until),
                // Nothing tells that no process is left where none of them was ours to reap.
                State::Stopping { until, .. } => Some((*until).min(Instant::now() + STOP_POLL)),
            };
            wait(signals, deadline);
            let (mut stop, mut replace) = (false, false);
            while let Ok(Some(signal)) = signals.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                if let Ok(signal) = Signal::try_from(number) {
                    stop |= STOP_SIGNALS.contains(&signal);
                    replace |= signal == REPLACE;
                }
            }
            let reaped = reap(match &state {
                State::Running { serve, .. } => Some(*serve),
                State::Backoff { .. } | State::Stopping { .. } => None,
            });
            state = match state {
                State::Running { .. } | State::Backoff { .. } if stop => {
                    tracing::info!("Stopping every process");
                    signal_all(Signal::SIGTERM);
                    State::Stopping {
                        until: Instant::now() + STOP_GRACE,
                        killed: false,
                    }
                }
                State::Running { since, .. } if reaped.serve_ended => {
                    if since.elapsed() >= STEADY {
                        self.backoff = FIRST_BACKOFF;
                    }
                    self.back_off()
                }
                State::Backoff { until } if Instant::now() >= until => self.start(),
                State::Stopping { .. } if reaped.none_left => return ExitCode::SUCCESS,
                State::Stopping { until, killed } if Instant::now() >= until => {
                    if killed {
                        return ExitCode::SUCCESS;
                    }
                    tracing::warn!("Killing what did not stop");
                    signal_all(Signal::SIGKILL);
                    State::Stopping {
                        until: Instant::now() + KILL_GRACE,
                        killed: true,
                    }
                }
                State::Running { serve, since } if replace => {
                    tracing::warn!("`serve` is silent, and killed to be started again");
                    // It is reaped with the next signal.
                    if let Err(error) = kill(serve, Signal::SIGKILL) {
                        tracing::error!(%error, "Cannot kill `serve`");
                    }
                    State::Running { serve, since }
                }
                same @ (State::Running { .. } | State::Backoff { .. } | State::Stopping { .. }) => {
                    same
                }
            };
        }
    }

    fn start(&mut self) -> State {
        match spawn(self.options) {
            Ok(serve) => State::Running {
                serve,
                since: Instant::now(),
            },
            Err(error) => {
                tracing::error!(%error, "Cannot start `serve`");
                self.back_off()
            }
        }
    }

    fn back_off(&mut self) -> State {
        let until = Instant::now() + self.backoff;
        tracing::warn!(
            milliseconds = self.backoff.as_millis(),
            "`serve` is started again"
        );
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        State::Backoff { until }
    }
}

fn spawn(options: &ServeOptions) -> io::Result<Pid> {
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", "--run-dir", options.run_dir.as_str()])
        .args(["--volume", options.volume.as_str()])
        .stdin(Stdio::null())
        .spawn()?;
    // Reaped with all others.
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(io::Error::other)
}

/// Until a signal, or the deadline.
fn wait(signals: &SignalFd, deadline: Option<Instant>) {
    let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => tracing::error!(%error, "Cannot wait for signals"),
    }
}

struct Reaped {
    serve_ended: bool,
    none_left: bool,
}

fn reap(serve: Option<Pid>) -> Reaped {
    let mut reaped = Reaped {
        serve_ended: false,
        none_left: false,
    };
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return reaped,
            Ok(status) => {
                if serve.is_some() && status.pid() == serve {
                    tracing::warn!(?status, "`serve` ended");
                    reaped.serve_ended = true;
                }
            }
            Err(Errno::ECHILD) => {
                reaped.none_left = true;
                return reaped;
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "Cannot reap");
                return reaped;
            }
        }
    }
}

/// To every process of the container but this one.
fn signal_all(signal: Signal) {
    match kill(Pid::from_raw(-1), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::error!(%error, ?signal, "Cannot signal the container's processes"),
    }
}
