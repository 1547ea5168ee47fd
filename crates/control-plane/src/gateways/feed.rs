//! Which gateways are connected, and what all of them are told.

use crate::{
    api::error::ApiError,
    origins::{Fit, GatewayOrigins},
    state::AppState,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    control::ProbeReport,
    gateway::{Revocation, SshEndpoint},
    ids::GatewayUuid,
};

/// Without a gateway, or a whole way through one, for so long, what is made could not be entered. What restarts, or dials anew, is back by then.
const GRACE: Duration = Duration::from_secs(60);
/// Revocations a connection may lag behind before it gets a snapshot again.
const MAX_REVOCATIONS: usize = 256;

#[derive(Clone, Debug)]
pub(crate) struct GatewayFeed {
    revocations: broadcast::Sender<Revocation>,
    connected: Arc<Mutex<BTreeMap<GatewayUuid, Connected>>>,
    /// Where delegates open tunnels, also to those that are away just now: a tunnel does not need the control plane.
    tunnels: watch::Sender<BTreeMap<GatewayUuid, String>>,
    /// When the last one went or found its way broken; at first, when this process began.
    last: Arc<Mutex<Instant>>,
}

#[derive(Debug, Default)]
struct Connected {
    connections: usize,
    /// What it said of itself.
    said: Option<Said>,
    /// What its last probe found.
    data_path: Option<Box<ProbeReport>>,
    /// Cancelled when its token is revoked.
    dismissed: CancellationToken,
}

/// What a gateway says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// What its users' URLs end with, without a port.
    pub(crate) domain: String,
    /// The same as an origin; an older one does not say it.
    pub(crate) origin: Option<String>,
    /// Where it takes SSH.
    pub(crate) ssh: Option<SshEndpoint>,
}

/// One connection of a gateway; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    feed: GatewayFeed,
    gateway: GatewayUuid,
    dismissed: CancellationToken,
}

impl OpenConnection {
    /// Cancelled when the gateway's token is revoked.
    pub(crate) fn dismissed(&self) -> CancellationToken {
        self.dismissed.clone()
    }
}

impl GatewayFeed {
    pub(crate) fn new() -> Self {
        Self {
            revocations: broadcast::channel(MAX_REVOCATIONS).0,
            connected: Arc::default(),
            tunnels: watch::Sender::default(),
            last: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Whether there is a way into gitspaces; where there is none, in words.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let (connected, working) = self.lock(|connected| {
            let broken = |found: &Connected| {
                let path = found.data_path.as_ref();
                path.is_some_and(|path| path.broken_at().is_some())
            };
            let working = connected.values().any(|found| !broken(found));
            (connected.len(), working)
        });
        if working {
            return Ok(());
        }
        let gone = self.last().elapsed();
        if gone < GRACE {
            return Ok(());
        }
        let why = if connected == 0 {
            format!("none has been connected for {} s", gone.as_secs())
        } else {
            format!(
                "the way into gitspaces has been broken for {} s at every one that is connected",
                gone.as_secs()
            )
        };
        Err(ApiError::Unavailable {
            what: "a gateway",
            why,
            hint: Some(
                "a new gitspace could not be entered: see `gitspace gateway list`, and look at the gateway's own `readyz`"
                    .to_owned(),
            ),
        })
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every connected gateway. The store has it already, for the others.
    pub(crate) fn revoked(&self, revocation: Revocation) {
        // No receiver means no gateway.
        drop(self.revocations.send(revocation));
    }

    pub(crate) fn follow(&self) -> broadcast::Receiver<Revocation> {
        self.revocations.subscribe()
    }

    pub(crate) fn open(&self, gateway: GatewayUuid) -> OpenConnection {
        let dismissed = self.lock(|connected| {
            let entry = connected.entry(gateway).or_default();
            entry.connections += 1;
            entry.dismissed.clone()
        });
        OpenConnection {
            feed: self.clone(),
            gateway,
            dismissed,
        }
    }

    /// Cuts the connections of a gateway that the store knows no longer. One that opens meanwhile finds that out itself.
    pub(crate) fn dismiss(&self, gateway: GatewayUuid) {
        self.lock(|connected| {
            if let Some(found) = connected.get(&gateway) {
                found.dismissed.cancel();
            }
        });
        // Also of one that was not heard of since this process began: delegates may have lines to it.
        self.tunnels.send_modify(|tunnels| {
            tunnels.remove(&gateway);
        });
    }

    /// Whether it is connected, and what it said that its URLs end with.
    pub(crate) fn connection(&self, gateway: GatewayUuid) -> (bool, Option<String>) {
        self.lock(|connected| {
            let found = connected.get(&gateway);
            (
                found.is_some(),
                found.and_then(|found| Some(found.said.as_ref()?.domain.clone())),
            )
        })
    }

    /// Of a connected one.
    pub(crate) fn data_path(&self, gateway: GatewayUuid) -> Option<ProbeReport> {
        self.lock(|connected| connected.get(&gateway)?.data_path.as_deref().cloned())
    }

    pub(crate) fn probed(&self, gateway: GatewayUuid, report: ProbeReport) {
        let breaks = self.lock(|connected| {
            let path = &mut connected.entry(gateway).or_default().data_path;
            let was_whole = path.as_ref().is_none_or(|path| path.broken_at().is_none());
            let breaks = was_whole && report.broken_at().is_some();
            *path = Some(Box::new(report));
            breaks
        });
        if breaks {
            *self.last() = Instant::now();
        }
    }

    pub(crate) fn said_hello(&self, gateway: GatewayUuid, said: Said, tunnels: Option<String>) {
        self.tunnels.send_if_modified(|known| match tunnels {
            Some(url) => known.insert(gateway, url.clone()) != Some(url),
            None => known.remove(&gateway).is_some(),
        });
        self.lock(|connected| {
            connected.entry(gateway).or_default().said = Some(said);
        });
    }

    /// Where delegates are to open tunnels.
    pub(crate) fn tunnels(&self) -> watch::Receiver<BTreeMap<GatewayUuid, String>> {
        self.tunnels.subscribe()
    }

    /// Where the connected ones take SSH.
    pub(crate) fn ssh_endpoints(&self) -> Vec<SshEndpoint> {
        self.lock(|connected| {
            connected
                .values()
                .filter_map(|found| found.said.as_ref()?.ssh.clone())
                .collect()
        })
    }

    fn lock<T>(&self, change: impl FnOnce(&mut BTreeMap<GatewayUuid, Connected>) -> T) -> T {
        change(
            &mut self
                .connected
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn best(&self, origins: &GatewayOrigins) -> Option<GatewayUuid> {
        let fit = |found: &Connected| {
            let said = found.said.as_ref();
            said.map_or(Fit::Other, |said| {
                origins.fit(&said.domain, said.origin.as_deref())
            })
        };
        self.lock(|connected| {
            let best = connected.iter().min_by_key(|(_, found)| fit(found));
            best.map(|(id, _)| *id)
        })
    }

    /// The gateway that users' URLs lead to: of those that are connected the one that fits best, else the first one known.
    pub(crate) async fn choose(&self, state: &AppState) -> Result<GatewayUuid, ApiError> {
        if let Some(id) = self.best(&state.gateway_origins) {
            return Ok(id);
        }
        let mut known = state.store.gateways().await?;
        known.sort_by_key(|gateway| (gateway.created, gateway.id));
        known
            .first()
            .map(|gateway| gateway.id)
            .ok_or_else(|| ApiError::Unavailable {
                what: "a gateway",
                why: "none is known to this control plane".to_owned(),
                hint: Some(
                    "register one with `gitspace gateway register`, and start it with its token"
                        .to_owned(),
                ),
            })
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.feed.lock(|connected| {
            if let Some(found) = connected.get_mut(&self.gateway) {
                found.connections = found.connections.saturating_sub(1);
                if found.connections == 0 {
                    connected.remove(&self.gateway);
                    *self.feed.last() = Instant::now();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use newtype_uuid::GenericUuid as _;
    use wire::control::{Hop, HopReport};

    #[test]
    fn nothing_is_made_that_no_gateway_leads_to() {
        let feed = GatewayFeed::new();
        feed.check().expect("one may be about to connect");
        let long_ago = Instant::now().checked_sub(GRACE).unwrap();
        *feed.last() = long_ago;
        assert!(feed.check().is_err());
        let id = GatewayUuid::nil();
        let open = feed.open(id);
        feed.check().expect("it is connected");
        let broken = HopReport::failed(Hop::Runner, Duration::ZERO, "silent", None);
        feed.probed(id, ProbeReport::only(broken, Duration::ZERO));
        feed.check().expect("a runner may only restart");
        *feed.last() = long_ago;
        assert!(feed.check().is_err(), "its way stays broken");
        feed.probed(id, ProbeReport::default());
        feed.check().expect("it is whole again");
        drop(open);
        feed.check().expect("it may only restart");
    }

    #[test]
    fn grants_are_for_the_gateway_that_users_urls_lead_to() {
        let origins = GatewayOrigins::parse("https://dev.example.com:8443").unwrap();
        let feed = GatewayFeed::new();
        assert_eq!(feed.best(&origins), None);
        let mut open = Vec::new();
        // The better it fits, the later it comes.
        for (number, domain, origin) in [
            (1, None, None),
            (2, Some("example.net"), Some("https://example.net:8443")),
            (3, Some("dev.example.com"), Some("https://dev.example.com")),
            (
                4,
                Some("dev.example.com"),
                Some("https://dev.example.com:8443"),
            ),
        ] {
            let id = GatewayUuid::from_untyped_uuid(uuid::Uuid::from_u128(number));
            open.push(feed.open(id));
            if let Some(domain) = domain {
                let said = Said {
                    domain: domain.to_owned(),
                    origin: origin.map(str::to_owned),
                    ssh: None,
                };
                feed.said_hello(id, said, None);
            }
            let expected = if number == 2 { 1 } else { number };
            let best = feed.best(&origins).unwrap();
            assert_eq!(best.into_untyped_uuid().as_u128(), expected, "{number}");
        }
    }
}
