//! What a gateway is made of.

use crate::{endpoint::Endpoint, site::Domain};
use daemon::{Exit, Hint};
use std::{io, net::SocketAddr, sync::Arc};
use url::Url;
use wire::secret::Secret;

/// Where it listens.
#[derive(Debug)]
pub enum Listen {
    Address(SocketAddr),
    /// Opened by somebody else, a service manager for instance.
    Listener(std::net::TcpListener),
}

#[derive(Debug)]
pub struct GatewayConfig {
    pub listen: Listen,
    /// What users type without the gitspace's label: `http://localhost:7080` serves `http://<slug>.localhost:7080`.
    pub public_url: Url,
    /// `http(s)://host[:port]` of the control plane.
    pub control_plane_url: Url,
    pub gateway_token: Secret,
    /// Where to connect instead of resolving the control plane's name.
    pub control_connect: Option<SocketAddr>,
    /// Needed where `control_plane_url` is `https`.
    pub control_tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("the gateway's public URL `{url}` is not of the form http(s)://domain[:port]")]
    PublicUrl { url: Url },
    #[error("the control plane's URL `{url}` is not of the form http(s)://host[:port]")]
    ControlPlaneUrl { url: Url },
    #[error("the control plane's URL `{url}` is https, and no TLS roots were given")]
    NoTls { url: Url },
    #[error("the gateway's token cannot be sent in a header")]
    Token,
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
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
        Ok((domain, Endpoint::new(self)?))
    }
}

impl Hint for GatewayError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("is another gateway running? see `ss -ltnp`".to_owned())
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("listen on a port from 1024, behind what serves port 80 or 443".to_owned())
            }
            Self::PublicUrl { .. } | Self::ControlPlaneUrl { .. } => {
                Some("for example `https://gitspaces.example.com`".to_owned())
            }
            Self::Token => Some(
                "it has to be what `gitspace gateway register` printed, and nothing else"
                    .to_owned(),
            ),
            Self::Listen { .. } | Self::NoTls { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::PublicUrl { .. }
            | Self::ControlPlaneUrl { .. }
            | Self::NoTls { .. }
            | Self::Token => Exit::Config,
            Self::Listen { .. } => Exit::Unavailable,
        }
    }
}
