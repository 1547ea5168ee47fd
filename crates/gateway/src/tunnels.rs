//! Tunnels of hosts that nobody can connect to: which there are, and streams through them.
//!
//! A delegate opens several lanes, each a tunnel of its own, so that one lost packet holds up a part of its streams only. A lane outlives its
//! line by [`GRACE`]: streams wait for the next one. Where the tunnel on it ended, another one begins.
//!
//! Tasks: *gateway-tunnels* owns every line ([`lines`]). Who may open one is decided in [`entrance`], before anything is kept of it.
//!
//! Invariants:
//! - What a stream is opened for was [`Authorized`].
//! - A delegate has the lanes of one process: that of the newest.
//! - A revoked delegate has none.

mod entrance;
mod lines;

pub(crate) use entrance::{Entering, enter};
pub(crate) use lines::{Joining, Served, run};

use crate::{Authorized, DialError, Target, Upstream, known::Known};
use bytes::Bytes;
use daemon::{IdsExt as _, RandomIds};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::mpsc, time::Instant};
use tunnel::{Budget, NextLine, OpenError, Role, Tunnel, TunnelStream};
use wire::{
    ids::{DelegateUuid, StreamUuid},
    tunnel::{GRACE, StreamRefusal, StreamRequest, TunnelClaims, TunnelHello, TunnelWelcome},
};

/// Of one delegate.
const MAX_LANES: u8 = 8;
/// For windows beyond the first, and for what may have to be sent again, of all tunnels together.
const BUDGET: u64 = 512 * 1024 * 1024;
/// Of those of one host: a part, so that none has all of it.
const BUDGET_OF_HOST: u64 = 128 * 1024 * 1024;
/// Lines that wait to be taken over by their task.
const MAX_JOINING: usize = 64;

#[derive(Debug)]
pub(crate) struct Tunnels {
    hosts: Mutex<HashMap<DelegateUuid, Host>>,
    budget: Budget,
    joining: mpsc::Sender<Joining>,
}

#[derive(Debug)]
struct Host {
    process: StreamUuid,
    lanes: BTreeMap<u8, Lane>,
    budget: Budget,
}

impl Host {
    fn end(&mut self, why: &str) {
        for lane in std::mem::take(&mut self.lanes).into_values() {
            lane.tunnel.end(why);
        }
    }
}

#[derive(Debug)]
struct Lane {
    id: StreamUuid,
    tunnel: Tunnel,
    /// Of the line that it was last on.
    claims: Arc<TunnelClaims>,
    /// That line's number, of the delegate's counting.
    line: u64,
    /// Since when it has none.
    cut: Option<Instant>,
}

/// A place on a lane, for the line that has it.
#[derive(Debug)]
struct Place {
    tunnel: Tunnel,
    next: NextLine,
    welcome: TunnelWelcome,
}

/// Why a line has no place.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("there is no lane {0}")]
    Lane(u8),
    #[error("it comes late: its delegate has opened another one since")]
    Late,
}

/// What tunnels there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelsView {
    /// Delegates that have one.
    pub delegates: usize,
    /// Lines that are open.
    pub lines: usize,
    /// Streams that are open.
    pub streams: usize,
}

impl Tunnels {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Joining>) {
        let (joining, joined) = mpsc::channel(MAX_JOINING);
        let tunnels = Self {
            hosts: Mutex::default(),
            budget: Budget::new(BUDGET),
            joining,
        };
        (tunnels, joined)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DelegateUuid, Host>> {
        // Every change below is whole before anything that could panic.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of `claims` begins.
    fn join(&self, claims: &Arc<TunnelClaims>, hello: &TunnelHello) -> Result<Place, JoinError> {
        if hello.lane >= MAX_LANES {
            return Err(JoinError::Lane(hello.lane));
        }
        let mut hosts = self.lock();
        let host = hosts.entry(claims.delegate).or_insert_with(|| Host {
            process: hello.process,
            lanes: BTreeMap::new(),
            budget: self.budget.part(BUDGET_OF_HOST),
        });
        if host.process != hello.process {
            host.end("another process of its delegate opened tunnels");
            host.process = hello.process;
        }
        if let Some(lane) = host.lanes.get_mut(&hello.lane) {
            if hello.line <= lane.line {
                return Err(JoinError::Late);
            }
            if Some(lane.id) == hello.tunnel && !lane.tunnel.is_ended() {
                lane.line = hello.line;
                lane.claims = Arc::clone(claims);
                lane.cut = None;
                let next = lane.tunnel.begin();
                return Ok(Place {
                    tunnel: lane.tunnel.clone(),
                    welcome: TunnelWelcome::Resumed {
                        received: next.received,
                    },
                    next,
                });
            }
            lane.tunnel.end("its delegate began anew");
        }
        let id = RandomIds.typed();
        let tunnel = Tunnel::new(Role::Opens, host.budget.clone());
        let lane = Lane {
            id,
            tunnel: tunnel.clone(),
            claims: Arc::clone(claims),
            line: hello.line,
            cut: None,
        };
        host.lanes.insert(hello.lane, lane);
        Ok(Place {
            next: tunnel.begin(),
            tunnel,
            welcome: TunnelWelcome::Begun { tunnel: id },
        })
    }

    /// A line is over. What becomes of its tunnel is seen there.
    fn left(&self, delegate: DelegateUuid, hello: &TunnelHello) {
        let mut hosts = self.lock();
        let Some(host) = hosts
            .get_mut(&delegate)
            .filter(|host| host.process == hello.process)
        else {
            return;
        };
        // Another line may have the lane already.
        let Some(lane) = host
            .lanes
            .get_mut(&hello.lane)
            .filter(|lane| lane.line == hello.line)
        else {
            return;
        };
        if lane.tunnel.is_ended() {
            host.lanes.remove(&hello.lane);
        } else {
            lane.cut = Some(Instant::now());
        }
        if host.lanes.is_empty() {
            hosts.remove(&delegate);
        }
    }

    /// Ends what was revoked, and what nobody came back to.
    fn sweep(&self, known: &Known) {
        let known = known.read();
        self.lock().retain(|_, host| {
            host.lanes.retain(|_, lane| {
                let why = if known.is_revoked(&lane.claims) {
                    "its delegate was revoked"
                } else if lane.cut.is_some_and(|cut| cut.elapsed() >= GRACE) {
                    "its delegate did not come back"
                } else {
                    return true;
                };
                lane.tunnel.end(why);
                false
            });
            !host.lanes.is_empty()
        });
    }

    /// Ends all that there are; delegates are told.
    fn end(&self, why: &str) {
        for mut host in std::mem::take(&mut *self.lock()).into_values() {
            host.end(why);
        }
    }

    /// Whether a delegate has a tunnel, or had one just now.
    pub(crate) fn has(&self, delegate: DelegateUuid) -> bool {
        self.lock().contains_key(&delegate)
    }

    pub(crate) fn view(&self) -> TunnelsView {
        let hosts = self.lock();
        let lanes = || hosts.values().flat_map(|host| host.lanes.values());
        TunnelsView {
            delegates: hosts.len(),
            lines: lanes().filter(|lane| lane.cut.is_none()).count(),
            streams: lanes().map(|lane| lane.tunnel.streams()).sum(),
        }
    }

    /// The lane with the fewest streams; one that has a line before those that wait for one.
    fn lane(&self, delegate: DelegateUuid) -> Option<Tunnel> {
        let hosts = self.lock();
        let lanes = hosts.get(&delegate)?.lanes.values();
        let best = lanes.min_by_key(|lane| (lane.cut.is_some(), lane.tunnel.streams()))?;
        Some(best.tunnel.clone())
    }

    /// Into a gitspace.
    pub(crate) async fn dial(&self, target: Authorized<Target>) -> Result<Upstream, DialError> {
        let target = target.into_inner();
        let request = StreamRequest::dial(target.gitspace, target.to);
        let stream = self.open(target.delegate, &request).await?;
        Ok(Upstream::Tunnel(stream))
    }

    pub(crate) async fn open(
        &self,
        delegate: DelegateUuid,
        request: &StreamRequest,
    ) -> Result<TunnelStream, DialError> {
        let unreachable = |cause: String| DialError::Unreachable { cause };
        let lane = self.lane(delegate).ok_or(DialError::Elsewhere)?;
        let words = serde_json::to_vec(request).map_err(|error| unreachable(error.to_string()))?;
        lane.open(Bytes::from(words)).await.map_err(|error| {
            let OpenError::Refused(words) = error else {
                return unreachable(error.to_string());
            };
            match serde_json::from_slice(&words) {
                Ok(StreamRefusal::PortClosed { listening }) => DialError::PortClosed { listening },
                Ok(StreamRefusal::NotRunning {}) => DialError::NotRunning,
                Ok(StreamRefusal::Unreachable { cause }) => unreachable(cause),
                Err(_) => unreachable("its delegate does not say why".to_owned()),
            }
        })
    }
}
