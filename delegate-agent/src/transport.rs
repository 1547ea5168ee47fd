//! Ways out of this host to the control plane: direct, through an HTTP proxy, and TLS over either.

mod proxy;
mod tls;

pub use proxy::{ProxyEnv, ProxyEnvError, ProxyPasswordError, ProxyUrl, ProxyUrlError};
pub use tls_roots::TlsError;

use crate::config::Origin;
use daemon::{Exit, Hint};
use jiff::Timestamp;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

/// For each step: a name and an address, a proxy's answer, a handshake.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// A byte stream to the control plane.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {what} `{address}`")]
    Tcp {
        what: &'static str,
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{what} `{address}` did not answer within {} s", STEP_LIMIT.as_secs())]
    TooLong { what: &'static str, address: String },
    #[error("the proxy `{proxy}` refuses to connect to `{address}`: {status}")]
    ProxyRefused {
        proxy: String,
        address: String,
        status: String,
    },
    #[error("the proxy `{proxy}` does not answer as a proxy does: {reason}")]
    ProxyProtocol { proxy: String, reason: String },
    #[error("the certificate of `{address}` is not taken")]
    Certificate {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("TLS with `{address}` failed")]
    Tls {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("`{host}` is not a name that a certificate can have")]
    ServerName { host: String },
}

/// Why there is no way to the control plane at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot connect to the control plane by TLS")]
    Tls {
        #[source]
        source: TlsError,
    },
    #[error("cannot tell which proxy leads to the control plane")]
    Proxy {
        #[source]
        source: ProxyEnvError,
    },
    #[error("the proxy's password is not taken")]
    ProxyPassword {
        #[source]
        source: ProxyPasswordError,
    },
}

impl Hint for TransportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Tls { source } => source.hint(),
            Self::Proxy { source } => source.hint(),
            Self::ProxyPassword { source } => Some(match source {
                ProxyPasswordError::NoUser { .. } => {
                    "write the user into the proxy's URL: http://user@host:port".to_owned()
                }
                ProxyPasswordError::Two { .. } => {
                    "take the password out of the URL, or remove the credential `proxy-password`"
                        .to_owned()
                }
            }),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Tls { source } => source.exit(),
            Self::Proxy { source } => source.exit(),
            Self::ProxyPassword { .. } => Exit::Config,
        }
    }
}

impl ConnectError {
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Certificate { .. } => Some(
                "set `ca_file` to the certificate of the authority that signed it, and check the control plane's name",
            ),
            Self::ProxyRefused { status, .. } if status.contains("407") => Some(
                "write the user into `proxy`, http://user@host:port, and its password into the credential `proxy-password`",
            ),
            Self::Tcp { .. } | Self::TooLong { .. } => Some(
                "is the control plane running, and does a firewall let this host connect to it?",
            ),
            Self::ProxyRefused { .. }
            | Self::ProxyProtocol { .. }
            | Self::Tls { .. }
            | Self::ServerName { .. } => None,
        }
    }
}

/// The certificate that the control plane, or what stands before it, showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCertificate {
    pub not_after: Timestamp,
    /// When the handshake was.
    pub at: Instant,
}

/// How to reach one control plane. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    origin: Origin,
    proxy: Option<Arc<ProxyUrl>>,
    tls: Option<TlsConnector>,
    /// Of the last handshake; all copies of this transport write it.
    seen: Arc<Mutex<Option<SeenCertificate>>>,
    /// Where the embedded control plane listens: its public name need not resolve on this host.
    direct: Option<SocketAddr>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("origin", &self.origin)
            .field("proxy", &self.proxy)
            .field("direct", &self.direct)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// # Errors
    /// Fails where TLS is needed and no roots can be read, and where the environment's proxy cannot be understood.
    pub fn new(
        origin: Origin,
        proxy: Option<ProxyUrl>,
        env: &ProxyEnv,
        ca_file: Option<&camino::Utf8Path>,
    ) -> Result<Self, TransportError> {
        let tls = if origin.is_tls() {
            let config = tls_roots::client_config(ca_file)
                .map_err(|source| TransportError::Tls { source })?;
            Some(TlsConnector::from(Arc::new(config)))
        } else {
            None
        };
        let proxy = match proxy {
            Some(proxy) => Some(proxy),
            None => env
                .proxy_for(&origin)
                .map_err(|source| TransportError::Proxy { source })?,
        };
        let proxy = match (proxy, env.password()) {
            (Some(proxy), Some(password)) => Some(
                proxy
                    .with_password(password)
                    .map_err(|source| TransportError::ProxyPassword { source })?,
            ),
            (proxy, _) => proxy,
        };
        Ok(Self {
            origin,
            proxy: proxy.map(Arc::new),
            tls,
            seen: Arc::default(),
            direct: None,
        })
    }

    /// To a control plane in this process, which listens on plain HTTP whatever stands in front of it.
    #[must_use]
    pub fn embedded(origin: Origin, listen: SocketAddr) -> Self {
        let direct = if listen.ip().is_unspecified() {
            SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, listen.port()))
        } else {
            listen
        };
        Self {
            origin,
            proxy: None,
            tls: None,
            seen: Arc::default(),
            direct: Some(direct),
        }
    }

    /// Where to connect instead of resolving the name, where that is set.
    #[must_use]
    pub fn direct(&self) -> Option<SocketAddr> {
        self.direct
    }

    /// `None` before the first handshake, and without TLS.
    #[must_use]
    pub fn seen_certificate(&self) -> Option<SeenCertificate> {
        // Replaced whole.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom proofs are for.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// # Errors
    /// Names the step that failed.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let (host, port) = (self.origin.host(), self.origin.port());
        let address = self.origin.authority().to_owned();
        let stream = if let Some(direct) = self.direct {
            tcp(
                "the control plane",
                direct.to_string(),
                TcpStream::connect(direct),
            )
            .await?
        } else if let Some(proxy) = &self.proxy {
            let to = (proxy.host(), proxy.port());
            let mut stream = tcp("the proxy", proxy.address(), TcpStream::connect(to)).await?;
            within(
                "the proxy",
                proxy.address(),
                proxy::tunnel(&mut stream, proxy, host, port),
            )
            .await??;
            stream
        } else {
            tcp(
                "the control plane",
                address.clone(),
                TcpStream::connect((host, port)),
            )
            .await?
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "The connection stays without TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|_| {
            ConnectError::ServerName {
                host: host.to_owned(),
            }
        })?;
        let stream = within(
            "the control plane",
            address.clone(),
            tls.connect(name, stream),
        )
        .await?
        .map_err(|source| tls::connect_error(address, source))?;
        let (_, session) = stream.get_ref();
        let own = session.peer_certificates().and_then(<[_]>::first);
        if let Some(not_after) = own.and_then(tls_roots::not_after) {
            let at = Instant::now();
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(SeenCertificate { not_after, at });
        }
        Ok(Box::new(stream))
    }
}

async fn tcp(
    what: &'static str,
    address: String,
    connect: impl Future<Output = io::Result<TcpStream>>,
) -> Result<TcpStream, ConnectError> {
    within(what, address.clone(), connect)
        .await?
        .map_err(|source| ConnectError::Tcp {
            what,
            address,
            source,
        })
}

async fn within<T>(
    what: &'static str,
    address: String,
    step: impl Future<Output = T>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(STEP_LIMIT, step)
        .await
        .map_err(|_| ConnectError::TooLong { what, address })
}
