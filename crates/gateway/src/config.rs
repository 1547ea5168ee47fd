//! What a gateway is made of.

use std::{net::SocketAddr, sync::Arc};
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
        source: std::io::Error,
    },
}
