//! Failed authentications, limited by address.
//!
//! Tokens have 256 bits: nobody guesses one, and a valid one is never refused for what others behind its address did. The limit is for what
//! failing costs us and for what it writes to the log.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures at once.
const BURST: u32 = 20;
/// One more each.
const REFILL: Duration = Duration::from_secs(3);
/// Addresses remembered; those that have their whole burst again are dropped first, then all.
const MAX_ADDRESSES: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct FailureLimiter {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    /// `left` was right then.
    at: Instant,
}

impl Bucket {
    fn refilled(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at);
        let more = u32::try_from(passed.as_nanos() / REFILL.as_nanos()).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(more);
        if left >= BURST {
            Self {
                left: BURST,
                at: now,
            }
        } else {
            Self {
                left,
                at: self.at + REFILL.saturating_mul(more),
            }
        }
    }
}

impl FailureLimiter {
    /// Notes one failure.
    ///
    /// # Errors
    /// Where there were too many: how long to wait.
    pub(crate) fn failed(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&from) {
            buckets.retain(|_, bucket| bucket.refilled(now).left < BURST);
            if buckets.len() >= MAX_ADDRESSES {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(from).or_insert(Bucket {
            left: BURST,
            at: now,
        });
        *bucket = bucket.refilled(now);
        if bucket.left == 0 {
            return Err(REFILL.saturating_sub(now.saturating_duration_since(bucket.at)));
        }
        bucket.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_that_fails_too_often_has_to_wait_and_another_does_not() {
        let limiter = FailureLimiter::default();
        let (one, two) = (
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv4Addr::BROADCAST),
        );
        let start = Instant::now();
        for _ in 0..BURST {
            limiter.failed(one, start).unwrap();
        }
        assert_eq!(limiter.failed(one, start), Err(REFILL));
        limiter.failed(two, start).unwrap();
        limiter.failed(one, start + REFILL).unwrap();
        assert!(limiter.failed(one, start + REFILL).is_err());
    }

    #[test]
    fn any_number_of_addresses_is_remembered_in_bounded_space() {
        let limiter = FailureLimiter::default();
        let now = Instant::now();
        for address in 0..10_000u32 {
            limiter
                .failed(IpAddr::from(Ipv4Addr::from(address)), now)
                .unwrap();
        }
        assert!(limiter.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
