//! Connections that are open, and the sweeper that ends those whose time is over or whose grant no longer holds.
//!
//! A connection notes what it does with two relaxed stores; it sets no timer. The sweeper looks at all of them four times a
//! second, and at once when grants were revoked.

use crate::{known::Known, renewal::RENEW_BEFORE};
use daemon::Clock;
use jiff::{SignedDuration, Timestamp};
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tls_server::{Crowd, Guest};
use tokio::task::AbortHandle;
use wire::gateway::GrantClaims;

/// Connections at a time. Beyond it those that wait give way, or else new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// From here on idle connections make room.
const CROWDED: usize = MAX_CONNECTIONS / 4 * 3;
/// How often the sweeper looks.
pub(crate) const SWEEP_PERIOD: Duration = Duration::from_millis(250);
/// For a head, from its first byte to its last; for the first one, from the connection's start.
const HEAD_LIMIT_MS: u64 = 15_000;
/// Between two requests.
const IDLE_LIMIT_MS: u64 = 75_000;
/// The same when connections are short.
const CROWDED_IDLE_LIMIT_MS: u64 = 2_000;
/// For a request and its answer while no byte moves: long, because people stop apps in debuggers.
const EXCHANGE_LIMIT_MS: u64 = 3_600_000;
/// How often the next grant is asked for where there was no answer.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// For a tunnel of which one end has closed.
const CLOSING_LIMIT_MS: u64 = 60_000;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Head,
    Idle,
    Exchange,
    Tunnel,
    Closing,
}

/// What the sweeper sees of a connection.
#[derive(Debug)]
pub(crate) struct Live {
    phase: AtomicU8,
    since_ms: AtomicU64,
    held: Mutex<Option<Held>>,
}

/// The grant that what goes on is under.
#[derive(Debug)]
struct Held {
    claims: Arc<GrantClaims>,
    token: Arc<str>,
    renewal: Renewal,
}

/// How it is with the next grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    NotAsked,
    /// When it was last asked for.
    Asked(Timestamp),
    Refused,
}

/// A connection that needs its next grant.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) live: Arc<Live>,
    pub(crate) token: Arc<str>,
}

impl Live {
    fn new(now_ms: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Head as u8),
            since_ms: AtomicU64::new(now_ms),
            held: Mutex::new(None),
        }
    }

    pub(crate) fn enter(&self, phase: Phase, now_ms: u64) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since_ms.store(now_ms, Ordering::Relaxed);
    }

    /// What goes on here is under this grant from here on.
    pub(crate) fn hold(&self, claims: &Arc<GrantClaims>, token: Arc<str>) {
        *self.held() = Some(Held {
            claims: claims.clone(),
            token,
            renewal: Renewal::NotAsked,
        });
    }

    /// The next grant for what goes on under `token`, which is of no use where that is another one by now.
    pub(crate) fn renew(&self, token: &str, claims: &Arc<GrantClaims>, next: Arc<str>) {
        let mut held = self.held();
        if let Some(held) = held.as_mut().filter(|held| *held.token == *token) {
            held.claims = claims.clone();
            held.token = next;
            held.renewal = Renewal::NotAsked;
        }
    }

    /// There is no next grant for what goes on under `token`.
    pub(crate) fn renew_no_more(&self, token: &str) {
        let mut held = self.held();
        if let Some(held) = held.as_mut().filter(|held| *held.token == *token) {
            held.renewal = Renewal::Refused;
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its token, where something goes on whose grant ends soon, and it was not asked lately for the next one.
    fn due(&self, now: Timestamp) -> Option<Arc<str>> {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase != Phase::Tunnel as u8 && phase != Phase::Exchange as u8 {
            return None;
        }
        let mut held = self.held();
        let held = held.as_mut()?;
        let is_soon = held.claims.exp.duration_since(now) < RENEW_BEFORE;
        let is_turn = match held.renewal {
            Renewal::NotAsked => true,
            Renewal::Asked(at) => now.duration_since(at) >= ASK_AGAIN,
            Renewal::Refused => false,
        };
        if !is_soon || !is_turn {
            return None;
        }
        held.renewal = Renewal::Asked(now);
        Some(held.token.clone())
    }

    fn is_over(&self, now_ms: u64, crowded: bool) -> bool {
        let spent = now_ms.saturating_sub(self.since_ms.load(Ordering::Relaxed));
        let phase = self.phase.load(Ordering::Relaxed);
        let limit = match phase {
            phase if phase == Phase::Head as u8 => HEAD_LIMIT_MS,
            phase if phase == Phase::Idle as u8 && crowded => CROWDED_IDLE_LIMIT_MS,
            phase if phase == Phase::Idle as u8 => IDLE_LIMIT_MS,
            phase if phase == Phase::Exchange as u8 => EXCHANGE_LIMIT_MS,
            phase if phase == Phase::Closing as u8 => CLOSING_LIMIT_MS,
            // A tunnel lasts: the sockets' own keep-alive ends it when the client's host is gone.
            _ => return false,
        };
        spent >= limit
    }
}

impl Guest for Live {
    fn is_waiting(&self) -> bool {
        matches!(
            self.phase.load(Ordering::Relaxed),
            phase if phase == Phase::Head as u8 || phase == Phase::Idle as u8
        )
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Census {
    started: Instant,
    clock: Arc<dyn Clock>,
    now_ms: AtomicU64,
    open: Crowd<Arc<Live>>,
}

impl Census {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            started: clock.instant(),
            clock,
            now_ms: AtomicU64::new(0),
            open: Crowd::new(MAX_CONNECTIONS),
        }
    }

    /// Time since the start, as of the last sweep.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Connections that are open, or were at the last sweep.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether one more can be taken; where it cannot, somebody who waits is about to be ended.
    pub(crate) fn has_room(&self) -> bool {
        self.open.has_room()
    }

    pub(crate) fn newcomer(&self) -> Arc<Live> {
        Arc::new(Live::new(self.now_ms()))
    }

    pub(crate) fn enter(&self, from: IpAddr, live: Arc<Live>, handle: AbortHandle) {
        self.open.enter(from, live, handle);
    }

    /// Ends what is over.
    pub(crate) fn sweep(&self, known: &Known) {
        let elapsed = self.clock.instant().duration_since(self.started);
        let now_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.store(now_ms, Ordering::Relaxed);
        let now = self.clock.now();
        let inner = known.read();
        let crowded = self.open.len() >= CROWDED;
        self.open.retain(|live| {
            let void = live
                .held()
                .as_ref()
                .is_some_and(|held| inner.check(&held.claims, now).is_err());
            !void && !live.is_over(now_ms, crowded)
        });
    }

    /// Those whose next grant is to be asked for now.
    pub(crate) fn due_for_renewal(&self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        self.open.each(|live| {
            if let Some(token) = live.due(now) {
                let live = Arc::clone(live);
                due.push(Due { live, token });
            }
        });
        due
    }

    /// Ends what would last for ever: waiting for a next request, and tunnels, whose clients dial again.
    pub(crate) fn end_waiting(&self) {
        self.open
            .retain(|live| live.phase.load(Ordering::Relaxed) == Phase::Exchange as u8);
    }
}
