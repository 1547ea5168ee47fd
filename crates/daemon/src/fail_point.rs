//! Named places where a test can have the process killed, as a power cut or `kill -9` would, or its disk full.
//!
//! Compiled in by the feature `fail-points` alone, which no package is built with; without it a point is nothing. In such a build
//! `GITSPACES_FAIL_AT=name` kills the process with SIGKILL when it comes to the point of that name, `GITSPACES_FAIL_AT=name:3` when it
//! comes to it for the third time. With `GITSPACES_FAIL_BY=/disk/ballast` it is not killed: it fills the disk that this file is to be on, gives the
//! file its name when nothing more fits, and goes on.

/// A place between two durable steps. `tests/src/chaos/points.rs` has the list, and holds the sources to it.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub const fn fail_point(_name: &'static str) {}

#[cfg(feature = "fail-points")]
pub use armed::fail_point;

#[cfg(feature = "fail-points")]
mod armed {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::getpid,
    };
    use std::{
        fs::File,
        io::{self, Write as _},
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    const VARIABLE: &str = "GITSPACES_FAIL_AT";
    const BALLAST: &str = "GITSPACES_FAIL_BY";

    #[derive(Debug)]
    struct Armed {
        name: String,
        /// Visits until the end.
        left: AtomicU64,
        /// Where the disk is filled instead.
        ballast: Option<String>,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED
            .get_or_init(|| {
                let text = std::env::var(VARIABLE).ok()?;
                let (name, visits) = match text.split_once(':') {
                    Some((name, visits)) => (name, visits.parse().ok()?),
                    None => (text.as_str(), 1),
                };
                Some(Armed {
                    name: name.to_owned(),
                    left: AtomicU64::new(visits),
                    ballast: std::env::var(BALLAST).ok(),
                })
            })
            .as_ref()
    }

    fn fill(ballast: &str) -> io::Result<()> {
        let beside = format!("{ballast}.growing");
        let mut file = File::create(&beside)?;
        // Large pieces first, then what is left.
        for size in [1024 * 1024, 1] {
            let piece = vec![0; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        std::fs::rename(&beside, ballast)
    }

    /// Ends the process here, or the room on its disk, where it is told to.
    pub fn fail_point(name: &'static str) {
        let Some(armed) = armed().filter(|armed| armed.name == name) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        if let Some(ballast) = &armed.ballast {
            let filled = fill(ballast);
            tracing::error!(name, ?filled, "Fail point: the disk is full from here on");
            return;
        }
        tracing::error!(name, "Fail point: killed here");
        if let Err(error) = kill(getpid(), Signal::SIGKILL) {
            tracing::error!(name, %error, "Fail point: cannot be killed");
        }
        // The signal is on its way: nothing after this point is done.
        loop {
            std::thread::park();
        }
    }
}
