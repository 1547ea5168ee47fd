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
        let lifecycle = Lifecycle::new(LIMIT * 10);
        let drain = lifecycle.drain_token();
        lifecycle.status("two\nlines");
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
        let mut buffer = [0; 1024];
        loop {
            let read = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no `{wanted}` came: {error}"));
            if &buffer[..read] == wanted.as_bytes() {
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
