//! Whose turn it is to send.
//!
//! Deficit round robin with a second queue in front, after FQ-CoDel (RFC 8290, section 4.1.2): a stream that sends less than its share comes before
//! all that send more. A keystroke or a small request so waits for at most one frame of each stream that is as small as itself, however many
//! downloads there are, and nobody says which streams are which. Where FQ-CoDel sends a stream that has emptied its queue round once, here its share
//! counts on: on a slow line a round of downloads is longer than the pause between two keys.

use std::collections::VecDeque;

/// Bytes that a stream sends before it is another's turn.
pub(crate) const QUANTUM: i64 = 16 * 1024;

/// A stream's part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    queued: bool,
    /// What is left of its share; it goes round where nothing is.
    left: i64,
    /// When it was given that, by what all had sent.
    given: u64,
    /// It has more than its reader takes: more room for that is no reason to come first.
    bulk: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Fair {
    /// Has something left of its share.
    fresh: VecDeque<u32>,
    /// Has had its share.
    rest: VecDeque<u32>,
    /// By all.
    sent: u64,
}

/// What a stream did with its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// So many bytes, and has more.
    More(usize),
    /// So many bytes, and has nothing more.
    All(usize),
    /// So many bytes, and has more when its reader has taken some.
    Stopped(usize),
    /// It is gone.
    Gone,
}

impl Fair {
    /// The stream has something that it may send.
    pub(crate) fn wants(&mut self, stream: u32, turn: &mut Turn) {
        if turn.queued {
            return;
        }
        turn.queued = true;
        // What everybody who sends now sends before it would be its turn again.
        let others = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let round = others
            .saturating_add(1)
            .saturating_mul(QUANTUM.unsigned_abs());
        if turn.given == 0 || self.sent.saturating_sub(turn.given) >= round {
            turn.left = QUANTUM;
            turn.given = self.sent.max(1);
        }
        if turn.left > 0 && !turn.bulk {
            self.fresh.push_back(stream);
        } else {
            turn.bulk = false;
            self.go_round(stream, turn);
        }
    }

    fn go_round(&mut self, stream: u32, turn: &mut Turn) {
        turn.left = turn.left.min(0) + QUANTUM;
        self.rest.push_back(stream);
    }

    pub(crate) fn next(&self) -> Option<u32> {
        self.fresh.front().or_else(|| self.rest.front()).copied()
    }

    /// After [`Fair::next`] said the stream whose `turn` it is (`None`: it is gone).
    pub(crate) fn used(&mut self, turn: Option<&mut Turn>, used: Used) {
        let is_round = self.fresh.is_empty();
        let queue = if is_round {
            &mut self.rest
        } else {
            &mut self.fresh
        };
        let Some(stream) = queue.pop_front() else {
            return;
        };
        let (Some(turn), Used::More(bytes) | Used::All(bytes) | Used::Stopped(bytes)) =
            (turn, used)
        else {
            return;
        };
        if is_round {
            turn.given = self.sent.max(1);
        }
        turn.left = turn
            .left
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.sent = self
            .sent
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        match used {
            Used::More(_) if turn.left > 0 => queue.push_front(stream),
            Used::More(_) => self.go_round(stream, turn),
            Used::All(_) | Used::Gone => turn.queued = false,
            Used::Stopped(_) => {
                turn.queued = false;
                turn.bulk = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Streams with so many bytes each, in frames of up to 16 KiB: the order in which they send.
    fn order(fair: &mut Fair, left: &mut HashMap<u32, (usize, Turn)>, frames: usize) -> Vec<u32> {
        let mut order = Vec::new();
        while order.len() < frames
            && let Some(stream) = fair.next()
        {
            let (bytes, turn) = left.get_mut(&stream).unwrap();
            let now = (*bytes).min(16 * 1024);
            *bytes -= now;
            let used = match *bytes {
                0 => Used::All(now),
                _ => Used::More(now),
            };
            fair.used(Some(turn), used);
            order.push(stream);
        }
        order
    }

    fn with(fair: &mut Fair, streams: &[(u32, usize)]) -> HashMap<u32, (usize, Turn)> {
        let mut left = HashMap::new();
        for (stream, bytes) in streams {
            let mut turn = Turn::default();
            fair.wants(*stream, &mut turn);
            left.insert(*stream, (*bytes, turn));
        }
        left
    }

    #[test]
    fn many_bytes_share_the_line_evenly() {
        let mut fair = Fair::default();
        let mut left = with(&mut fair, &[(1, 1 << 20), (2, 1 << 20), (3, 1 << 20)]);
        assert_eq!(order(&mut fair, &mut left, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn few_bytes_come_first_each_time_however_many_downloads_there_are() {
        let mut fair = Fair::default();
        let bulk: Vec<_> = (10..30).map(|stream| (stream, 1 << 30)).collect();
        let mut left = with(&mut fair, &bulk);
        order(&mut fair, &mut left, 30);
        let mut turn = Turn::default();
        for key in 0..200 {
            fair.wants(9, &mut turn);
            left.insert(9, (1, turn));
            assert_eq!(order(&mut fair, &mut left, 1), [9], "key {key}");
            turn = left[&9].1;
            // Not a round: the next key does not wait for it.
            order(&mut fair, &mut left, 2);
        }
    }

    #[test]
    fn often_and_little_is_no_more_than_a_share() {
        let mut fair = Fair::default();
        let mut left = with(&mut fair, &[(1, 1 << 30), (2, 1 << 30), (9, 0)]);
        let (mut bulk, mut little) = (0_usize, 0_usize);
        for _ in 0..30_000 {
            let (bytes, turn) = left.get_mut(&9).unwrap();
            *bytes = 1000;
            fair.wants(9, turn);
            match order(&mut fair, &mut left, 1)[..] {
                [9] => little += 1000,
                _ => bulk += 16 * 1024,
            }
        }
        // Of two others, that each send as much as they can.
        assert!(little <= bulk / 2 + 16 * 1024, "{little} {bulk}");
        assert!(little >= bulk / 4, "{little} {bulk}");
    }

    #[test]
    fn a_download_whose_reader_made_room_does_not_come_first() {
        let mut fair = Fair::default();
        let mut left = with(&mut fair, &[(1, 1 << 30), (2, 1 << 30)]);
        order(&mut fair, &mut left, 10);
        let stopped = fair.next().unwrap();
        fair.used(
            Some(&mut left.get_mut(&stopped).unwrap().1),
            Used::Stopped(16 * 1024),
        );
        order(&mut fair, &mut left, 40);
        fair.wants(stopped, &mut left.get_mut(&stopped).unwrap().1);
        let mut turn = Turn::default();
        fair.wants(9, &mut turn);
        left.insert(9, (1, turn));
        assert_eq!(order(&mut fair, &mut left, 1), [9]);
    }

    #[test]
    fn a_stream_that_is_gone_is_passed_over() {
        let mut fair = Fair::default();
        let mut left = with(&mut fair, &[(1, 1), (2, 1)]);
        assert_eq!(fair.next(), Some(1));
        fair.used(None, Used::Gone);
        assert_eq!(order(&mut fair, &mut left, 9), [2]);
        assert_eq!(fair.next(), None);
    }
}
