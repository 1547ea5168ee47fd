//! Choices that a seed makes again.

use anyhow::{Context as _, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and good enough to choose by.
#[derive(Debug)]
pub(super) struct Seed(u64);

impl Seed {
    /// Of `GITSPACES_CHAOS_SEED`, else another one each time. Printed.
    pub(super) fn from_environment() -> Result<Self> {
        let seed = match std::env::var("GITSPACES_CHAOS_SEED") {
            Ok(text) => text
                .parse()
                .context("GITSPACES_CHAOS_SEED is not a number")?,
            Err(_) => UNIX_EPOCH.elapsed_millis()?,
        };
        eprintln!("chaos: seed {seed}");
        Ok(Self(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    pub(super) fn up_to(&mut self, longest: Duration) -> Duration {
        let millis = usize::try_from(longest.as_millis()).unwrap_or(usize::MAX);
        Duration::from_millis(u64::try_from(self.below(millis)).unwrap_or(0))
    }

    pub(super) fn one_of<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
    }
}

trait ElapsedMillis {
    fn elapsed_millis(&self) -> Result<u64>;
}

impl ElapsedMillis for SystemTime {
    fn elapsed_millis(&self) -> Result<u64> {
        Ok(u64::try_from(self.elapsed()?.as_millis())?)
    }
}
