//! One tunnel to one gateway: dialled again and again, and served.

use super::{Common, line, serve::serve};
use daemon::ErrorChain;
use link::backoff;
use newtype_uuid::GenericUuid as _;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tunnel::{Budget, Role, Tunnel};
use wire::{
    ids::{GatewayUuid, StreamUuid},
    tunnel::{GRACE, TunnelHello, TunnelOffer, TunnelWelcome},
};

/// Between two tries, at most: where streams wait, and where nothing does.
const LONGEST_WAIT_OF_STREAMS: Duration = Duration::from_secs(3);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A line that held so long starts the back-off anew.
const QUIET: Duration = Duration::from_secs(2);

/// Why a lane is over.
#[derive(Clone, Copy, Debug)]
enum Over {
    Revoked,
    Stopped,
}

impl Over {
    const fn why(self) -> &'static str {
        match self {
            Self::Revoked => "the gateway was revoked",
            Self::Stopped => "the delegate stops",
        }
    }
}

pub(super) struct Lane {
    common: Arc<Common>,
    gateway: GatewayUuid,
    number: u8,
    offer: watch::Receiver<Option<TunnelOffer>>,
    stop: CancellationToken,
    budget: Budget,
    rng: backoff::Rng,
    open: Open,
    /// As the gateway calls it. `None` before the first line.
    id: Option<StreamUuid>,
    /// Lines so far.
    lines: u64,
    /// When the line that was tried last was there; `None` where it never was.
    up: Option<Instant>,
    /// When the last line was cut; `None` where nothing waits for the next.
    cut: Option<Instant>,
}

/// A tunnel, and the task that serves its streams.
struct Open {
    tunnel: Tunnel,
    _serving: JoinSet<()>,
}

impl Open {
    fn new(common: &Arc<Common>, budget: &Budget) -> Self {
        let tunnel = Tunnel::new(Role::Accepts, budget.clone());
        let mut serving = JoinSet::new();
        serving.spawn(serve(Arc::clone(common), tunnel.clone()));
        Self {
            tunnel,
            _serving: serving,
        }
    }
}

impl Lane {
    pub(super) fn new(
        common: Arc<Common>,
        (gateway, number): (GatewayUuid, u8),
        offer: watch::Receiver<Option<TunnelOffer>>,
        stop: CancellationToken,
        budget: Budget,
    ) -> Self {
        let (_, bits) = gateway.into_untyped_uuid().as_u64_pair();
        Self {
            open: Open::new(&common, &budget),
            rng: backoff::Rng::new(common.seed ^ bits ^ u64::from(number)),
            common,
            gateway,
            number,
            offer,
            stop,
            budget,
            id: None,
            lines: 0,
            up: None,
            cut: None,
        }
    }

    /// Until there is no such gateway any more, or the process stops.
    pub(super) async fn run(mut self) {
        let mut attempt = 0;
        let why = loop {
            let offer = match self.offered().await {
                Ok(offer) => offer,
                Err(over) => break over,
            };
            let why = match self.line(&offer).await {
                Ok(why) => why,
                Err(over) => break over,
            };
            if self.up.take().is_some_and(|up| up.elapsed() >= QUIET) {
                attempt = 0;
            }
            attempt += 1;
            let longest = match self.cut {
                Some(_) => LONGEST_WAIT_OF_STREAMS,
                None => LONGEST_WAIT,
            };
            let wait = backoff::delay(attempt, longest, &mut self.rng);
            tracing::warn!(
                gateway = %self.gateway,
                lane = self.number,
                why,
                retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "Tunnel is down"
            );
            self.publish(&offer, false, Some(why));
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.offer.changed() => match changed {
                    // The gateway was heard of just now: it is there.
                    Ok(()) => attempt = 0,
                    Err(_) => break Over::Revoked,
                },
                () = self.stop.cancelled() => break Over::Stopped,
            }
        };
        self.open.tunnel.end(why.why());
        self.common.board.tunnels.send_modify(|tunnels| {
            tunnels.remove(&self.key());
        });
        tracing::info!(gateway = %self.gateway, lane = self.number, why = why.why(), "Tunnel is over");
    }

    /// Where to. Streams wait for that as long as for a line.
    async fn offered(&mut self) -> Result<TunnelOffer, Over> {
        loop {
            let grace_ends = self.cut.map(|cut| cut + GRACE);
            if grace_ends.is_some_and(|end| Instant::now() >= end) {
                self.anew("no line for too long");
                continue;
            }
            if let Some(offer) = self.offer.borrow_and_update().clone() {
                return Ok(offer);
            }
            tokio::select! {
                changed = self.offer.changed() => changed.map_err(|_| Over::Revoked)?,
                () = self.stop.cancelled() => return Err(Over::Stopped),
                // Seen above.
                () = sleep_until(grace_ends) => {}
            }
        }
    }

    /// From the dial to the cut: why it ended.
    async fn line(&mut self, offer: &TunnelOffer) -> Result<String, Over> {
        self.lines += 1;
        let next = self.open.tunnel.begin();
        let hello = TunnelHello {
            process: self.common.process,
            lane: self.number,
            line: self.lines,
            tunnel: self.id,
            received: next.received,
        };
        let over = over(self.offer.clone(), self.stop.clone());
        tokio::pin!(over);
        let dialled = tokio::select! {
            dialled = line::dial(&self.common.way_out, offer, &hello) => dialled,
            over = &mut over => return Err(over),
        };
        let (socket, welcome) = match dialled {
            Ok(welcomed) => welcomed,
            Err(error) => return Ok(ErrorChain(&error).to_string()),
        };
        let (next, received) = match welcome {
            TunnelWelcome::Resumed { received } => (next, received),
            TunnelWelcome::Begun { tunnel } => {
                if self.id.is_some() {
                    self.anew("the gateway does not know it any more");
                }
                self.id = Some(tunnel);
                (self.open.tunnel.begin(), 0)
            }
        };
        let is_resumed = matches!(welcome, TunnelWelcome::Resumed { .. });
        tracing::info!(gateway = %self.gateway, lane = self.number, is_resumed, "Tunnel is up");
        self.publish(offer, true, None);
        self.up = Some(Instant::now());
        let tunnel = self.open.tunnel.clone();
        let carrying = tunnel.carry(next, socket, received);
        tokio::pin!(carrying);
        let cut = tokio::select! {
            cut = &mut carrying => cut,
            over = &mut over => {
                // The gateway hears that nothing more comes.
                tunnel.end(over.why());
                carrying.await;
                return Err(over);
            }
        };
        if tunnel.is_ended() {
            self.anew("it ended");
        } else {
            self.cut = Some(Instant::now());
        }
        Ok(ErrorChain(&cut).to_string())
    }

    /// Another tunnel, of which the gateway knows nothing.
    fn anew(&mut self, why: &str) {
        self.open.tunnel.end(why);
        self.open = Open::new(&self.common, &self.budget);
        self.id = None;
        self.cut = None;
    }

    fn key(&self) -> String {
        format!("{}/{}", self.gateway, self.number)
    }

    fn publish(&self, offer: &TunnelOffer, up: bool, last_error: Option<String>) {
        self.common.board.tunnels.send_modify(|tunnels| {
            let entry = tunnels.entry(self.key()).or_default();
            entry.url.clone_from(&offer.url);
            entry.up = up;
            entry.lines += u64::from(up);
            entry.tunnel = Some(self.open.tunnel.clone());
            entry.last_error = last_error;
        });
    }
}

/// Waits until the lane is over: nobody says any more where the gateway is, or the process stops.
async fn over(mut offer: watch::Receiver<Option<TunnelOffer>>, stop: CancellationToken) -> Over {
    let revoked = async { while offer.changed().await.is_ok() {} };
    tokio::select! {
        () = revoked => Over::Revoked,
        () = stop.cancelled() => Over::Stopped,
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
