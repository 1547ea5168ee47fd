//! What an operator sets of a control plane, checked before anything starts.

use crate::origins::{GatewayOrigins, OriginError, PublicOrigin};
use camino::Utf8PathBuf;
use daemon::{Gather, Wrong};
use link::{
    Timing,
    limits::{HEARTBEAT, MAX_HEARTBEAT, MIN_HEARTBEAT},
};
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use wire::gitspace::PortVisibility;

/// As written in a configuration file (`[control_plane]`, or `[embedded]` of a delegate-agent).
#[derive(Clone, Debug, Deserialize)]
pub struct ControlPlaneConfig {
    /// Database, keys and the first admin's token; made with mode 0700 where missing.
    pub state_dir: Utf8PathBuf,
    /// Loopback unless set.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where users and delegates reach the control plane; also the audience of delegates' proofs.
    #[serde(default = "default_public_url")]
    pub public_url: String,
    /// Base of the gateway's URLs: a gitspace is at `<scheme>://<slug>.<host[:port]>/`.
    #[serde(default = "default_gateway_url")]
    pub gateway_url: String,
    /// How often each delegate is heard. One that is not for two and a quarter of these is marked away; one whose road is mended is back within two.
    #[serde(default = "default_delegate_heartbeat_ms")]
    pub delegate_heartbeat_ms: u64,
    /// About how often the whole way through each delegate into its gitspaces is probed.
    #[serde(default = "default_delegate_probe_ms")]
    pub delegate_probe_ms: u64,
    /// Whether whoever comes to their gitspace that does not run, by browser, program or SSH, starts it.
    #[serde(default = "default_wake_on_connect")]
    pub wake_on_connect: bool,
    /// The most that users may share a port of their gitspace: with nobody, with everybody who can log in, with everybody.
    #[serde(default = "default_max_port_visibility")]
    pub max_port_visibility: PortVisibility,
}

/// A broken way is found within this, and within what a probe may take.
const PROBE_PERIOD: Duration = Duration::from_secs(30);
const MIN_PROBE_PERIOD: Duration = Duration::from_secs(1);
const MAX_PROBE_PERIOD: Duration = Duration::from_hours(1);

fn default_delegate_probe_ms() -> u64 {
    u64::try_from(PROBE_PERIOD.as_millis()).unwrap_or(u64::MAX)
}

fn default_delegate_heartbeat_ms() -> u64 {
    u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX)
}

const fn default_wake_on_connect() -> bool {
    true
}

const fn default_max_port_visibility() -> PortVisibility {
    PortVisibility::Project
}

const fn default_listen() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070)
}

fn default_public_url() -> String {
    "http://localhost:7070".to_owned()
}

fn default_gateway_url() -> String {
    "http://localhost:7080".to_owned()
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`public_url` is not taken")]
    PublicUrl {
        #[source]
        source: OriginError,
    },
    #[error("`gateway_url` is not taken")]
    GatewayUrl {
        #[source]
        source: OriginError,
    },
    #[error("`delegate_heartbeat_ms` is not taken: {ms}")]
    Heartbeat { ms: u64 },
    #[error("`delegate_probe_ms` is not taken: {ms}")]
    ProbePeriod { ms: u64 },
}

impl daemon::Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PublicUrl { .. } | Self::GatewayUrl { .. } => {
                "write it like `http://localhost:7070`, without a path".to_owned()
            }
            Self::Heartbeat { .. } => format!(
                "take something from {} to {}",
                MIN_HEARTBEAT.as_millis(),
                MAX_HEARTBEAT.as_millis()
            ),
            Self::ProbePeriod { .. } => format!(
                "take something from {} to {}",
                MIN_PROBE_PERIOD.as_millis(),
                MAX_PROBE_PERIOD.as_millis()
            ),
        })
    }

    fn exit(&self) -> daemon::Exit {
        daemon::Exit::Config
    }
}

impl ControlPlaneConfig {
    /// With the defaults of one host.
    #[must_use]
    pub fn new(state_dir: impl Into<Utf8PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            listen: default_listen(),
            public_url: default_public_url(),
            gateway_url: default_gateway_url(),
            delegate_heartbeat_ms: default_delegate_heartbeat_ms(),
            delegate_probe_ms: default_delegate_probe_ms(),
            wake_on_connect: default_wake_on_connect(),
            max_port_visibility: default_max_port_visibility(),
        }
    }

    /// Says all that is wrong with it, and touches nothing.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), Wrong<ConfigError>> {
        let mut wrong = Gather::default();
        wrong.keep(self.timing());
        wrong.keep(self.probe_period());
        wrong.keep(self.public_origin());
        wrong.keep(self.gateway_origins());
        wrong.finish()
    }

    pub(crate) fn timing(&self) -> Result<Timing, ConfigError> {
        let ms = self.delegate_heartbeat_ms;
        let heartbeat = Duration::from_millis(ms);
        if (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&heartbeat) {
            Ok(Timing::of_heartbeat(heartbeat))
        } else {
            Err(ConfigError::Heartbeat { ms })
        }
    }

    pub(crate) fn probe_period(&self) -> Result<Duration, ConfigError> {
        let ms = self.delegate_probe_ms;
        let period = Duration::from_millis(ms);
        if (MIN_PROBE_PERIOD..=MAX_PROBE_PERIOD).contains(&period) {
            Ok(period)
        } else {
            Err(ConfigError::ProbePeriod { ms })
        }
    }

    pub(crate) fn origins(&self) -> Result<(PublicOrigin, GatewayOrigins), ConfigError> {
        Ok((self.public_origin()?, self.gateway_origins()?))
    }

    fn public_origin(&self) -> Result<PublicOrigin, ConfigError> {
        PublicOrigin::parse(&self.public_url).map_err(|source| ConfigError::PublicUrl { source })
    }

    fn gateway_origins(&self) -> Result<GatewayOrigins, ConfigError> {
        GatewayOrigins::parse(&self.gateway_url)
            .map_err(|source| ConfigError::GatewayUrl { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::Hint as _;

    #[test]
    fn a_heartbeat_that_no_delegate_would_keep_is_refused() {
        let mut config = ControlPlaneConfig::new("/state");
        assert!(config.check().is_ok());
        for ms in [0, 499, 120_001, u64::MAX] {
            config.delegate_heartbeat_ms = ms;
            let error = config.check().expect_err("refused").first;
            assert!(error.hint().is_some_and(|hint| hint.contains("120000")));
        }
        config.public_url = "nowhere".to_owned();
        config.delegate_probe_ms = 0;
        let wrong: Vec<_> = config.check().expect_err("refused").into_iter().collect();
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        config.delegate_heartbeat_ms = 2_000;
        let timing = config.timing().expect("taken");
        assert!(timing.silence_limit < timing.heartbeat * 5 / 2);
    }
}
