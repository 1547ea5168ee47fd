//! Whom this control plane refused lately: an operator who looks for a host that is away finds it here.
//!
//! In memory, and bounded: one entry for each delegate that the store knows, and [`MAX_RECENT`] for all peers together. Nothing of it is proved:
//! whoever dials says which delegate it is.

use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use wire::{api::RefusedDelegate, control::DisconnectCode, ids::DelegateUuid, shown};

/// Of the newest refusals, whoever it was.
const MAX_RECENT: usize = 32;
/// Of one reason, in bytes. Parts of it are the peer's.
const MAX_REASON: usize = 300;

/// One peer that was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedPeer {
    /// Which one it said that it is, where it came to that.
    pub delegate: Option<DelegateUuid>,
    pub refused: RefusedDelegate,
}

#[derive(Debug, Default)]
struct Known {
    delegates: HashMap<DelegateUuid, RefusedDelegate>,
    recent: VecDeque<RefusedPeer>,
}

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Known>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Entries are put in whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `delegate` is whom the peer said to be.
    pub(super) fn note(
        &self,
        delegate: Option<DelegateUuid>,
        code: DisconnectCode,
        reason: &str,
        now: Timestamp,
    ) {
        // It may be let in in a moment.
        if matches!(
            code,
            DisconnectCode::Superseded | DisconnectCode::Overloaded | DisconnectCode::GoingAway
        ) {
            return;
        }
        let refused = RefusedDelegate {
            code,
            reason: shown::bounded(reason, MAX_REASON),
            at: now,
        };
        let mut known = self.lock();
        // Where it had no delegate of that id, anybody can make up another one.
        if let Some(delegate) = delegate
            && code != DisconnectCode::UnknownDelegate
        {
            known.delegates.insert(delegate, refused.clone());
        }
        known.recent.push_front(RefusedPeer { delegate, refused });
        known.recent.truncate(MAX_RECENT);
    }

    /// The delegate got in: what was wrong with itself is mended. A peer with another key was not it.
    pub(super) fn let_in(&self, delegate: DelegateUuid) {
        let mut known = self.lock();
        let is_mended = known.delegates.get(&delegate).is_some_and(|refused| {
            !matches!(
                refused.code,
                DisconnectCode::SupersededKey | DisconnectCode::BadProof
            )
        });
        if is_mended {
            known.delegates.remove(&delegate);
        }
    }

    pub(super) fn of(&self, delegate: DelegateUuid) -> Option<RefusedDelegate> {
        self.lock().delegates.get(&delegate).cloned()
    }

    /// The newest first.
    pub(super) fn recent(&self) -> Vec<RefusedPeer> {
        self.lock().recent.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;

    fn delegate(number: u128) -> DelegateUuid {
        DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_refusal_is_known_of_its_delegate_until_that_one_gets_in() {
        let refusals = Refusals::default();
        let note = |code| refusals.note(Some(delegate(1)), code, "why", Timestamp::UNIX_EPOCH);
        note(DisconnectCode::ClockSkew);
        let code = || refusals.of(delegate(1)).map(|refused| refused.code);
        assert_eq!(code(), Some(DisconnectCode::ClockSkew));
        note(DisconnectCode::Overloaded);
        assert_eq!(code(), Some(DisconnectCode::ClockSkew), "it tries again");
        refusals.let_in(delegate(1));
        assert_eq!(code(), None);
        note(DisconnectCode::SupersededKey);
        refusals.let_in(delegate(1));
        assert_eq!(
            code(),
            Some(DisconnectCode::SupersededKey),
            "somebody has an old copy"
        );
    }

    #[test]
    fn strangers_take_no_more_room_than_a_few_lines() {
        let refusals = Refusals::default();
        for number in 0..1_000 {
            refusals.note(
                Some(delegate(number)),
                DisconnectCode::UnknownDelegate,
                &"\u{1b}x".repeat(1_000),
                Timestamp::UNIX_EPOCH,
            );
        }
        refusals.note(
            None,
            DisconnectCode::Version,
            "too old",
            Timestamp::UNIX_EPOCH,
        );
        let recent = refusals.recent();
        assert_eq!(recent.len(), MAX_RECENT);
        assert_eq!(recent[0].refused.code, DisconnectCode::Version);
        assert!(recent[1].refused.reason.len() <= MAX_REASON);
        assert!(!recent[1].refused.reason.contains('\u{1b}'));
        assert!(refusals.lock().delegates.is_empty());
    }
}
