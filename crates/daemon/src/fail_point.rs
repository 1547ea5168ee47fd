//! Named places where a test can have the process killed, as a power cut or `kill -9` would.
//!
//! Compiled in by the feature `fail-points` alone, which no package is built with; without it a point is nothing. In such a build
//! `GITSPACES_FAIL_AT=name` kills the process with SIGKILL when it comes to the point of that name, `GITSPACES_FAIL_AT=name:3` when it
//! comes to it for the third time.

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
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    const VARIABLE: &str = "GITSPACES_FAIL_AT";

    #[derive(Debug)]
    struct Armed {
        name: String,
        /// Visits until the end.
        left: AtomicU64,
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
                })
            })
            .as_ref()
    }

    /// Ends the process here where it is told to.
    pub fn fail_point(name: &'static str) {
        let Some(armed) = armed().filter(|armed| armed.name == name) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) != 1 {
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
