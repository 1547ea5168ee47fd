//! What the operator may set, and its defaults.

use admin::Program;
use camino::Utf8PathBuf;
use daemon::{Credentials, Exit, Gather, Hint, Wrong, logging::LogConfig};
use gateway::{GatewayConfig, GatewayError, Listen, SshConfig, SshListen};
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tls_server::{
    CertificateError, Names, ServedCertificate, TlsPlan, TlsSettings, TlsSettingsError,
};
use url::Url;

/// Name of the credential with which it connects to the control plane.
const TOKEN: &str = "gateway-token";

/// Its SSH host key in the state folder, unless another file is set.
const HOST_KEY: &str = "ssh_host_ed25519_key";

/// As written in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// `http(s)://host[:port]` of the control plane.
    control_plane_url: Option<String>,
    /// Loopback unless set.
    listen: Option<SocketAddr>,
    /// What users' URLs end with: a gitspace is at `<scheme>://<slug>.<host[:port]>/`.
    public_url: Option<String>,
    /// Where it listens for SSH; nowhere unless set.
    ssh_listen: Option<SshListen>,
    /// The port that users dial for SSH, where it is another one.
    ssh_public_port: Option<u16>,
    /// Whether a personal access token is taken as a password.
    ssh_passwords: Option<bool>,
    /// Whether SSH clients without a post-quantum key agreement are turned away.
    ssh_post_quantum_only: bool,
    /// File with its SSH host key; made where there is none.
    ssh_host_key: Option<Utf8PathBuf>,
    /// How TLS ends here.
    tls: TlsSettings,
    /// Before the end of its certificate.
    certificate_warn_days: Option<u32>,
    /// What it keeps: an authority of its own, where it has one.
    state_dir: Option<Utf8PathBuf>,
    /// The API socket of this host's runner, or `off` where there is none.
    runner_socket: Option<Utf8PathBuf>,
    /// Whether delegates open tunnels to it; they do unless set.
    tunnels: Option<bool>,
    /// Where they reach it, where that is not the public URL.
    tunnel_url: Option<String>,
    /// PEM certificates trusted beside the host's own.
    ca_file: Option<Utf8PathBuf>,
    /// `/healthz`, `/readyz`, `/status` and more.
    admin_socket: Option<Utf8PathBuf>,
    /// Group of the admin socket's file.
    pub(crate) socket_gid: Option<u32>,
    log: LogConfig,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("`control_plane_url` is not set")]
    NoControlPlane,
    #[error("`{key}` is not a URL: `{text}`")]
    Url {
        key: &'static str,
        text: String,
        #[source]
        source: url::ParseError,
    },
    #[error("`runner_socket` is `{text}`, which is neither a whole path nor `off`")]
    RunnerSocket { text: String },
    #[error("this gateway has no runner beside it, takes no tunnels, and so leads nowhere")]
    NoWay,
    #[error("this gateway has no token: the credential `{TOKEN}` is missing or empty")]
    NoToken,
    #[error(transparent)]
    Credential(#[from] daemon::CredentialError),
    #[error("cannot connect to the control plane by TLS")]
    Tls(#[from] tls_roots::TlsError),
    #[error(transparent)]
    TlsSettings(#[from] TlsSettingsError),
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoControlPlane => Some("set `control_plane_url = \"https://...\"`".to_owned()),
            Self::Url { .. } => Some("for example `https://gitspaces.example.com`".to_owned()),
            Self::RunnerSocket { .. } => Some(
                "for example \"/run/gitspaces/runner/api.sock\"; \"off\" where no runner is on this host"
                    .to_owned(),
            ),
            Self::NoWay => Some("set `runner_socket`, or `tunnels = true`".to_owned()),
            Self::NoToken => Some(
                "as an administrator run `gitspace gateway register NAME`, and put what it prints into /etc/gitspaces/credentials/gateway-token (mode 0600)".to_owned(),
            ),
            Self::Credential(error) => error.hint(),
            Self::Tls(error) => error.hint(),
            Self::TlsSettings(error) => error.hint(),
            Self::Certificate(error) => error.hint(),
            Self::Gateway(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NoControlPlane
            | Self::Url { .. }
            | Self::RunnerSocket { .. }
            | Self::NoWay
            | Self::NoToken => Exit::Config,
            Self::Credential(error) => error.exit(),
            Self::Tls(error) => error.exit(),
            Self::TlsSettings(error) => error.exit(),
            Self::Certificate(error) => error.exit(),
            Self::Gateway(error) => error.exit(),
        }
    }
}

/// Checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) gateway: GatewayConfig,
    /// `None` of a gateway that stands alone.
    pub(crate) runner_socket: Option<Utf8PathBuf>,
    pub(crate) tls: TlsPlan,
    pub(crate) names: Names,
    pub(crate) certificate_warn_days: u32,
    pub(crate) state_dir: Utf8PathBuf,
}

impl Settings {
    /// Reads the token and the trusted certificates, and opens nothing.
    pub(crate) fn check(self, credentials: &Credentials) -> Result<Config, Wrong<ConfigError>> {
        let mut wrong = Gather::default();
        let listen = self
            .listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 7080)));
        let control_plane_url = wrong.keep(match &self.control_plane_url {
            Some(url) => parse("control_plane_url", url),
            None => Err(ConfigError::NoControlPlane),
        });
        let tls = wrong.keep(self.tls.check(credentials).map_err(ConfigError::from));
        let tls = tls.unwrap_or_default();
        wrong.keep(
            tls.check_listen("listen", listen)
                .map_err(ConfigError::from),
        );
        let mut listeners = vec![("listen", listen)];
        if let Some(SshListen::At(address)) = self.ssh_listen {
            listeners.push(("ssh_listen", address));
        }
        wrong.keep(tls.check_apart(&listeners).map_err(ConfigError::from));
        let public_url = self.public_url.unwrap_or_else(|| {
            // No client takes a certificate for `*.localhost`.
            let domain = match tls.source {
                Some(_) => "gitspaces.localhost",
                None => "localhost",
            };
            format!("{}://{domain}:{}", tls.scheme(), listen.port())
        });
        let public_url = wrong.keep(parse("public_url", &public_url));
        let mut names = public_url
            .as_ref()
            .map_or_else(Names::default, |url| Names::default().below(url));
        let tunnel_url = self.tunnel_url.as_ref().and_then(|url| {
            let url = wrong.keep(parse("tunnel_url", url))?;
            wrong.keep(tls.check_url("tunnel_url", &url).map_err(ConfigError::from));
            // Delegates ask for this one.
            names = std::mem::take(&mut names).host(&url);
            Some(url)
        });
        if let Some(url) = &public_url {
            wrong.keep(tls.check_url("public_url", url).map_err(ConfigError::from));
        }
        if let Some(source) = &tls.source {
            wrong.keep(ServedCertificate::look(source, &names).map_err(ConfigError::from));
        }
        let is_tls = control_plane_url
            .as_ref()
            .is_some_and(|url| url.scheme() == "https");
        let control_tls = is_tls
            .then(|| wrong.keep(tls_roots::client_config(self.ca_file.as_deref())))
            .flatten()
            .map(Arc::new);
        let token = credentials.get(TOKEN).map_err(ConfigError::from);
        let token = wrong.keep(token.and_then(|token| token.ok_or(ConfigError::NoToken)));
        let tunnels = tunnel_url.or_else(|| public_url.clone());
        let tunnels = tunnels.filter(|_| self.tunnels.unwrap_or(true));
        let runner_socket = match self.runner_socket {
            Some(socket) if socket == "off" => None,
            Some(socket) => {
                if !socket.is_absolute() {
                    wrong.push(ConfigError::RunnerSocket {
                        text: socket.to_string(),
                    });
                }
                Some(socket)
            }
            None => Some("/run/gitspaces/runner/api.sock".into()),
        };
        if runner_socket.is_none() && self.tunnels == Some(false) {
            wrong.push(ConfigError::NoWay);
        }
        let (Some(public_url), Some(control_plane_url), Some(gateway_token)) =
            (public_url, control_plane_url, token)
        else {
            // Of what is missing, the error was kept.
            wrong.finish()?;
            return Err(ConfigError::NoControlPlane.into());
        };
        let state_dir = self
            .state_dir
            .unwrap_or_else(|| "/var/lib/gitspaces/gateway".into());
        let gateway = GatewayConfig {
            listen: Listen::Address(listen),
            tls: None,
            public_url,
            control_plane_url,
            gateway_token,
            control_connect: None,
            control_tls,
            tunnels,
            ssh: match self.ssh_listen {
                None | Some(SshListen::Off) => None,
                Some(SshListen::At(address)) => Some(SshConfig {
                    listen: Listen::Address(address),
                    host_key: self
                        .ssh_host_key
                        .unwrap_or_else(|| state_dir.join(HOST_KEY)),
                    passwords: self.ssh_passwords.unwrap_or(true),
                    post_quantum_only: self.ssh_post_quantum_only,
                    public_port: self.ssh_public_port,
                }),
            },
        };
        wrong.keep(gateway.check());
        wrong.finish()?;
        Ok(Config {
            gateway,
            runner_socket,
            tls,
            names,
            certificate_warn_days: self.certificate_warn_days.unwrap_or(tls_roots::WARN_DAYS),
            state_dir,
        })
    }
}

impl Program for Settings {
    const NAME: &'static str = "gitspaces-gateway";
    const CONFIG: &'static str = "/etc/gitspaces/gitspaces-gateway.toml";
    const ENV_PREFIX: &'static str = "GITSPACES_GATEWAY";
    type Refusal = ConfigError;

    fn admin_socket(&self) -> Utf8PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| "/run/gitspaces/gateway/admin.sock".into())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn examine(self) -> Result<String, Wrong<ConfigError>> {
        let config = self.check(&Credentials::of_process())?.gateway;
        Ok(format!(
            "gitspaces below {}, for {}",
            config.public_url, config.control_plane_url
        ))
    }
}

fn parse(key: &'static str, text: &str) -> Result<Url, ConfigError> {
    Url::parse(text).map_err(|source| ConfigError::Url {
        key,
        text: text.to_owned(),
        source,
    })
}
