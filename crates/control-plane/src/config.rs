//! What an operator sets of a control plane, checked before anything starts.

use crate::origins::{GatewayOrigins, OriginError, PublicOrigin};
use camino::Utf8PathBuf;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};

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
}

impl daemon::Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        Some("write it like `http://localhost:7070`, without a path".to_owned())
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
        }
    }

    /// Says what is wrong with it, and touches nothing.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.origins().map(drop)
    }

    pub(crate) fn origins(&self) -> Result<(PublicOrigin, GatewayOrigins), ConfigError> {
        let public = PublicOrigin::parse(&self.public_url)
            .map_err(|source| ConfigError::PublicUrl { source })?;
        let gateway = GatewayOrigins::parse(&self.gateway_url)
            .map_err(|source| ConfigError::GatewayUrl { source })?;
        Ok((public, gateway))
    }
}
