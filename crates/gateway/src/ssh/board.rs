//! Sessions that are open: how many, under which grants, and the way to end each.

use crate::known::Known;
use jiff::Timestamp;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{
    gateway::GrantClaims,
    ids::{GitspaceUuid, UserUuid},
};

/// Connections at a time, each with two sockets.
const MAX_SESSIONS: usize = 4096;
/// Of them, those whose user is not known yet; and of one address, behind which an office may begin its day. Beyond that the oldest gives way:
/// a few that say nothing keep nobody out.
const MAX_STRANGERS: usize = 2048;
const MAX_STRANGERS_OF_ADDRESS: usize = 64;
const MAX_OF_ADDRESS: usize = 512;
/// Of one user: what editors, their forwards and a handful of terminals open.
const MAX_OF_USER: usize = 64;
/// Of a jump's channel, in each direction: enough for a fast line across a continent; and while all of them together are more than the third.
const WINDOW: u32 = 2 * 1024 * 1024;
const SMALL_WINDOW: u32 = 64 * 1024;
const MAX_WINDOWS: u64 = 256 * 1024 * 1024;

/// One session, as the sweeper sees it.
#[derive(Debug)]
pub(crate) struct Live {
    peer: IpAddr,
    state: Mutex<State>,
    ended: CancellationToken,
    /// Told when there is one more grant to renew in time.
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None` of a stranger.
    user: Option<UserUuid>,
    grants: Vec<Arc<GrantClaims>>,
    why: Option<String>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something more that goes on here is under `claims`.
    pub(super) fn hold(&self, claims: &Arc<GrantClaims>) {
        self.replace(claims);
        self.more.notify_one();
    }

    /// Waits until there is one more.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// What goes on for the gitspace is under `claims` from here on.
    pub(super) fn replace(&self, claims: &Arc<GrantClaims>) {
        let mut state = self.lock();
        state.grants.retain(|held| held.gitspace != claims.gitspace);
        state.grants.push(Arc::clone(claims));
    }

    /// What goes on for other gitspaces than these is over.
    pub(super) fn keep(&self, gitspaces: &[GitspaceUuid]) {
        self.lock()
            .grants
            .retain(|held| gitspaces.contains(&held.gitspace));
    }

    pub(super) fn grants(&self) -> Vec<Arc<GrantClaims>> {
        self.lock().grants.clone()
    }

    /// The first reason counts.
    pub(super) fn end(&self, why: impl Into<String>) {
        self.lock().why.get_or_insert_with(|| why.into());
        self.ended.cancel();
    }

    /// Waits until it is to end; answers with why.
    pub(super) async fn ended(&self) -> String {
        self.ended.cancelled().await;
        self.lock().why.clone().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Board {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
    opened: AtomicU64,
    refused: AtomicU64,
    turned_away: AtomicU64,
    bytes: AtomicU64,
    /// Of all channels of jumps, in bytes.
    windows: AtomicU64,
}

/// What the gateway's SSH has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SshView {
    /// Connections that are open.
    pub sessions: usize,
    /// Of them, those whose user is not known yet.
    pub strangers: usize,
    /// Logins so far.
    pub opened: u64,
    /// Connections so far that ended without a login.
    pub refused: u64,
    /// Connections so far that were too many.
    pub turned_away: u64,
    /// Bytes passed on so far, in both directions.
    pub bytes: u64,
}

/// A session's place; gives it back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    board: Arc<Board>,
    id: u64,
    pub(super) live: Arc<Live>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.lock().remove(&self.id);
        let count = if self.live.lock().user.is_some() {
            &self.board.opened
        } else {
            &self.board.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes that a channel may hold.
#[derive(Debug)]
pub(super) struct Window {
    board: Arc<Board>,
    pub(super) size: u32,
}

impl Drop for Window {
    fn drop(&mut self) {
        let size = u64::from(self.size);
        self.board.windows.fetch_sub(size, Ordering::Relaxed);
    }
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    #[error("too many SSH connections are open")]
    All,
    #[error("too many SSH connections of this address are open")]
    Address,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Crowded> {
        let mut live = self.lock();
        if let Err(crowded) = make_room(&live, peer) {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(crowded);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let one = Arc::new(Live {
            peer,
            state: Mutex::default(),
            ended: CancellationToken::new(),
            more: Notify::new(),
        });
        live.insert(id, Arc::clone(&one));
        Ok(Place {
            board: Arc::clone(self),
            id,
            live: one,
        })
    }

    /// Its user is known: `live` is no stranger any more. `false` where that user has too many sessions.
    pub(super) fn admit(&self, live: &Live, user: UserUuid) -> bool {
        let all = self.lock();
        let same = |one: &&Arc<Live>| one.lock().user == Some(user);
        if all.values().filter(same).count() >= MAX_OF_USER {
            return false;
        }
        live.lock().user = Some(user);
        true
    }

    /// The window of one more channel, until it is given back.
    pub(super) fn window(self: &Arc<Self>) -> Window {
        let size = if self.windows.load(Ordering::Relaxed) < MAX_WINDOWS {
            WINDOW
        } else {
            SMALL_WINDOW
        };
        self.windows.fetch_add(size.into(), Ordering::Relaxed);
        Window {
            board: Arc::clone(self),
            size,
        }
    }

    pub(super) fn carried(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends those whose grant holds no longer.
    pub(super) fn sweep(&self, known: &Known, now: Timestamp) {
        let inner = known.read();
        for live in self.lock().values() {
            let void = live.lock().grants.iter().find_map(|claims| {
                if !inner.routes.contains_key(&claims.slug) {
                    return Some("the gitspace is not there any more".to_owned());
                }
                inner
                    .check(claims, now)
                    .err()
                    .map(|refusal| refusal.to_string())
            });
            if let Some(why) = void {
                live.end(why);
            }
        }
    }

    /// Ends those whose user is not known yet.
    pub(super) fn end_strangers(&self) {
        for live in self.lock().values() {
            if live.lock().user.is_none() {
                live.end("the gateway is stopping");
            }
        }
    }

    pub(crate) fn view(&self) -> SshView {
        let live = self.lock();
        let strangers = live
            .values()
            .filter(|live| live.lock().user.is_none())
            .count();
        let known = u64::try_from(live.len() - strangers).unwrap_or(u64::MAX);
        SshView {
            sessions: live.len(),
            strangers,
            // Those that are open have not been counted yet.
            opened: self.opened.load(Ordering::Relaxed).saturating_add(known),
            refused: self.refused.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Whether one more may come from `peer`; a stranger may have to leave for it.
fn make_room(open: &HashMap<u64, Arc<Live>>, peer: IpAddr) -> Result<(), Crowded> {
    // Those that were told to leave hold a socket until they have heard it.
    if open.len() >= MAX_SESSIONS {
        return Err(Crowded::All);
    }
    let staying = open
        .iter()
        .filter(|(_, live)| !live.ended.is_cancelled())
        .map(|(id, live)| (*id, live));
    if staying
        .clone()
        .filter(|(_, live)| live.peer == peer)
        .count()
        >= MAX_OF_ADDRESS
    {
        return Err(Crowded::Address);
    }
    let strangers = staying.filter(|(_, live)| live.lock().user.is_none());
    let own = || strangers.clone().filter(|(_, live)| live.peer == peer);
    let crowd: Vec<(u64, &Arc<Live>)> = if own().count() >= MAX_STRANGERS_OF_ADDRESS {
        own().collect()
    } else if strangers.clone().count() >= MAX_STRANGERS {
        let mut crowds: HashMap<IpAddr, Vec<_>> = HashMap::new();
        for one in strangers {
            crowds.entry(one.1.peer).or_default().push(one);
        }
        crowds
            .into_values()
            .max_by_key(Vec::len)
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    if let Some((_, oldest)) = crowd.iter().min_by_key(|(id, _)| *id) {
        oldest.end("too many SSH connections wait for a login, and this one was the oldest");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;

    fn user(number: u128) -> UserUuid {
        UserUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn one_user_does_not_take_all_places() {
        let board = Arc::new(Board::default());
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let admit = |number| {
            let place = board.enter(peer).unwrap();
            let is_in = board.admit(&place.live, user(number));
            (is_in, place)
        };
        let places: Vec<_> = (0..MAX_OF_USER).map(|_| admit(1)).collect();
        assert!(places.iter().all(|(is_in, _)| *is_in));
        assert!(!admit(1).0);
        assert!(admit(2).0, "another one may come");
        drop(places);
        assert!(admit(1).0, "there is room again");
    }

    #[test]
    fn all_windows_together_are_bounded() {
        let board = Arc::new(Board::default());
        let many: Vec<_> = (0..200).map(|_| board.window()).collect();
        let large = many.iter().filter(|window| window.size == WINDOW).count();
        assert_eq!(large, 128);
        assert_eq!(many[199].size, SMALL_WINDOW);
        drop(many);
        assert_eq!(board.window().size, WINDOW);
    }

    fn is_to_leave(place: &Place) -> bool {
        place.live.ended.is_cancelled()
    }

    #[test]
    fn strangers_of_one_address_keep_nobody_out() {
        let board = Arc::new(Board::default());
        let (one, other): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let places: Vec<_> = (0..MAX_STRANGERS_OF_ADDRESS)
            .map(|_| board.enter(one).unwrap())
            .collect();
        let elsewhere = board.enter(other).unwrap();
        // Whoever has logged in is not in the way, and does not give way.
        assert!(board.admit(&places[0].live, user(1)));
        let next = board.enter(one).unwrap();
        assert!(!places.iter().any(is_to_leave));
        let last = board.enter(one).unwrap();
        assert!(is_to_leave(&places[1]), "the oldest stranger leaves");
        let stay = [&places[0], &places[2], &next, &last, &elsewhere];
        assert!(!stay.into_iter().any(is_to_leave));
        // It is not in the way while it leaves.
        drop(board.enter(one).unwrap());
        assert!(is_to_leave(&places[2]) && !is_to_leave(&places[3]));
        let view = board.view();
        assert_eq!((view.sessions, view.strangers), (67, 66));
        assert_eq!((view.opened, view.refused, view.turned_away), (1, 1, 0));
        drop((places, elsewhere, next, last));
        assert_eq!((board.view().sessions, board.view().refused), (0, 67));
    }

    #[test]
    fn of_too_many_strangers_one_of_the_largest_crowd_gives_way() {
        let board = Arc::new(Board::default());
        let enter = |net: u8, host: u16| {
            let [high, low] = host.to_be_bytes();
            board.enter(IpAddr::from([10, net, high, low])).unwrap()
        };
        let first = enter(0, 0);
        let crowd: Vec<_> = (0..10).map(|_| enter(1, 0)).collect();
        let many = u16::try_from(MAX_STRANGERS - 11).unwrap();
        let alone: Vec<_> = (0..many).map(|host| enter(2, host)).collect();
        assert!(!crowd.iter().any(is_to_leave));
        let _next = enter(3, 0);
        assert!(is_to_leave(&crowd[0]) && !is_to_leave(&crowd[1]));
        assert!(!is_to_leave(&first) && !alone.iter().any(is_to_leave));
    }
}
