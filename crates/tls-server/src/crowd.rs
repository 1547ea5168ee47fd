//! Places for connections, and who gives one up when all are taken.
//!
//! Whoever opens connections and says nothing is to be in nobody's way but their own: room is made at the address that has most of the places.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::AbortHandle;

/// Given up at once at most, so that a flood does not make each newcomer look at everybody.
const BATCH: usize = 64;
/// What a customer of a provider gets of IPv6, at least: whoever has one address has all of them.
const V6_NETWORK: u32 = 64;

/// A connection, as seen from outside.
pub trait Guest {
    /// It waits for its client, and loses nothing that a client would not try again: nothing of a request was taken.
    fn is_waiting(&self) -> bool;
}

impl<T: Guest> Guest for Arc<T> {
    fn is_waiting(&self) -> bool {
        T::is_waiting(self)
    }
}

/// Connections that are open, each with the task that serves it.
#[derive(Debug)]
pub struct Crowd<G> {
    limit: usize,
    inner: Mutex<Inner<G>>,
}

#[derive(Debug)]
struct Inner<G> {
    next: u64,
    places: HashMap<u64, Place<G>>,
    /// At so many, those that have ended are forgotten.
    look_at: usize,
}

#[derive(Debug)]
struct Place<G> {
    from: IpAddr,
    guest: G,
    task: AbortHandle,
}

impl<G: Guest> Crowd<G> {
    /// `limit`: connections at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::new(Inner {
                next: 0,
                places: HashMap::new(),
                look_at: BATCH,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<G>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are open, or were when they were last looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one that `task` serves has a place until the task ends.
    pub fn enter(&self, from: IpAddr, guest: G, task: AbortHandle) {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let from = network(from);
        inner.places.insert(id, Place { from, guest, task });
        // What has ended is memory of its task, and is forgotten each time that there are twice as many.
        if inner.places.len() >= inner.look_at {
            inner.places.retain(|_, place| !place.task.is_finished());
            inner.look_at = (2 * inner.places.len()).max(BATCH);
        }
    }

    /// Forgets those that have ended, and ends those for which `keep` is false.
    pub fn retain(&self, mut keep: impl FnMut(&G) -> bool) {
        self.lock().places.retain(|_, place| {
            if place.task.is_finished() {
                return false;
            }
            let keep = keep(&place.guest);
            if !keep {
                place.task.abort();
            }
            keep
        });
    }

    /// Looks at all that are open.
    pub fn each(&self, mut look: impl FnMut(&G)) {
        for place in self.lock().places.values() {
            look(&place.guest);
        }
    }

    /// Whether there is a place for one more. Where all are taken, those that wait and were opened first, of the address with most connections, lose
    /// theirs, down to what the address with the second most has; then this is false, and their tasks are about to end.
    pub fn has_room(&self) -> bool {
        let mut inner = self.lock();
        if inner.places.len() < self.limit {
            return true;
        }
        inner.places.retain(|_, place| !place.task.is_finished());
        if inner.places.len() < self.limit {
            return true;
        }
        inner.make_room();
        false
    }
}

impl<G: Guest> Inner<G> {
    fn make_room(&mut self) {
        let mut counts: HashMap<IpAddr, (usize, usize)> = HashMap::new();
        for place in self.places.values() {
            let (all, waiting) = counts.entry(place.from).or_default();
            *all += 1;
            *waiting += usize::from(place.guest.is_waiting());
        }
        // An address of which nobody waits has nobody to give.
        let Some((&busiest, &(most, _))) = counts
            .iter()
            .filter(|(_, (_, waiting))| *waiting > 0)
            .max_by_key(|(_, (all, _))| *all)
        else {
            return;
        };
        let second = counts
            .iter()
            .filter(|(address, _)| **address != busiest)
            .map(|(_, (all, _))| *all)
            .max()
            .unwrap_or_default();
        let mut ids: Vec<u64> = self
            .places
            .iter()
            .filter(|(_, place)| place.from == busiest && place.guest.is_waiting())
            .map(|(&id, _)| id)
            .collect();
        ids.sort_unstable();
        ids.truncate(most.saturating_sub(second).clamp(1, BATCH));
        for id in ids {
            if let Some(place) = self.places.remove(&id) {
                place.task.abort();
                tracing::debug!(address = %place.from, "A waiting connection has given way");
            }
        }
    }
}

/// What one client has for its own.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (Ipv6Addr::BITS - V6_NETWORK);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        sync::atomic::{AtomicBool, Ordering},
    };
    use tokio::task::JoinHandle;
    use tokio_util::task::TaskTracker;

    impl Guest for AtomicBool {
        fn is_waiting(&self) -> bool {
            self.load(Ordering::Relaxed)
        }
    }

    fn enter(
        crowd: &Crowd<Arc<AtomicBool>>,
        from: &str,
        waits: bool,
    ) -> (Arc<AtomicBool>, JoinHandle<()>) {
        let task = TaskTracker::new().spawn(pending());
        let guest = Arc::new(AtomicBool::new(waits));
        crowd.enter(from.parse().unwrap(), guest.clone(), task.abort_handle());
        (guest, task)
    }

    async fn is_ended(task: JoinHandle<()>) -> bool {
        tokio::task::yield_now().await;
        task.is_finished()
    }

    #[tokio::test]
    async fn the_address_with_most_connections_gives_way_and_its_oldest_first() {
        let crowd = Crowd::new(4);
        let (_, honest) = enter(&crowd, "192.0.2.1", true);
        let (_, first) = enter(&crowd, "192.0.2.9", true);
        let (_, second) = enter(&crowd, "192.0.2.9", true);
        assert!(crowd.has_room());
        let (_, third) = enter(&crowd, "192.0.2.9", true);
        assert!(!crowd.has_room());
        assert!(crowd.has_room(), "there is now");
        assert!(is_ended(first).await && is_ended(second).await);
        assert!(!is_ended(third).await && !is_ended(honest).await);
    }

    #[tokio::test]
    async fn whoever_is_served_keeps_the_place() {
        let crowd = Crowd::new(2);
        let (_, busy) = enter(&crowd, "192.0.2.9", false);
        let (waits, other) = enter(&crowd, "192.0.2.9", false);
        assert!(!crowd.has_room());
        assert!(!crowd.has_room(), "nobody waits");
        waits.store(true, Ordering::Relaxed);
        assert!(!crowd.has_room());
        assert!(crowd.has_room());
        assert!(is_ended(other).await);
        assert!(!is_ended(busy).await);
    }

    #[tokio::test]
    async fn addresses_of_one_network_are_one_client() {
        let crowd = Crowd::new(3);
        let (_, honest) = enter(&crowd, "2001:db8:1::1", true);
        let (_, first) = enter(&crowd, "2001:db8:2::1", true);
        let (_, second) = enter(&crowd, "2001:db8:2::2", true);
        assert!(!crowd.has_room());
        assert!(is_ended(first).await);
        assert!(!is_ended(second).await && !is_ended(honest).await);
    }

    #[tokio::test]
    async fn those_that_have_ended_are_forgotten_long_before_all_places_are_taken() {
        let crowd = Crowd::new(100_000);
        for _ in 0..10 * BATCH {
            let (_, task) = enter(&crowd, "192.0.2.1", true);
            task.abort();
            assert!(is_ended(task).await);
        }
        assert!(crowd.len() <= BATCH, "{}", crowd.len());
    }

    #[tokio::test]
    async fn those_that_have_ended_take_no_place() {
        let crowd = Crowd::new(1);
        let (_, task) = enter(&crowd, "192.0.2.1", false);
        task.abort();
        assert!(is_ended(task).await);
        assert!(crowd.has_room());
        let (_, one) = enter(&crowd, "192.0.2.1", true);
        crowd.retain(|_| false);
        assert!(is_ended(one).await);
        assert_eq!(crowd.len(), 0);
    }
}
