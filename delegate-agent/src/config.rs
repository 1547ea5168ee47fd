//! The delegate's configuration: what the operator may set, and its defaults.

use crate::{inventory::hostname, transport::ProxyUrl};
use camino::Utf8PathBuf;
use daemon::{Credentials, Exit, Gather, Hint, Wrong};
use gateway::SshListen;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use tls_server::{
    CertificateError, Names, ServedCertificate, Source, TlsPlan, TlsSettings, TlsSettingsError,
};
use url::Url;
use wire::{control::Capacity, gitspace::PortVisibility};

/// Where not set.
pub(crate) const ADMIN_SOCKET: &str = "/run/gitspaces/delegate/admin.sock";

/// From the embedded gateway's port to the one for SSH, where that is not set.
const SSH_PORT_AFTER: u16 = 2;

/// Tags, and bytes of one.
const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 64;

/// As written in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `http(s)://host[:port]` of the control plane, as it calls itself.
    pub control_plane_url: Option<String>,
    /// The host's name where not set. A selector of its own.
    pub name: Option<String>,
    pub tags: Vec<String>,
    /// What is not set is what the runner says.
    pub capacity: CapacitySettings,
    /// The identity.
    pub state_dir: Option<Utf8PathBuf>,
    pub runner_socket: Option<Utf8PathBuf>,
    pub admin_socket: Option<Utf8PathBuf>,
    /// Group of the admin socket's file.
    pub socket_gid: Option<u32>,
    /// `http://[user[:password]@]host:port`; the password better is the credential `proxy-password`. Without it `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured.
    pub proxy: Option<String>,
    /// PEM certificates trusted beside the host's own.
    pub ca_file: Option<Utf8PathBuf>,
    /// Before the end of a certificate.
    pub certificate_warn_days: Option<u32>,
    pub embedded: EmbeddedSettings,
    /// How TLS ends at the embedded control plane and gateway.
    pub tls: TlsSettings,
    pub log: daemon::logging::LogConfig,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CapacitySettings {
    pub gitspaces: Option<u32>,
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
}

impl CapacitySettings {
    /// What the runner says, where nothing else is set.
    #[must_use]
    pub fn over(self, runner: Capacity) -> Capacity {
        Capacity {
            gitspaces: self.gitspaces.unwrap_or(runner.gitspaces),
            cpu_millis: self.cpu_millis.unwrap_or(runner.cpu_millis),
            memory_bytes: self.memory_bytes.unwrap_or(runner.memory_bytes),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EmbeddedSettings {
    pub control_plane: EmbeddedControlPlane,
    pub gateway: EmbeddedGateway,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct EmbeddedControlPlane {
    pub enabled: bool,
    pub state_dir: Utf8PathBuf,
    pub listen: SocketAddr,
    pub public_url: Option<String>,
    /// Whether whoever comes to their gitspace that does not run starts it.
    pub wake_on_connect: bool,
    /// The most that users may share a port of their gitspace: `private`, `project` (everybody who can log in) or `public`.
    pub max_port_visibility: PortVisibility,
}

impl Default for EmbeddedControlPlane {
    fn default() -> Self {
        Self {
            enabled: false,
            state_dir: "/var/lib/gitspaces/control-plane".into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            public_url: None,
            wake_on_connect: true,
            max_port_visibility: PortVisibility::Project,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct EmbeddedGateway {
    pub enabled: bool,
    pub listen: SocketAddr,
    pub public_url: Option<String>,
    /// Loopback at the gateway's port and two, where not set.
    pub ssh_listen: Option<SshListen>,
    /// The port that users dial for SSH, where it is another one.
    pub ssh_public_port: Option<u16>,
    /// Whether a personal access token is taken as a password.
    pub ssh_passwords: bool,
    /// Whether SSH clients without a post-quantum key agreement are turned away.
    pub ssh_post_quantum_only: bool,
    /// Whether delegates of other hosts open tunnels to it, at its public URL.
    pub tunnels: bool,
}

impl EmbeddedGateway {
    fn ssh(&self) -> Option<Ssh> {
        let listen = match self.ssh_listen {
            Some(SshListen::Off) => return None,
            Some(SshListen::At(address)) => address,
            None => {
                // A port that the system chooses has no neighbour.
                let port = match self.listen.port() {
                    0 => 0,
                    port => port.checked_add(SSH_PORT_AFTER)?,
                };
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            }
        };
        Some(Ssh {
            listen,
            public_port: self.ssh_public_port,
            passwords: self.ssh_passwords,
            post_quantum_only: self.ssh_post_quantum_only,
        })
    }
}

impl Default for EmbeddedGateway {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7080)),
            public_url: None,
            ssh_listen: None,
            ssh_public_port: None,
            ssh_passwords: true,
            ssh_post_quantum_only: false,
            tunnels: true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`control_plane_url` is not set")]
    NoControlPlane,
    #[error("`{key}` is not a URL: `{text}`")]
    Url {
        key: &'static str,
        text: String,
        #[source]
        source: url::ParseError,
    },
    #[error("`{key}` is not of the form http(s)://host[:port]: `{text}`")]
    NotAnOrigin { key: &'static str, text: String },
    #[error("`proxy` is not taken")]
    Proxy {
        #[source]
        source: crate::transport::ProxyUrlError,
    },
    #[error("`name` is not taken: `{name}`")]
    Name { name: String },
    #[error("the tag `{tag}` is not taken")]
    Tag { tag: String },
    #[error("more than {MAX_TAGS} tags")]
    TooManyTags,
    #[error("the embedded gateway needs the embedded control plane, whose gateway it registers as")]
    GatewayAlone,
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
    #[error("`[tls]` is set, and neither a control plane nor a gateway is embedded here")]
    NothingServed,
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoControlPlane => Some(
                "set `control_plane_url = \"https://...\"`, or enable `[embedded.control_plane]`"
                    .to_owned(),
            ),
            Self::Name { .. } | Self::Tag { .. } => {
                Some("1 to 64 letters, digits, `.`, `_`, `:`, `=`, `/` and `-`".to_owned())
            }
            Self::GatewayAlone => Some("set `[embedded.control_plane] enabled = true`".to_owned()),
            Self::Url { .. } | Self::NotAnOrigin { .. } => {
                Some("for example `https://gitspaces.example.com`".to_owned())
            }
            Self::Proxy { .. } => Some("set it to http://[user@]host:port; the password is the credential `proxy-password`".to_owned()),
            Self::Tls(error) => error.hint(),
            Self::NothingServed => Some(
                "leave `[tls]` out, or enable `[embedded.control_plane]`: whom this host trusts is `ca_file`".to_owned(),
            ),
            Self::Certificate(error) => error.hint(),
            Self::TooManyTags => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Certificate(error) => error.exit(),
            Self::Tls(error) => error.exit(),
            Self::NoControlPlane
            | Self::Url { .. }
            | Self::NotAnOrigin { .. }
            | Self::Proxy { .. }
            | Self::Name { .. }
            | Self::Tag { .. }
            | Self::TooManyTags
            | Self::GatewayAlone
            | Self::NothingServed => Exit::Config,
        }
    }
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub control_plane_url: Origin,
    pub name: String,
    pub tags: Vec<String>,
    pub capacity: CapacitySettings,
    pub state_dir: Utf8PathBuf,
    pub runner_socket: Utf8PathBuf,
    pub admin_socket: Utf8PathBuf,
    pub socket_gid: Option<u32>,
    pub proxy: Option<ProxyUrl>,
    pub ca_file: Option<Utf8PathBuf>,
    pub certificate_warn_days: u32,
    pub embedded: Option<Embedded>,
}

#[derive(Clone, Debug)]
pub struct Embedded {
    pub state_dir: Utf8PathBuf,
    pub listen: SocketAddr,
    pub public_url: Origin,
    pub wake_on_connect: bool,
    pub max_port_visibility: PortVisibility,
    pub gateway: Option<Gateway>,
    pub tls: TlsPlan,
}

impl Embedded {
    /// What the certificate has to hold for.
    pub(crate) fn names(&self) -> Names {
        let names = Names::default().host(self.public_url.url());
        match &self.gateway {
            Some(gateway) => names.below(gateway.public_url.url()),
            None => names,
        }
    }

    /// The certificate of its own authority, where it has one.
    pub(crate) fn authority(&self) -> Option<Utf8PathBuf> {
        let own = self.tls.source == Some(Source::PrivateCa);
        own.then(|| tls_server::authority_file(&self.state_dir))
    }
}

impl Config {
    /// Whom commands trust beside the host's own authorities, to reach the control plane: that of the embedded one, unless another is set.
    #[must_use]
    pub fn trusted(&self) -> Option<Utf8PathBuf> {
        let own = || {
            let embedded = self.embedded.as_ref()?;
            let authority = embedded.authority()?;
            (embedded.public_url == self.control_plane_url && authority.exists())
                .then_some(authority)
        };
        self.ca_file.clone().or_else(own)
    }
}

#[derive(Clone, Debug)]
pub struct Gateway {
    pub listen: SocketAddr,
    pub public_url: Origin,
    pub ssh: Option<Ssh>,
    /// Whether delegates of other hosts open tunnels to it.
    pub tunnels: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssh {
    pub listen: SocketAddr,
    pub public_port: Option<u16>,
    pub passwords: bool,
    pub post_quantum_only: bool,
}

/// `http(s)://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Url);

impl Origin {
    /// # Errors
    /// Refuses what has a path, a query, a user, or another scheme. `key` is named in the error.
    pub fn parse(key: &'static str, text: &str) -> Result<Self, ConfigError> {
        let url = Url::parse(text).map_err(|source| ConfigError::Url {
            key,
            text: text.to_owned(),
            source,
        })?;
        let bare = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if bare {
            Ok(Self(url))
        } else {
            Err(ConfigError::NotAnOrigin {
                key,
                text: text.to_owned(),
            })
        }
    }

    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// As browsers and proofs write it.
    #[must_use]
    pub fn ascii(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.0
            .port_or_known_default()
            .unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// `host[:port]`, for a `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.ascii())
    }
}

impl Settings {
    /// # Errors
    /// Names the first key that is wrong.
    pub fn check(self, credentials: &Credentials) -> Result<Config, ConfigError> {
        self.check_all(credentials).map_err(|wrong| wrong.first)
    }

    /// # Errors
    /// Names each key that is wrong.
    pub fn check_all(self, credentials: &Credentials) -> Result<Config, Wrong<ConfigError>> {
        let mut wrong = Gather::default();
        let tls = wrong.keep(self.tls.check(credentials).map_err(ConfigError::from));
        let tls = tls.unwrap_or_default();
        if tls.source.is_some() && !self.embedded.control_plane.enabled {
            wrong.push(ConfigError::NothingServed);
        }
        let embedded = self.embedded.check(&tls, &mut wrong);
        let control_plane_url = match (&self.control_plane_url, &embedded) {
            (Some(text), _) => wrong.keep(Origin::parse("control_plane_url", text)),
            (None, Some(embedded)) => Some(embedded.public_url.clone()),
            (None, None) => {
                // Where the embedded one has a URL that is wrong, this was told.
                if !self.embedded.control_plane.enabled {
                    wrong.push(ConfigError::NoControlPlane);
                }
                None
            }
        };
        let name = self.name.unwrap_or_else(hostname);
        if !is_label(&name) {
            wrong.push(ConfigError::Name { name: name.clone() });
        }
        if self.tags.len() > MAX_TAGS {
            wrong.push(ConfigError::TooManyTags);
        }
        for tag in self.tags.iter().filter(|tag| !is_label(tag)) {
            wrong.push(ConfigError::Tag { tag: tag.clone() });
        }
        let proxy = self.proxy.as_deref().map(ProxyUrl::parse).transpose();
        let proxy = wrong
            .keep(proxy.map_err(|source| ConfigError::Proxy { source }))
            .flatten();
        wrong.finish()?;
        Ok(Config {
            // Where there is none, that was wrong.
            control_plane_url: control_plane_url.ok_or(ConfigError::NoControlPlane)?,
            name,
            tags: self.tags,
            capacity: self.capacity,
            state_dir: self
                .state_dir
                .unwrap_or_else(|| "/var/lib/gitspaces/delegate".into()),
            runner_socket: self
                .runner_socket
                .unwrap_or_else(|| "/run/gitspaces/runner/api.sock".into()),
            admin_socket: self.admin_socket.unwrap_or_else(|| ADMIN_SOCKET.into()),
            socket_gid: self.socket_gid,
            proxy,
            ca_file: self.ca_file,
            certificate_warn_days: self.certificate_warn_days.unwrap_or(tls_roots::WARN_DAYS),
            embedded,
        })
    }
}

impl EmbeddedSettings {
    fn check(&self, tls: &TlsPlan, wrong: &mut Gather<ConfigError>) -> Option<Embedded> {
        let (control_plane, gateway) = (&self.control_plane, &self.gateway);
        if !control_plane.enabled {
            if gateway.enabled {
                wrong.push(ConfigError::GatewayAlone);
            }
            return None;
        }
        let mut url = |key, text: &Option<String>, host: &str, listen: SocketAddr| {
            let url = wrong.keep(match text {
                Some(text) => Origin::parse(key, text),
                None => Origin::parse(key, &format!("{}://{host}:{}", tls.scheme(), listen.port())),
            })?;
            wrong.keep(tls.check_url(key, url.url()).map_err(ConfigError::from))?;
            Some(url)
        };
        let public_url = url(
            "embedded.control_plane.public_url",
            &control_plane.public_url,
            "localhost",
            control_plane.listen,
        );
        // No client takes a certificate for `*.localhost`.
        let gateway_host = match tls.source {
            Some(_) => "gitspaces.localhost",
            None => "localhost",
        };
        let served = gateway.enabled.then(|| {
            let public_url = url(
                "embedded.gateway.public_url",
                &gateway.public_url,
                gateway_host,
                gateway.listen,
            )?;
            Some(Gateway {
                listen: gateway.listen,
                public_url,
                ssh: gateway.ssh(),
                tunnels: gateway.tunnels,
            })
        });
        let mut listeners = vec![("embedded.control_plane.listen", control_plane.listen)];
        if gateway.enabled {
            listeners.push(("embedded.gateway.listen", gateway.listen));
        }
        for (key, listen) in &listeners {
            wrong.keep(tls.check_listen(key, *listen).map_err(ConfigError::from));
        }
        if gateway.enabled
            && let Some(ssh) = gateway.ssh()
        {
            listeners.push(("embedded.gateway.ssh_listen", ssh.listen));
        }
        wrong.keep(tls.check_apart(&listeners).map_err(ConfigError::from));
        let embedded = Embedded {
            state_dir: control_plane.state_dir.clone(),
            listen: control_plane.listen,
            public_url: public_url?,
            wake_on_connect: control_plane.wake_on_connect,
            max_port_visibility: control_plane.max_port_visibility,
            gateway: served.flatten(),
            tls: tls.clone(),
        };
        if let Some(source) = &tls.source {
            let look = ServedCertificate::look(source, &embedded.names());
            wrong.keep(look.map_err(ConfigError::from));
        }
        Some(embedded)
    }
}

/// Names and tags are selectors: no spaces, nothing that a shell or a query would take apart.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_TAG
        && text.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'=' | b'/' | b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(control_plane_url: &str) -> Settings {
        Settings {
            control_plane_url: Some(control_plane_url.to_owned()),
            name: Some("host-1".to_owned()),
            ..Settings::default()
        }
    }

    #[test]
    fn an_origin_is_all_that_is_taken_as_a_control_plane() {
        for good in [
            "https://gitspaces.example.com",
            "http://localhost:7070",
            "http://[::1]:7070/",
        ] {
            assert!(
                settings(good).check(&Credentials::default()).is_ok(),
                "refused {good}"
            );
        }
        for bad in [
            "localhost:7070",
            "ftp://x",
            "https://x/y",
            "https://u:p@x",
            "https://x?y",
            "",
        ] {
            assert!(
                settings(bad).check(&Credentials::default()).is_err(),
                "took {bad}"
            );
        }
    }

    #[test]
    fn a_name_or_tag_with_a_space_is_refused() {
        for name in ["a b", "", "a\n", "é", &"x".repeat(65)] {
            let settings = Settings {
                name: Some(name.to_owned()),
                ..settings("http://x")
            };
            assert!(
                matches!(
                    settings.check(&Credentials::default()),
                    Err(ConfigError::Name { .. })
                ),
                "took {name:?}"
            );
        }
        let tagged = Settings {
            tags: vec!["zone=eu/1".to_owned(), "a,b".to_owned()],
            ..settings("http://x")
        };
        assert!(matches!(
            tagged.check(&Credentials::default()),
            Err(ConfigError::Tag { .. })
        ));
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let mut settings = Settings {
            name: Some("a b".to_owned()),
            tags: vec!["a,b".to_owned(), "good".to_owned(), String::new()],
            proxy: Some("socks5://x:1".to_owned()),
            ..settings("ftp://x")
        };
        settings.embedded.control_plane.enabled = true;
        settings.embedded.control_plane.public_url = Some("https://x/path".to_owned());
        let wrong: Vec<_> = settings
            .check_all(&Credentials::default())
            .unwrap_err()
            .into_iter()
            .collect();
        assert!(
            matches!(
                wrong.as_slice(),
                [
                    ConfigError::NotAnOrigin {
                        key: "embedded.control_plane.public_url",
                        ..
                    },
                    ConfigError::NotAnOrigin {
                        key: "control_plane_url",
                        ..
                    },
                    ConfigError::Name { .. },
                    ConfigError::Tag { .. },
                    ConfigError::Tag { .. },
                    ConfigError::Proxy { .. },
                ]
            ),
            "{wrong:#?}"
        );
    }

    #[test]
    fn the_embedded_control_plane_is_the_one_to_connect_to() {
        let mut settings = Settings {
            name: Some("h".to_owned()),
            ..Settings::default()
        };
        assert!(matches!(
            settings.clone().check(&Credentials::default()),
            Err(ConfigError::NoControlPlane)
        ));
        settings.embedded.gateway.enabled = true;
        assert!(matches!(
            settings.clone().check(&Credentials::default()),
            Err(ConfigError::GatewayAlone)
        ));
        settings.embedded.control_plane.enabled = true;
        let config = settings.check(&Credentials::default()).expect("taken");
        assert_eq!(config.control_plane_url.ascii(), "http://localhost:7070");
    }

    #[test]
    fn the_embedded_gateway_takes_ssh_beside_its_own_port_unless_told_otherwise() {
        let mut gateway = EmbeddedGateway::default();
        let at = |gateway: &EmbeddedGateway| gateway.ssh().map(|ssh| ssh.listen.to_string());
        assert_eq!(at(&gateway).as_deref(), Some("127.0.0.1:7082"));
        gateway.listen = "0.0.0.0:8090".parse().unwrap();
        assert_eq!(at(&gateway).as_deref(), Some("127.0.0.1:8092"));
        gateway.ssh_listen = Some("0.0.0.0:22".parse().unwrap());
        assert_eq!(at(&gateway).as_deref(), Some("0.0.0.0:22"));
        gateway.ssh_listen = Some("off".parse().unwrap());
        assert_eq!(at(&gateway), None);
    }

    #[test]
    fn capacity_is_the_runners_where_nothing_is_set() {
        let runner = Capacity {
            gitspaces: 8,
            cpu_millis: 4_000,
            memory_bytes: 1,
        };
        let set = CapacitySettings {
            gitspaces: Some(2),
            ..CapacitySettings::default()
        };
        assert_eq!(
            set.over(runner),
            Capacity {
                gitspaces: 2,
                ..runner
            }
        );
    }
}
