//! How often a delegate is probed: after the configured period, and less often where there are so many that the probes would cost more than
//! everything else the links do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// 200 probes a second, for all delegates together.
const SHARE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    probed: AtomicU32,
}

impl Pace {
    pub(crate) fn new(period: Duration) -> Arc<Self> {
        Arc::new(Self {
            period,
            probed: AtomicU32::new(0),
        })
    }

    /// One delegate more, until what is returned is dropped.
    pub(super) fn join(self: &Arc<Self>) -> Paced {
        self.probed.fetch_add(1, Ordering::Relaxed);
        Paced(Arc::clone(self))
    }
}

/// The part of one delegate.
#[derive(Debug)]
pub(super) struct Paced(Arc<Pace>);

impl Paced {
    /// From one of its probes to the next, on average.
    pub(super) fn period(&self) -> Duration {
        let probed = self.0.probed.load(Ordering::Relaxed);
        self.0.period.max(SHARE.saturating_mul(probed))
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.0.probed.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_delegates_are_probed_in_the_period_and_many_share_what_there_is() {
        let pace = Pace::new(Duration::from_secs(30));
        let first = pace.join();
        assert_eq!(first.period(), Duration::from_secs(30));
        let others: Vec<_> = (1..20_000).map(|_| pace.join()).collect();
        assert_eq!(first.period(), Duration::from_secs(100));
        drop(others);
        assert_eq!(first.period(), Duration::from_secs(30));
    }
}
