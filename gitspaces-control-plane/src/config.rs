//! What the operator may set, and its defaults.

use admin::Program;
use camino::Utf8PathBuf;
use control_plane::{ConfigError, ControlPlaneConfig};
use daemon::{Wrong, logging::LogConfig};
use serde::Deserialize;
use std::net::SocketAddr;

/// Name of the credential that seals secrets in the database, in place of a file in the state directory.
pub(crate) const SEAL_KEY: &str = "seal-key";

/// As written in the file. What is not set is as [`ControlPlaneConfig::new`] has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    state_dir: Option<Utf8PathBuf>,
    listen: Option<SocketAddr>,
    public_url: Option<String>,
    gateway_url: Option<String>,
    delegate_heartbeat_ms: Option<u64>,
    /// About how often the whole way through each delegate into its gitspaces is probed.
    delegate_probe_ms: Option<u64>,
    wake_on_connect: Option<bool>,
    /// `/healthz`, `/readyz`, `/status` and more.
    admin_socket: Option<Utf8PathBuf>,
    /// Group of the admin socket's file.
    pub(crate) socket_gid: Option<u32>,
    log: LogConfig,
}

impl Settings {
    pub(crate) fn into_config(self) -> ControlPlaneConfig {
        let state_dir = self
            .state_dir
            .unwrap_or_else(|| "/var/lib/gitspaces/control-plane".into());
        let default = ControlPlaneConfig::new(state_dir);
        ControlPlaneConfig {
            listen: self.listen.unwrap_or(default.listen),
            public_url: self.public_url.unwrap_or(default.public_url),
            gateway_url: self.gateway_url.unwrap_or(default.gateway_url),
            delegate_heartbeat_ms: self
                .delegate_heartbeat_ms
                .unwrap_or(default.delegate_heartbeat_ms),
            delegate_probe_ms: self.delegate_probe_ms.unwrap_or(default.delegate_probe_ms),
            wake_on_connect: self.wake_on_connect.unwrap_or(default.wake_on_connect),
            state_dir: default.state_dir,
        }
    }
}

impl Program for Settings {
    const NAME: &'static str = "gitspaces-control-plane";
    const CONFIG: &'static str = "/etc/gitspaces/gitspaces-control-plane.toml";
    const ENV_PREFIX: &'static str = "GITSPACES_CONTROL_PLANE";
    type Refusal = ConfigError;

    fn admin_socket(&self) -> Utf8PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| "/run/gitspaces/control-plane/admin.sock".into())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn examine(self) -> Result<String, Wrong<ConfigError>> {
        let config = self.into_config();
        config.check()?;
        Ok(format!(
            "{} on {}, gitspaces below {}",
            config.public_url, config.listen, config.gateway_url
        ))
    }
}
