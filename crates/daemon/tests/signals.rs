//! A real process, real signals, and a real notify socket.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this file is a test"
)]

use daemon::Lifecycle;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    convert::Infallible,
    os::unix::net::UnixDatagram,
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

const ROLE: &str = "DAEMON_TEST_ROLE";
const LIMIT: Duration = Duration::from_secs(30);

/// The child's side: does nothing where the test is run as a test.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(async move {
        let mut lifecycle = Lifecycle::new(LIMIT * 10);
        let drain = lifecycle.drain_token();
        let tasks = lifecycle.tasks();
        tasks.status("two\nlines");
        let mut right = false;
        lifecycle.on_reload(move || {
            right = !right;
            async move {
                if right {
                    Ok("the tags".to_owned())
                } else {
                    Err("line 3 is wrong".into())
                }
            }
        });
        // Never polled where the loop hangs.
        let mut pulse = tasks.pulse("vital loop");
        let hangs = role == "hung";
        let stop = drain.clone();
        tasks.spawn_job("loop", async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                never = pulse.beat() => match never {},
            }
        });
        lifecycle.spawn("vital", async move {
            drain.cancelled().await;
            if role == "stuck" {
                std::future::pending::<()>().await;
            }
            Ok::<(), Infallible>(())
        });
        lifecycle.run().await
    });
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

struct Daemon {
    child: Child,
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start(role: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(ROLE, role)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "100000")
            .env_remove("WATCHDOG_PID")
            .spawn()
            .unwrap();
        Self {
            child,
            socket,
            _dir: dir,
        }
    }

    fn wait_for(&self, wanted: &str) {
        self.wait_until(&format!("no `{wanted}` came"), |told| told == wanted);
    }

    fn wait_for_start(&self, wanted: &str) {
        self.wait_until(&format!("no `{wanted}..` came"), |told| {
            told.starts_with(wanted)
        });
    }

    /// Which of `wanted` comes next.
    fn next_of(&self, wanted: &[&str]) -> usize {
        let mut found = None;
        self.wait_until(&format!("none of {wanted:?} came"), |told| {
            found = wanted.iter().position(|one| *one == told);
            found.is_some()
        });
        found.unwrap()
    }

    fn wait_until(&self, otherwise: &str, mut is_it: impl FnMut(&str) -> bool) {
        let mut buffer = [0; 1024];
        loop {
            let read = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{otherwise}: {error}"));
            if is_it(std::str::from_utf8(&buffer[..read]).unwrap()) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    fn ends_well(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_daemon_says_that_it_is_ready_alive_and_stopping_and_ends_on_sigterm() {
    let daemon = Daemon::start("polite");
    daemon.wait_for("STATUS=two lines\n");
    daemon.wait_for("READY=1\n");
    daemon.wait_for("WATCHDOG=1\n");
    daemon.wait_for("WATCHDOG=1\n");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("STOPPING=1\n");
    daemon.ends_well();
}

#[test]
fn a_second_signal_ends_what_the_first_could_not() {
    let start = Instant::now();
    let daemon = Daemon::start("stuck");
    daemon.wait_for("READY=1\n");
    daemon.signal(Signal::SIGINT);
    daemon.wait_for("STOPPING=1\n");
    // The watchdog is fed while the daemon drains.
    daemon.wait_for("WATCHDOG=1\n");
    daemon.signal(Signal::SIGTERM);
    daemon.ends_well();
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end_and_a_failed_one_changes_nothing() {
    let daemon = Daemon::start("polite");
    daemon.wait_for("READY=1\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_start("RELOADING=1\nMONOTONIC_USEC=");
    daemon.wait_for("STATUS=reloaded: the tags\n");
    daemon.wait_for("READY=1\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("STATUS=not reloaded: line 3 is wrong\n");
    daemon.wait_for("READY=1\n");
    daemon.wait_for("WATCHDOG=1\n");
    daemon.signal(Signal::SIGTERM);
    daemon.ends_well();
}

#[test]
fn the_watchdog_is_not_fed_while_a_loop_hangs() {
    let daemon = Daemon::start("hung");
    daemon.wait_for("READY=1\n");
    // Two periods: whatever was fed would come before the second of these.
    for _ in 0..3 {
        assert_eq!(
            daemon.next_of(&["WATCHDOG=1\n", "STATUS=stuck: vital loop\n"]),
            1
        );
    }
    daemon.signal(Signal::SIGTERM);
    // Two signals at once may be taken for one.
    daemon.wait_for("STOPPING=1\n");
    daemon.signal(Signal::SIGTERM);
    daemon.ends_well();
}
