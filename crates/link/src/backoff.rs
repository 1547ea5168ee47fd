//! How long to wait before dialling again: exponential, capped, with full jitter.

use crate::limits::{BACKOFF_BASE, BACKOFF_CAP, CLONED_BACKOFF, REFUSED_BACKOFF};
use std::time::Duration;
use wire::control::DisconnectCode;

/// `SplitMix64`: spreads the dials of many delegates; nothing secret comes of it.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to and without `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// From nothing to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(millis.saturating_add(1)))
    }
}

/// Before the try after `attempt` failed ones (1 is the first failure): anything up to a limit that doubles up to `cap`.
#[must_use]
pub fn delay(attempt: u32, cap: Duration, rng: &mut Rng) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let limit = BACKOFF_BASE.saturating_mul(1 << doublings).min(cap);
    rng.up_to(limit)
}

/// How soon another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// As [`delay`] says, up to a part of a heartbeat ([`Timing::backoff_cap`](crate::Timing::backoff_cap)).
    Soon,
    /// The same up to [`BACKOFF_CAP`]: the control plane asked for less.
    Patiently,
    /// A person has to act first, or fast redials would throw another process out: about [`REFUSED_BACKOFF`].
    Slowly,
    /// Each try throws a twin out: about [`CLONED_BACKOFF`].
    Rarely,
}

impl Retry {
    #[must_use]
    pub const fn after(code: DisconnectCode) -> Self {
        match code {
            DisconnectCode::Revoked
            | DisconnectCode::SupersededKey
            | DisconnectCode::UnknownDelegate
            | DisconnectCode::BadProof
            | DisconnectCode::Version
            | DisconnectCode::TooLarge
            | DisconnectCode::Superseded => Self::Slowly,
            DisconnectCode::Cloned => Self::Rarely,
            DisconnectCode::GoingAway
            | DisconnectCode::ClockSkew
            | DisconnectCode::Protocol
            | DisconnectCode::Silence
            | DisconnectCode::CannotConnect
            | DisconnectCode::CannotGreet
            | DisconnectCode::ConnectionLost
            | DisconnectCode::Other => Self::Soon,
            DisconnectCode::Overloaded | DisconnectCode::NotStored => Self::Patiently,
        }
    }

    /// Before the try after `attempt` failed ones; `soon` is the longest where it makes sense [`Retry::Soon`].
    #[must_use]
    pub fn delay(self, attempt: u32, soon: Duration, rng: &mut Rng) -> Duration {
        match self {
            Self::Soon => delay(attempt, soon, rng),
            Self::Patiently => delay(attempt, BACKOFF_CAP, rng),
            Self::Slowly => about(REFUSED_BACKOFF, rng),
            Self::Rarely => about(CLONED_BACKOFF, rng),
        }
    }
}

/// Spread by a half.
fn about(middle: Duration, rng: &mut Rng) -> Duration {
    middle * 3 / 4 + rng.up_to(middle / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timing;

    #[test]
    fn the_limit_doubles_and_is_capped() {
        let mut rng = Rng::new(1);
        for (attempt, limit) in [
            (1, 500),
            (2, 1_000),
            (4, 4_000),
            (9, 30_000),
            (u32::MAX, 30_000),
        ] {
            let longest = (0..2_000)
                .map(|_| delay(attempt, BACKOFF_CAP, &mut rng))
                .max()
                .unwrap_or_default();
            let limit = Duration::from_millis(limit);
            assert!(longest <= limit, "attempt {attempt}: {longest:?}");
            assert!(longest > limit * 9 / 10, "attempt {attempt}: {longest:?}");
        }
    }

    #[test]
    fn jitter_is_full_so_that_a_herd_spreads_from_nothing_to_the_limit() {
        let mut rng = Rng::new(7);
        let shortest = (0..2_000).map(|_| delay(9, BACKOFF_CAP, &mut rng)).min();
        assert!(shortest < Some(Duration::from_millis(300)), "{shortest:?}");
    }

    #[test]
    fn a_control_plane_that_is_not_reached_is_dialled_again_within_two_heartbeats_of_its_return() {
        let mut rng = Rng::new(5);
        for timing in [
            Timing::default(),
            Timing::of_heartbeat(Duration::from_secs(2)),
        ] {
            for code in [
                DisconnectCode::CannotConnect,
                DisconnectCode::ConnectionLost,
                DisconnectCode::Silence,
                DisconnectCode::GoingAway,
            ] {
                let longest = (1..2_000)
                    .map(|attempt| {
                        Retry::after(code).delay(attempt, timing.backoff_cap(), &mut rng)
                    })
                    .max()
                    .unwrap_or_default();
                assert!(
                    longest + timing.dial_limit() < timing.heartbeat * 2,
                    "{code}: {longest:?}"
                );
            }
        }
    }

    #[test]
    fn a_refused_delegate_asks_about_once_a_minute() {
        let mut rng = Rng::new(3);
        for _ in 0..1_000 {
            let delay = Retry::after(DisconnectCode::Revoked).delay(1, BACKOFF_CAP, &mut rng);
            assert!((45..=75).contains(&delay.as_secs()), "{delay:?}");
        }
    }

    #[test]
    fn a_cloned_delegate_leaves_its_twin_in_peace_for_about_ten_minutes() {
        let mut rng = Rng::new(3);
        for _ in 0..1_000 {
            let delay = Retry::after(DisconnectCode::Cloned).delay(1, BACKOFF_CAP, &mut rng);
            assert!((450..=750).contains(&delay.as_secs()), "{delay:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut rng = Rng::new(seed);
            (1..20)
                .map(|n| delay(n, BACKOFF_CAP, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(delays(42), delays(42));
        assert_ne!(delays(42), delays(43));
    }
}
