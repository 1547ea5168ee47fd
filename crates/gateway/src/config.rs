//! What a gateway is made of.

use crate::{
    endpoint::Endpoint,
    site::{Domain, is_origin},
};
use camino::Utf8PathBuf;
use daemon::{Exit, Hint, WriteError};
use serde::{Deserialize, Deserializer};
use ssh_transport::HostKeyError;
use std::{
    io,
    net::{AddrParseError, SocketAddr},
    sync::Arc,
};
use url::Url;
use wire::secret::Secret;

/// Where it listens.
#[derive(Debug)]
pub enum Listen {
    Address(SocketAddr),
    /// Opened by somebody else, a service manager for instance.
    Listener(std::net::TcpListener),
}

/// The port for SSH.
#[derive(Debug)]
pub struct SshConfig {
    pub listen: Listen,
    /// File with the Ed25519 host key; it is made where there is none.
    pub host_key: Utf8PathBuf,
    /// Whether a personal access token is taken as a password.
    pub passwords: bool,
    /// Whether clients without a key agreement that outlasts quantum computers are turned away (OpenSSH before 9.9).
    pub post_quantum_only: bool,
    /// Port that users dial, where it is another one than is listened on.
    pub public_port: Option<u16>,
}

/// Where SSH is listened for, as an operator writes it: an address with a port, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshListen {
    Off,
    At(SocketAddr),
}

impl std::str::FromStr for SshListen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At),
        }
    }
}

impl<'de> Deserialize<'de> for SshListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| {
            serde::de::Error::custom("it is an address with a port, as \"0.0.0.0:22\", or \"off\"")
        })
    }
}

#[derive(Debug)]
pub struct GatewayConfig {
    pub listen: Listen,
    /// Without it plain HTTP is served.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What users type without the gitspace's label: `http://localhost:7080` serves `http://<slug>.localhost:7080`.
    pub public_url: Url,
    /// `http(s)://host[:port]` of the control plane.
    pub control_plane_url: Url,
    pub gateway_token: Secret,
    /// Where to connect instead of resolving the control plane's name.
    pub control_connect: Option<SocketAddr>,
    /// Needed where `control_plane_url` is `https`.
    pub control_tls: Option<Arc<rustls::ClientConfig>>,
    /// Without it there is no SSH.
    pub ssh: Option<SshConfig>,
    /// `http(s)://host[:port]` at which delegates reach this gateway, to open tunnels. Without it there are none.
    pub tunnels: Option<Url>,
}

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("the gateway's public URL `{url}` is not of the form http(s)://domain[:port]")]
    PublicUrl { url: Url },
    #[error("the control plane's URL `{url}` is not of the form http(s)://host[:port]")]
    ControlPlaneUrl { url: Url },
    #[error("the control plane's URL `{url}` is https, and no TLS roots were given")]
    NoTls { url: Url },
    #[error("the URL for tunnels `{url}` is not of the form http(s)://host[:port]")]
    TunnelUrl { url: Url },
    #[error(
        "the URL for tunnels `{url}` is that of a gitspace: what has this name and comes to this gateway is its users'"
    )]
    TunnelSite { url: Url },
    #[error("the gateway's token cannot be sent in a header")]
    Token,
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for SSH on {address}")]
    SshListen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the SSH host key `{path}`")]
    HostKeyFile {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("others than its owner may read the SSH host key `{path}`: its mode is {mode:o}")]
    HostKeyExposed { path: Utf8PathBuf, mode: u32 },
    #[error("cannot use the SSH host key `{path}`")]
    HostKey {
        path: Utf8PathBuf,
        #[source]
        source: HostKeyError,
    },
    #[error("cannot keep the SSH host key `{path}`")]
    HostKeyWrite {
        path: Utf8PathBuf,
        #[source]
        source: WriteError,
    },
}

impl GatewayConfig {
    /// Says what is wrong with it, and opens nothing.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn check(&self) -> Result<(), GatewayError> {
        self.parts().map(drop)
    }

    pub(crate) fn parts(&self) -> Result<(Domain, Endpoint), GatewayError> {
        let domain = Domain::from_url(&self.public_url).ok_or_else(|| GatewayError::PublicUrl {
            url: self.public_url.clone(),
        })?;
        if let Some(url) = &self.tunnels {
            check_tunnels(&domain, url)?;
        }
        Ok((domain, Endpoint::new(self)?))
    }
}

fn check_tunnels(domain: &Domain, url: &Url) -> Result<(), GatewayError> {
    let authority = url.host_str().map(|host| match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    });
    let Some(authority) = authority.filter(|_| is_origin(url)) else {
        let mut url = url.clone();
        // It is shown, and may be one that somebody logs in with.
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            url.set_path("");
        }
        return Err(GatewayError::TunnelUrl { url });
    };
    if domain.site(authority.as_bytes()).is_ok() {
        return Err(GatewayError::TunnelSite { url: url.clone() });
    }
    Ok(())
}

impl Hint for GatewayError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("is another gateway running? see `ss -ltnp`".to_owned())
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("listen on a port from 1024; below, give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE and CapabilityBoundingSet=CAP_NET_BIND_SERVICE in a drop-in".to_owned())
            }
            Self::SshListen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "set `ssh_listen` to another port, or to \"off\"; `ss -ltnp` shows who has this one"
                    .to_owned(),
            ),
            Self::SshListen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("set `ssh_listen` to a port from 1024".to_owned())
            }
            Self::HostKeyExposed { path, .. } => Some(format!("`chmod 600 {path}`")),
            Self::HostKey { path, .. } => Some(format!(
                "restore `{path}` from a backup; if it is lost, delete it: another one is made, and users are warned that the key has changed"
            )),
            Self::HostKeyWrite { path, .. } => Some(format!(
                "let the user of this process write to the directory above `{path}`"
            )),
            Self::PublicUrl { .. } | Self::ControlPlaneUrl { .. } => {
                Some("for example `https://gitspaces.example.com`".to_owned())
            }
            Self::TunnelUrl { .. } => Some("for example `https://10.0.0.5:7080`".to_owned()),
            Self::TunnelSite { .. } => Some(
                "leave it out where delegates reach the public URL; or set an address, or a name outside of it"
                    .to_owned(),
            ),
            Self::Token => Some(
                "it has to be what `gitspace gateway register` printed, and nothing else"
                    .to_owned(),
            ),
            Self::Listen { .. }
            | Self::SshListen { .. }
            | Self::HostKeyFile { .. }
            | Self::NoTls { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::PublicUrl { .. }
            | Self::ControlPlaneUrl { .. }
            | Self::NoTls { .. }
            | Self::TunnelUrl { .. }
            | Self::TunnelSite { .. }
            | Self::Token
            | Self::HostKeyExposed { .. }
            | Self::HostKey { .. } => Exit::Config,
            Self::Listen { .. } | Self::SshListen { .. } => Exit::Unavailable,
            Self::HostKeyFile { .. } | Self::HostKeyWrite { .. } => Exit::Failure,
        }
    }
}
