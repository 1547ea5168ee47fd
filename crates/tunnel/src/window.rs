//! How much a stream's sender may have under way: as much as its line takes and its reader wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// What every stream begins with, on both sides.
pub(crate) const FIRST_WINDOW: u32 = 64 * 1024;
/// Enough for a gigabit a second at 120 ms.
const MAX_WINDOW: u32 = 16 * 1024 * 1024;
/// Of a line that has not been measured.
const UNKNOWN_TRIP: Duration = Duration::from_millis(100);

/// Bytes that streams may hold beyond their first windows, and tunnels for what may have to be sent again: those of a process, and of them
/// those of one peer, so that nobody has all of it.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicU64>,
    /// It is a part of this.
    whole: Option<Arc<AtomicU64>>,
}

fn take(left: &AtomicU64, bytes: u32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(bytes.into())
    })
    .is_ok()
}

impl Budget {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(bytes)),
            whole: None,
        }
    }

    /// At most so many of these, for one peer.
    #[must_use]
    pub fn part(&self, bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(bytes)),
            whole: Some(Arc::clone(&self.left)),
        }
    }

    pub(crate) fn take(&self, bytes: u32) -> bool {
        if !take(&self.left, bytes) {
            return false;
        }
        let has = self.whole.as_ref().is_none_or(|whole| take(whole, bytes));
        if !has {
            self.left.fetch_add(bytes.into(), Ordering::Relaxed);
        }
        has
    }

    pub(crate) fn give(&self, bytes: u32) {
        for left in [Some(&self.left), self.whole.as_ref()]
            .into_iter()
            .flatten()
        {
            left.fetch_add(bytes.into(), Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Window {
    budget: Budget,
    size: u32,
    /// What the sender may still send.
    open: u32,
    /// What was read and the sender does not know of.
    taken: u32,
    told: Option<Instant>,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.give(self.size - FIRST_WINDOW);
    }
}

impl Window {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            size: FIRST_WINDOW,
            open: FIRST_WINDOW,
            taken: 0,
            told: None,
        }
    }

    /// Bytes came. False where the sender was not to send them.
    pub(crate) fn came(&mut self, bytes: usize) -> bool {
        let left = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.open.checked_sub(bytes));
        self.open = left.unwrap_or(0);
        left.is_some()
    }

    /// Bytes were read: how many more the sender is to be told of, if it is time to. A reader that empties half of the window within two round
    /// trips could take more than there is room for.
    pub(crate) fn read(
        &mut self,
        bytes: usize,
        now: Instant,
        trip: Option<Duration>,
    ) -> Option<u32> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.taken = self.taken.saturating_add(bytes);
        if self.taken < self.size / 2 {
            return None;
        }
        let mut more = std::mem::take(&mut self.taken);
        let is_fast = self
            .told
            .is_some_and(|told| now - told < trip.unwrap_or(UNKNOWN_TRIP) * 2);
        if is_fast && self.size < MAX_WINDOW && self.budget.take(self.size) {
            more = more.saturating_add(self.size);
            self.size *= 2;
        }
        self.told = Some(now);
        self.open = self.open.saturating_add(more);
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Option<Duration> = Some(Duration::from_millis(60));

    /// Reads all that comes, in steps of `every`, and answers with what was given in each.
    fn fast(window: &mut Window, every: Duration, steps: usize) -> Vec<u32> {
        let mut now = Instant::now();
        (0..steps)
            .filter_map(|_| {
                let half = window.size / 2;
                assert!(window.came(usize::try_from(half).unwrap()));
                now += every;
                window.read(usize::try_from(half).unwrap(), now, TRIP)
            })
            .collect()
    }

    #[test]
    fn a_fast_reader_gets_more_room_each_round_up_to_the_most() {
        let mut window = Window::new(Budget::new(1 << 30));
        fast(&mut window, Duration::from_millis(60), 20);
        assert_eq!(window.size, MAX_WINDOW);
        assert_eq!(window.open, MAX_WINDOW);
    }

    #[test]
    fn a_slow_reader_keeps_the_first_window() {
        let mut window = Window::new(Budget::new(1 << 30));
        let given = fast(&mut window, Duration::from_millis(130), 5);
        assert_eq!(given, [FIRST_WINDOW / 2; 5]);
        assert_eq!((window.size, window.open), (FIRST_WINDOW, FIRST_WINDOW));
    }

    #[test]
    fn the_sender_keeps_to_what_it_was_given() {
        let mut window = Window::new(Budget::new(0));
        let all = usize::try_from(FIRST_WINDOW).unwrap();
        assert!(window.came(all));
        assert!(!window.came(1));
    }

    #[test]
    fn all_windows_share_a_budget_and_give_it_back() {
        let budget = Budget::new(u64::from(FIRST_WINDOW));
        let mut one = Window::new(budget.clone());
        let mut other = Window::new(budget.clone());
        fast(&mut one, Duration::from_millis(1), 9);
        fast(&mut other, Duration::from_millis(1), 9);
        assert_eq!((one.size, other.size), (FIRST_WINDOW * 2, FIRST_WINDOW));
        drop(one);
        fast(&mut other, Duration::from_millis(1), 9);
        assert_eq!(other.size, FIRST_WINDOW * 2);
    }

    #[test]
    fn nobody_has_more_than_a_part_and_all_not_more_than_the_whole() {
        let whole = Budget::new(100);
        let (one, other) = (whole.part(60), whole.part(60));
        assert!(one.take(60));
        assert!(!one.take(1));
        assert!(other.take(40));
        assert!(!other.take(1), "the whole is used up");
        one.give(60);
        assert!(other.take(20));
        assert!(!other.take(1));
        assert!(one.take(40));
        assert!(!one.take(1));
    }
}
