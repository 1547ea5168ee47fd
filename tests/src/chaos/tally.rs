//! What was counted, and in how much time everything was where it should be.

use anyhow::{Result, ensure};
use std::{fmt, time::Duration};

/// From the restart of what was killed.
const GOAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) runner: usize,
    pub(super) delegate: usize,
    pub(super) both: usize,
    pub(super) container: usize,
    pub(super) docker: usize,
    pub(super) full_disks: usize,
    pub(super) points: usize,
    pub(super) acknowledged: usize,
    /// Actions that were acknowledged and did not come about.
    pub(super) lost: Vec<String>,
    pub(super) duplicates: Vec<String>,
    pub(super) leftovers: Vec<String>,
    /// Processes of gitspaces that nobody touched, and that are not what they were.
    pub(super) touched: Vec<String>,
    pub(super) repeated_hooks: Vec<String>,
    /// Fail points at which nobody died.
    pub(super) not_reached: Vec<String>,
    pub(super) converged: Vec<Duration>,
    pub(super) slow: Vec<String>,
    /// Containers that were killed so often that their gitspace was started again by its user.
    pub(super) started_again: usize,
}

impl Tally {
    pub(super) fn converged_after(&mut self, time: Duration, what: &str, waited_for: &str) {
        self.converged.push(time);
        if time > GOAL {
            self.slow.push(format!(
                "{} ms after {what}, waiting for {waited_for}",
                time.as_millis()
            ));
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        eprintln!("{self}");
        for (what, found) in [
            ("lost", &self.lost),
            ("doubled", &self.duplicates),
            ("left over", &self.leftovers),
            ("touched", &self.touched),
            ("run again", &self.repeated_hooks),
            ("not reached", &self.not_reached),
        ] {
            ensure!(found.is_empty(), "{what}: {found:#?}");
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills =
            self.runner + self.delegate + self.both + self.container + self.docker + self.points;
        writeln!(
            f,
            "chaos: {kills} kills (runner {}, delegate with control plane {}, both {}, container {}, dockerd {}, at fail points {}), {} actions acknowledged",
            self.runner,
            self.delegate,
            self.both,
            self.container,
            self.docker,
            self.points,
            self.acknowledged
        )?;
        if self.full_disks > 0 {
            writeln!(f, "chaos: {} times a disk was full", self.full_disks)?;
        }
        writeln!(
            f,
            "chaos: lost {}, doubled {}, left over {}, touched {}, commands run again {}; started again by hand {}",
            self.lost.len(),
            self.duplicates.len(),
            self.leftovers.len(),
            self.touched.len(),
            self.repeated_hooks.len(),
            self.started_again
        )?;
        let mut sorted = self.converged.clone();
        sorted.sort();
        let at = |percent: usize| {
            sorted
                .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
                .map_or(0, Duration::as_millis)
        };
        write!(
            f,
            "chaos: converged after the restart in ms: p50 {}, p90 {}, p99 {}, max {}; slower than {} ms: {}",
            at(50),
            at(90),
            at(99),
            at(100),
            GOAL.as_millis(),
            self.slow.len()
        )?;
        for slow in &self.slow {
            write!(f, "\nchaos: slow: {slow}")?;
        }
        Ok(())
    }
}
