//! What the operator may set, and its defaults.

use admin::Program;
use camino::Utf8PathBuf;
use control_plane::{ConfigError, ControlPlaneConfig};
use daemon::{Credentials, Exit, Gather, Hint, Wrong, logging::LogConfig};
use serde::Deserialize;
use std::net::SocketAddr;
use tls_server::{
    CertificateError, Names, ServedCertificate, TlsPlan, TlsSettings, TlsSettingsError,
};
use url::Url;
use wire::gitspace::PortVisibility;

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
    max_port_visibility: Option<PortVisibility>,
    /// How TLS ends here.
    tls: TlsSettings,
    /// Before the end of its certificate.
    certificate_warn_days: Option<u32>,
    /// `/healthz`, `/readyz`, `/status` and more.
    admin_socket: Option<Utf8PathBuf>,
    /// Group of the admin socket's file.
    pub(crate) socket_gid: Option<u32>,
    log: LogConfig,
}

/// Why a start would refuse the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
}

impl Refusal {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Config(error) => error,
            Self::Tls(error) => error,
            Self::Certificate(error) => error,
        }
    }
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }

    fn exit(&self) -> Exit {
        self.inner().exit()
    }
}

/// Checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) control_plane: ControlPlaneConfig,
    pub(crate) tls: TlsPlan,
    pub(crate) names: Names,
    pub(crate) certificate_warn_days: u32,
}

impl Settings {
    /// Looks at the certificate's files, and opens nothing.
    pub(crate) fn check(self, credentials: &Credentials) -> Result<Checked, Wrong<Refusal>> {
        let mut wrong = Gather::default();
        let tls = wrong.keep(self.tls.clone().check(credentials).map_err(Refusal::from));
        let tls = tls.unwrap_or_default();
        let certificate_warn_days = self.certificate_warn_days.unwrap_or(tls_roots::WARN_DAYS);
        let control_plane = self.into_config(&tls);
        if let Err(all) = control_plane.check() {
            for error in all {
                wrong.push(error.into());
            }
        }
        wrong.keep(
            tls.check_listen("listen", control_plane.listen)
                .map_err(Refusal::from),
        );
        let listeners = [("listen", control_plane.listen)];
        wrong.keep(tls.check_apart(&listeners).map_err(Refusal::from));
        // One that cannot be parsed was told.
        let url = control_plane.public_url.parse::<Url>().ok();
        let names = url
            .as_ref()
            .map_or_else(Names::default, |url| Names::default().host(url));
        if let Some(url) = &url {
            wrong.keep(tls.check_url("public_url", url).map_err(Refusal::from));
        }
        if let Some(source) = &tls.source {
            wrong.keep(ServedCertificate::look(source, &names).map_err(Refusal::from));
        }
        wrong.finish()?;
        Ok(Checked {
            control_plane,
            tls,
            names,
            certificate_warn_days,
        })
    }

    fn into_config(self, tls: &TlsPlan) -> ControlPlaneConfig {
        let state_dir = self
            .state_dir
            .unwrap_or_else(|| "/var/lib/gitspaces/control-plane".into());
        let default = ControlPlaneConfig::new(state_dir);
        ControlPlaneConfig {
            listen: self.listen.unwrap_or(default.listen),
            public_url: self.public_url.unwrap_or_else(|| match tls.source {
                None => default.public_url,
                Some(_) => "https://localhost:7070".to_owned(),
            }),
            gateway_url: self.gateway_url.unwrap_or(default.gateway_url),
            delegate_heartbeat_ms: self
                .delegate_heartbeat_ms
                .unwrap_or(default.delegate_heartbeat_ms),
            delegate_probe_ms: self.delegate_probe_ms.unwrap_or(default.delegate_probe_ms),
            wake_on_connect: self.wake_on_connect.unwrap_or(default.wake_on_connect),
            max_port_visibility: self
                .max_port_visibility
                .unwrap_or(default.max_port_visibility),
            state_dir: default.state_dir,
        }
    }
}

impl Program for Settings {
    const NAME: &'static str = "gitspaces-control-plane";
    const CONFIG: &'static str = "/etc/gitspaces/gitspaces-control-plane.toml";
    const ENV_PREFIX: &'static str = "GITSPACES_CONTROL_PLANE";
    type Refusal = Refusal;

    fn admin_socket(&self) -> Utf8PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| "/run/gitspaces/control-plane/admin.sock".into())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn examine(self) -> Result<String, Wrong<Refusal>> {
        let config = self.check(&Credentials::of_command())?.control_plane;
        Ok(format!(
            "{} on {}, gitspaces below {}",
            config.public_url, config.listen, config.gateway_url
        ))
    }
}
