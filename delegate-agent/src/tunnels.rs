//! Tunnels to gateways, for users of this host's gitspaces: a host that nobody can connect to connects to them.
//!
//! Which gateways there are says the control plane ([`TunnelOffers`]). To each lead several lanes ([`lane`]), so that a packet
//! that is lost on one holds up a part of the streams only.
//!
//! Tasks: *tunnels* owns the lanes of every gateway, each a task of its own, in which the streams of the lane are served ([`serve`]).
//!
//! Invariants:
//! - A lane is dialled again for ever, with full jitter, as long as its gateway is offered. A line to one that is not, stays.
//! - A lane to a gateway that was revoked ends at once.
//! - Where the control plane is reached by TLS, a gateway is, too: tickets and users' bytes are read by nobody between.
//! - Nothing is listened on.
//! - A gateway opens streams into gitspaces of this host's runner, and nothing else.

mod lane;
mod line;
mod serve;
mod status;

pub use status::{TunnelEntry, TunnelStatus};

use crate::{
    config::Origin,
    probe::Prober,
    status::Board,
    transport::{ProxyEnv, ProxyUrl},
};
use camino::Utf8PathBuf;
use lane::Lane;
use runner_dial::RunnerDial;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tunnel::Budget;
use wire::{
    ids::{GatewayUuid, StreamUuid},
    tunnel::{TunnelOffer, TunnelOffers},
};

/// To each gateway.
const LANES: u8 = 2;
/// Gateways that are dialled. More are none of ours.
const MAX_GATEWAYS: usize = 64;
/// For windows beyond the first, and for what may have to be sent again, of all tunnels together.
const BUDGET: u64 = 256 * 1024 * 1024;
/// Of those to one gateway: a part, so that none has all of it.
const BUDGET_OF_GATEWAY: u64 = 128 * 1024 * 1024;

/// How a gateway is reached.
#[derive(Clone, Debug)]
pub struct WayOut {
    pub proxy: Option<ProxyUrl>,
    pub env: ProxyEnv,
    pub ca_file: Option<Utf8PathBuf>,
}

/// What every lane works with.
#[derive(Debug)]
struct Common {
    way_out: WayOut,
    runner: RunnerDial,
    prober: Prober,
    board: Board,
    budget: Budget,
    /// This life of the process, for gateways.
    process: StreamUuid,
    seed: u64,
}

#[derive(Debug)]
pub struct TunnelsTask {
    offers: watch::Receiver<Option<TunnelOffers>>,
    common: Arc<Common>,
    /// The gateway in this process, which needs none.
    own: Option<GatewayUuid>,
    control_plane: Origin,
    /// Dropped for one that there is no longer.
    gateways: BTreeMap<GatewayUuid, watch::Sender<Option<TunnelOffer>>>,
}

/// Parts that a [`TunnelsTask`] is made of.
#[derive(Debug)]
pub struct TunnelParts {
    pub offers: watch::Receiver<Option<TunnelOffers>>,
    pub way_out: WayOut,
    pub runner: RunnerDial,
    pub prober: Prober,
    pub board: Board,
    pub process: StreamUuid,
    pub seed: u64,
    pub own: Option<GatewayUuid>,
    pub control_plane: Origin,
}

impl TunnelsTask {
    #[must_use]
    pub fn new(parts: TunnelParts) -> Self {
        Self {
            offers: parts.offers,
            common: Arc::new(Common {
                way_out: parts.way_out,
                runner: parts.runner,
                prober: parts.prober,
                board: parts.board,
                budget: Budget::new(BUDGET),
                process: parts.process,
                seed: parts.seed,
            }),
            own: parts.own,
            control_plane: parts.control_plane,
            gateways: BTreeMap::new(),
        }
    }

    /// Until the stop: gateways are told then that nothing more comes.
    ///
    /// # Errors
    /// Never.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut lanes = JoinSet::new();
        loop {
            self.reconcile(&mut lanes, &stop);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.offers.changed() => if changed.is_err() {
                    // The process stops.
                    break;
                },
                Some(_) = lanes.join_next() => {}
            }
        }
        while lanes.join_next().await.is_some() {}
        Ok(())
    }

    fn reconcile(&mut self, lanes: &mut JoinSet<()>, stop: &CancellationToken) {
        let Some(TunnelOffers { gateways, open }) = self.offers.borrow_and_update().clone() else {
            return;
        };
        self.gateways.retain(|gateway, sender| {
            if !open.iter().any(|offer| offer.gateway == *gateway) {
                sender.send_replace(None);
            }
            gateways.contains(gateway)
        });
        // Of one to which no lane led.
        self.common.board.tunnels.send_modify(|tunnels| {
            tunnels.retain(|key, _| {
                gateways
                    .iter()
                    .any(|known| key.starts_with(&known.to_string()))
            });
        });
        for offer in open.into_iter().take(MAX_GATEWAYS) {
            let gateway = offer.gateway;
            if self.own == Some(gateway) {
                continue;
            }
            if let Some(why) = refusal(&self.control_plane, &offer.url) {
                self.publish_refusal(&offer, why);
                continue;
            }
            if let Some(sender) = self.gateways.get(&gateway) {
                sender.send_replace(Some(offer));
                continue;
            }
            let (sender, receiver) = watch::channel(Some(offer));
            let budget = self.common.budget.part(BUDGET_OF_GATEWAY);
            for number in 0..LANES {
                let lane = Lane::new(
                    Arc::clone(&self.common),
                    (gateway, number),
                    receiver.clone(),
                    stop.clone(),
                    budget.clone(),
                );
                lanes.spawn(lane.run());
            }
            self.gateways.insert(gateway, sender);
        }
    }

    /// For `status`. Its lines, where it had any, go on.
    fn publish_refusal(&self, offer: &TunnelOffer, why: String) {
        tracing::debug!(gateway = %offer.gateway, url = offer.url, why, "No tunnel is opened to a gateway");
        self.common.board.tunnels.send_modify(|tunnels| {
            let entry = tunnels.entry(format!("{}/0", offer.gateway)).or_default();
            entry.url.clone_from(&offer.url);
            entry.last_error = Some(why);
        });
    }
}

/// Why no tunnel is opened to a gateway at `url`, where none is.
fn refusal(control_plane: &Origin, url: &str) -> Option<String> {
    let gateway = match Origin::parse("url", url) {
        Ok(gateway) => gateway,
        Err(error) => return Some(daemon::ErrorChain(&error).to_string()),
    };
    if is_local(&gateway) {
        let elsewhere = !is_local(control_plane);
        return elsewhere.then(|| {
            "its URL is that of its own host alone: set `public_url` or `tunnel_url` of the gateway to what other hosts reach it at".to_owned()
        });
    }
    (control_plane.is_tls() && !gateway.is_tls()).then(|| {
        "its URL is `http://`, and the control plane's is `https://`: what is said through a tunnel there could be read".to_owned()
    })
}

fn is_local(origin: &Origin) -> bool {
    match origin.url().host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_opened_where_it_leads_somewhere_and_nobody_reads_it() {
        let cases = [
            ("https://cp.example.com", "https://dev.example.com", true),
            ("https://cp.example.com", "http://dev.example.com", false),
            ("https://cp.example.com", "https://localhost:7080", false),
            ("https://cp.example.com", "https://[::1]:7080", false),
            ("http://10.0.0.1:7070", "http://10.0.0.2:7080", true),
            ("http://localhost:7070", "http://localhost:7080", true),
            ("https://gitspaces.localhost", "http://127.0.0.1:7080", true),
            ("https://cp.example.com", "https://dev.example.com/x", false),
            ("https://cp.example.com", "ftp://dev.example.com", false),
        ];
        for (control_plane, gateway, opened) in cases {
            let origin = Origin::parse("url", control_plane).unwrap();
            let refusal = refusal(&origin, gateway);
            assert_eq!(
                refusal.is_none(),
                opened,
                "{control_plane} {gateway}: {refusal:?}"
            );
        }
    }
}
