//! Which way leads to a gitspace: on this host, or through a tunnel.

use crate::{Authorized, Dial, DialError, Target, Upstream, tunnels::Tunnels};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, timeout},
};
use wire::{
    control::{Hop, HopReport, ProbeReport},
    ids::{DelegateUuid, GitspaceUuid},
    tunnel::StreamRequest,
};

/// Hosts that one probe goes to. The next one goes to others.
const PROBED_HOSTS: usize = 4;
const PROBE_LIMIT: Duration = Duration::from_secs(6);
/// Of a host's report.
const MAX_REPORT: u64 = 256 * 1024;

pub(crate) struct Ways {
    /// `None` of a gateway that has no runner beside it.
    local: Option<Arc<dyn Dial>>,
    tunnels: Option<Arc<Tunnels>>,
}

impl Ways {
    pub(crate) fn new(local: Option<Arc<dyn Dial>>, tunnels: Option<Arc<Tunnels>>) -> Self {
        Self { local, tunnels }
    }

    /// What may be here is tried here first: a tunnel to the own host would be a detour.
    pub(crate) async fn dial(&self, target: Authorized<Target>) -> Result<Upstream, DialError> {
        let delegate = target.get().delegate;
        let is_here = self.local.as_ref().and_then(|local| local.has(delegate));
        if let Some(local) = &self.local
            && is_here != Some(false)
        {
            let has_tunnel = || self.tunnels.as_ref().is_some_and(|all| all.has(delegate));
            match local.dial(target).await {
                Err(DialError::Elsewhere) => {}
                // A runner that does not answer says nothing of other hosts.
                Err(DialError::Unreachable { .. }) if is_here.is_none() && has_tunnel() => {}
                dialled => return dialled,
            }
        }
        match &self.tunnels {
            Some(tunnels) => tunnels.dial(target).await,
            None => Err(DialError::Elsewhere),
        }
    }

    /// The way that leads over this host decides whether the gateway is whole: what one of many tunnels lacks is told of its gitspaces.
    pub(crate) async fn probe(&self, gitspaces: Vec<(GitspaceUuid, DelegateUuid)>) -> ProbeReport {
        let (mut here, mut hosts) = (Vec::new(), BTreeMap::new());
        for (gitspace, delegate) in gitspaces {
            let is_here = self.local.as_ref().and_then(|local| local.has(delegate));
            if is_here != Some(false) {
                here.push((gitspace, delegate));
            }
            if is_here != Some(true)
                && let Some(tunnels) = &self.tunnels
                && tunnels.has(delegate)
            {
                // What may be here is counted here.
                hosts.insert(delegate, is_here == Some(false) || self.local.is_none());
            }
        }
        let local = async {
            match &self.local {
                Some(local) => local.probe(here).await,
                None => ProbeReport::default(),
            }
        };
        let tunnels = hosts
            .into_iter()
            .take(PROBED_HOSTS)
            .filter_map(|host| Some((self.tunnels.as_deref()?, host)))
            .map(async |(tunnels, (delegate, is_counted))| {
                let found = probe_host(tunnels, delegate).await?;
                Ok::<_, Box<HopReport>>(is_counted.then_some(found))
            });
        let (mut report, found) = tokio::join!(local, join_all(tunnels));
        for host in found {
            match host {
                Ok(None) => {}
                Ok(Some(host)) => {
                    report.agents += host.agents;
                    report.silent_agents += host.silent_agents;
                    report.unasked_agents += host.unasked_agents;
                }
                Err(failed) => report.hops.push(*failed),
            }
        }
        report
    }
}

/// What a host says of its part of the way, or what is wrong with the way.
async fn probe_host(
    tunnels: &Tunnels,
    delegate: DelegateUuid,
) -> Result<ProbeReport, Box<HopReport>> {
    let begun = Instant::now();
    let asked = async {
        let mut stream = tunnels
            .open(delegate, &StreamRequest::Probe {})
            .await
            .map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        (&mut stream)
            .take(MAX_REPORT)
            .read_to_end(&mut text)
            .await
            .map_err(|error| error.to_string())?;
        let report: ProbeReport =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let report = report.bounded();
        match report.broken_at() {
            None => Ok(report),
            Some(broken) => Err(format!(
                "the way from its delegate on is broken at {}",
                broken.hop
            )),
        }
    };
    let why = match timeout(PROBE_LIMIT, asked).await {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", PROBE_LIMIT.as_secs()),
    };
    tracing::warn!(%delegate, why, "The way through a tunnel is broken");
    let why = format!("tunnel of {delegate}: {why}");
    let hint =
        "on that host: `delegate-agent status`, `delegate-agent doctor` and `runner-agent doctor`";
    let failed = HopReport::failed(Hop::Tunnel, begun.elapsed(), &why, Some(hint));
    Err(Box::new(failed))
}
