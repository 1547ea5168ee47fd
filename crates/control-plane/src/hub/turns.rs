//! Whose greeting is heard, where more connect than can be greeted at once.
//!
//! Whoever connects often and says nothing is to be in nobody's way but their own. A turn that is free goes to the address that has fewest of
//! them; and one whose peer has said nothing for a while is given away where its address has more of them than the one that waits.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

/// Connections that are greeted at once: each may hold a greeting of [`wire::control::MAX_GREETING_FRAME`].
const MAX_HELD: usize = 256;
/// HTTP requests that wait for a turn.
const MAX_WAITING: usize = 2048;
/// For a turn, before the delegate is asked to dial again later.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// That a turn is its holder's whatever happens: a greeting on a slow line takes less.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Inner>>);

/// More wait than can.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many delegates connect at once")]
pub(super) struct Crowded;

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    held: BTreeMap<u64, Held>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Held {
    from: IpAddr,
    since: Instant,
    given_away: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    from: IpAddr,
    turn: oneshot::Sender<Turn>,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Mutex<Inner>>,
    id: u64,
    given_away: CancellationToken,
}

impl Turn {
    /// Cancelled when somebody else needs it more.
    pub(super) fn given_away(&self) -> CancellationToken {
        self.given_away.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = lock(&self.turns);
        inner.held.remove(&self.id);
        Inner::hand_out(&self.turns, inner);
    }
}

/// Takes a request out of the queue when nobody waits for its turn any more.
struct InQueue<'a> {
    turns: &'a Mutex<Inner>,
    id: u64,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        lock(self.turns).waiting.remove(&self.id);
    }
}

fn lock(turns: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    pub(super) async fn take(&self, from: IpAddr) -> Result<Turn, Crowded> {
        let (id, mut turn) = self.queue(from);
        let _in_queue = InQueue { turns: &self.0, id };
        let limit = tokio::time::sleep(WAIT_LIMIT);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                turn = &mut turn => return turn.map_err(|_| Crowded),
                () = &mut limit => return Err(Crowded),
                () = tokio::time::sleep(PATIENCE) => lock(&self.0).give_away(from),
            }
        }
    }
}

impl Turns {
    fn queue(&self, from: IpAddr) -> (u64, oneshot::Receiver<Turn>) {
        let (sender, turn) = oneshot::channel();
        let mut inner = lock(&self.0);
        inner.next += 1;
        let id = inner.next;
        inner.waiting.insert(id, Waiting { from, turn: sender });
        inner.refuse_one();
        Inner::hand_out(&self.0, inner);
        (id, turn)
    }
}

impl Inner {
    /// Without those that are given away already.
    fn held_by(&self) -> HashMap<IpAddr, usize> {
        let kept = self
            .held
            .values()
            .filter(|held| !held.given_away.is_cancelled());
        count(kept.map(|held| held.from))
    }

    /// Those that are free, each to the one whose address has fewest.
    fn hand_out(turns: &Arc<Mutex<Self>>, mut inner: MutexGuard<'_, Self>) {
        let mut lost = Vec::new();
        while inner.held.len() < MAX_HELD {
            let held = inner.held_by();
            let next = inner
                .waiting
                .iter()
                .min_by_key(|(_, waiting)| held.get(&waiting.from).copied().unwrap_or_default())
                .map(|(&id, _)| id);
            let Some((id, waiting)) = next.and_then(|id| inner.waiting.remove_entry(&id)) else {
                break;
            };
            let given_away = CancellationToken::new();
            let held = Held {
                from: waiting.from,
                since: Instant::now(),
                given_away: given_away.clone(),
            };
            inner.held.insert(id, held);
            let turn = Turn {
                turns: Arc::clone(turns),
                id,
                given_away,
            };
            if let Err(turn) = waiting.turn.send(turn) {
                inner.held.remove(&id);
                lost.push(turn);
            }
        }
        // Each takes the lock again.
        drop(inner);
        drop(lost);
    }

    /// Where too many wait, the last one of the address that has most of them.
    fn refuse_one(&mut self) {
        if self.waiting.len() <= MAX_WAITING {
            return;
        }
        let waiting = count(self.waiting.values().map(|waiting| waiting.from));
        let busiest = waiting.iter().max_by_key(|(_, count)| **count);
        let last = busiest.and_then(|(&busiest, _)| {
            let mut latest = self.waiting.iter().rev();
            latest.find(|(_, waiting)| waiting.from == busiest)
        });
        if let Some(id) = last.map(|(&id, _)| id) {
            self.waiting.remove(&id);
        }
    }

    /// The longest held one of the address that has most of them, for somebody of another who has waited.
    fn give_away(&mut self, to: IpAddr) {
        let held = self.held_by();
        let own = held.get(&to).copied().unwrap_or_default();
        let Some((&busiest, &most)) = held.iter().max_by_key(|(_, count)| **count) else {
            return;
        };
        if most <= own + 1 {
            return;
        }
        let longest = self
            .held
            .values()
            .find(|held| held.from == busiest && !held.given_away.is_cancelled());
        if let Some(longest) = longest.filter(|held| held.since.elapsed() >= PATIENCE) {
            longest.given_away.cancel();
        }
    }
}

fn count(addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, usize> {
    let mut counts = HashMap::new();
    for address in addresses {
        *counts.entry(address).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt as _, future::join_all};
    use tokio::task::unconstrained;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// What is there without waiting, however much was asked for in this task.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        unconstrained(future).now_or_never()
    }

    async fn all_held_by(turns: &Turns, from: IpAddr) -> Vec<Turn> {
        let mut held = Vec::new();
        for _ in 0..MAX_HELD {
            held.push(turns.take(from).await.unwrap());
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_free_is_taken_at_once_and_given_back_by_dropping_it() {
        let turns = Turns::default();
        let mut held = all_held_by(&turns, address(1)).await;
        assert!(now(turns.take(address(1))).is_none(), "full");
        drop(held.pop());
        held.push(now(turns.take(address(1))).unwrap().unwrap());
        assert!(lock(&turns.0).waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_turn_goes_to_the_address_that_has_fewest() {
        let turns = Turns::default();
        let mut held = all_held_by(&turns, address(9)).await;
        let mut crowd: Vec<_> = (0..10).map(|_| Box::pin(turns.take(address(9)))).collect();
        for waiting in &mut crowd {
            assert!(now(waiting.as_mut()).is_none());
        }
        let mut honest = Box::pin(turns.take(address(1)));
        assert!(now(honest.as_mut()).is_none());
        drop(held.pop());
        assert!(now(honest.as_mut()).unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_gives_way_to_another_address_within_two_seconds() {
        let turns = Turns::default();
        let silent = all_held_by(&turns, address(9)).await;
        let holders = silent.into_iter().map(|turn| async move {
            turn.given_away().cancelled().await;
        });
        let started = Instant::now();
        tokio::select! {
            _ = join_all(holders) => panic!("all gave way"),
            turn = turns.take(address(1)) => assert!(turn.is_ok()),
        }
        assert!(started.elapsed() <= 2 * PATIENCE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn delegates_behind_one_address_wait_for_each_other_and_lose_no_turn() {
        let turns = Turns::default();
        let held = all_held_by(&turns, address(1)).await;
        assert_eq!(turns.take(address(1)).await.err(), Some(Crowded));
        assert!(held.iter().all(|turn| !turn.given_away().is_cancelled()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_is_full_turns_away_the_last_of_the_address_that_fills_it() {
        let turns = Turns::default();
        let _held = all_held_by(&turns, address(9)).await;
        let mut crowd: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(turns.take(address(9))))
            .collect();
        for waiting in &mut crowd {
            assert!(now(waiting.as_mut()).is_none());
        }
        let mut honest = Box::pin(turns.take(address(1)));
        assert!(now(honest.as_mut()).is_none(), "waits");
        let last = now(crowd.last_mut().unwrap().as_mut());
        assert_eq!(last.unwrap().err(), Some(Crowded));
        assert!(now(crowd[0].as_mut()).is_none());
    }
}
