//! Tells delegates where to open tunnels.
//!
//! One task. Each offer has a ticket: signed here, for one delegate and one gateway, good for an hour and renewed in time. A delegate so finds
//! its gateways again while the control plane is away.

use crate::state::AppState;
use daemon::ErrorChain;
use jiff::Timestamp;
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use wire::{
    ids::{DelegateUuid, GatewayUuid},
    secret::Secret,
    tunnel::{TICKET_PURPOSE, TunnelClaims, TunnelOffer, TunnelOffers},
};

const TICKET_LIFE: Duration = Duration::from_secs(3600);
/// A third of their life: two may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(1200);
/// Delegates in a row. Signing for thousands takes a while, and others want the thread.
const IN_A_ROW: usize = 32;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Until the stop.
pub(crate) async fn run(state: AppState, stop: CancellationToken) -> Result<(), Infallible> {
    let mut urls = state.gateways.tunnels();
    let mut renewals = interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let delegates = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            came = state.hub.tunnel_ends_came() => came,
            Ok(()) = urls.changed() => state.hub.tunnel_ends(),
            _ = renewals.tick() => state.hub.tunnel_ends(),
        };
        let gateways = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            gateways = gateways(&state) => gateways,
        };
        let mut urls = urls.borrow_and_update().clone();
        urls.retain(|gateway, _| gateways.contains(gateway));
        for some in delegates.chunks(IN_A_ROW) {
            for delegate in some {
                let offers = TunnelOffers {
                    gateways: gateways.clone(),
                    open: offers(&state, *delegate, &urls),
                };
                state.hub.offer_tunnels(*delegate, offers);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// All that there are. What the store lacks just now is asked for again: what was revoked has to be said.
async fn gateways(state: &AppState) -> Vec<GatewayUuid> {
    loop {
        match state.store.gateways().await {
            Ok(records) => return records.into_iter().map(|record| record.id).collect(),
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "Cannot tell delegates about gateways");
                sleep(ASK_AGAIN).await;
            }
        }
    }
}

fn offers(
    state: &AppState,
    delegate: DelegateUuid,
    urls: &BTreeMap<GatewayUuid, String>,
) -> Vec<TunnelOffer> {
    let iat = state.now_as_stored();
    let exp = iat.checked_add(TICKET_LIFE).unwrap_or(Timestamp::MAX);
    urls.iter()
        .filter_map(|(gateway, url)| {
            let claims = TunnelClaims {
                delegate,
                gateway: *gateway,
                iat,
                exp,
            };
            match state.grants.sign(&claims, TICKET_PURPOSE) {
                Ok(ticket) => Some(TunnelOffer {
                    gateway: *gateway,
                    url: url.clone(),
                    ticket: Secret::new(ticket),
                }),
                Err(error) => {
                    tracing::error!(%delegate, %gateway, error = %ErrorChain(&error), "Cannot sign a tunnel's ticket");
                    None
                }
            }
        })
        .collect()
}
