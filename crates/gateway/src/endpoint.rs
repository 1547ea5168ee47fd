//! How the control plane is connected to, for the link and for single requests alike.

use crate::{GatewayConfig, GatewayError, dial::Stream};
use rustls_pki_types::ServerName;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;
use wire::secret::Secret;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to the control plane at {address}")]
    Tcp {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up TLS with the control plane at {address}")]
    Tls {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the control plane at {address} did not answer within {} s", CONNECT_LIMIT.as_secs())]
    TimedOut { address: String },
}

pub(crate) struct Endpoint {
    url: Url,
    host: String,
    port: u16,
    connect: Option<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Secret,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self, GatewayError> {
        let url = config.control_plane_url.clone();
        let malformed = || GatewayError::ControlPlaneUrl { url: url.clone() };
        let host = url.host_str().ok_or_else(malformed)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(malformed)?;
        let bare = url.query().is_none() && url.username().is_empty() && url.password().is_none();
        if !bare {
            return Err(malformed());
        }
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let roots = config
                    .control_tls
                    .clone()
                    .ok_or_else(|| GatewayError::NoTls { url: url.clone() })?;
                let name = host.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned()).map_err(|_| malformed())?;
                Some((TlsConnector::from(Arc::clone(&roots)), name))
            }
            _ => return Err(malformed()),
        };
        let sendable = config.gateway_token.expose();
        if sendable.is_empty() || !sendable.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(GatewayError::Token);
        }
        Ok(Self {
            host,
            port,
            connect: config.control_connect,
            tls,
            token: config.gateway_token.clone(),
            url,
        })
    }

    /// `host[:port]` for a Host field.
    pub(crate) fn authority(&self) -> String {
        match self.url.port() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// `path` below the control plane's URL, with another scheme for a WebSocket.
    pub(crate) fn websocket_url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority(), self.path(path))
    }

    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url.path().trim_end_matches('/'))
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }

    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let address = self.connect.map_or_else(
            || format!("{}:{}", self.host, self.port),
            |address| address.to_string(),
        );
        let work = async {
            let tcp = |source| ConnectError::Tcp {
                address: address.clone(),
                source,
            };
            let stream = match self.connect {
                Some(address) => TcpStream::connect(address).await,
                None => {
                    let name = self.host.trim_start_matches('[').trim_end_matches(']');
                    TcpStream::connect((name, self.port)).await
                }
            }
            .map_err(tcp)?;
            stream.set_nodelay(true).map_err(tcp)?;
            match &self.tls {
                None => Ok(Box::new(stream) as Box<dyn Stream>),
                Some((connector, name)) => {
                    let stream =
                        connector
                            .connect(name.clone(), stream)
                            .await
                            .map_err(|source| ConnectError::Tls {
                                address: address.clone(),
                                source,
                            })?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
            }
        };
        match tokio::time::timeout(CONNECT_LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address }),
        }
    }
}
