//! Ways out of this host to the control plane: direct, through an HTTP proxy, and TLS over either.

mod certificate;
mod connect_error;
mod proxy;

pub use certificate::CertificateFault;
pub use connect_error::{ConnectError, Peer};
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
use tokio_rustls::{TlsConnector, client::TlsStream};

/// For each step: a name and an address, a proxy's answer, a handshake.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// For a look at what went wrong: whoever waits has waited already.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// A byte stream to the control plane, or to a gateway.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// What it lies on.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Why there is no way to the control plane at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot connect by TLS")]
    Tls {
        #[source]
        source: TlsError,
    },
    #[error("cannot tell which proxy leads there")]
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

/// The certificate that the control plane, or what stands before it, showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCertificate {
    pub not_after: Timestamp,
    /// When the handshake was.
    pub at: Instant,
}

/// How to reach one control plane, or one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    peer: Peer,
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
            peer: Peer::ControlPlane,
            origin,
            proxy: proxy.map(Arc::new),
            tls,
            seen: Arc::default(),
            direct: None,
        })
    }

    /// It leads to a gateway, which is what errors say.
    #[must_use]
    pub fn to_gateway(self) -> Self {
        Self {
            peer: Peer::Gateway,
            ..self
        }
    }

    /// To a control plane in this process, which ends TLS itself where `tls` says so, and else listens on plain HTTP whatever stands in front
    /// of it.
    #[must_use]
    pub fn embedded(
        origin: Origin,
        listen: SocketAddr,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Self {
        let direct = if listen.ip().is_unspecified() {
            SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, listen.port()))
        } else {
            listen
        };
        Self {
            peer: Peer::ControlPlane,
            origin,
            proxy: None,
            tls: tls.map(TlsConnector::from),
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

    /// Whether something that does not answer as an HTTP server speaks TLS instead. Asked only where something went wrong: it takes a
    /// connection of its own, which carries nothing.
    pub async fn is_tls_after_all(&self) -> bool {
        if self.tls.is_some() || self.direct.is_some() {
            return false;
        }
        // It trusts nobody: a handshake that gets as far as a certificate, or an alert, is all that is asked for.
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map(|config| {
            config
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
        });
        let Ok(config) = config else {
            return false;
        };
        let with_tls = Self {
            tls: Some(TlsConnector::from(Arc::new(config))),
            seen: Arc::default(),
            ..self.clone()
        };
        match tokio::time::timeout(LOOK_LIMIT, with_tls.connect()).await {
            Ok(Ok(_) | Err(ConnectError::Certificate { .. })) => true,
            Ok(Err(ConnectError::Tls { source, .. })) => source
                .get_ref()
                .and_then(|error| error.downcast_ref::<rustls::Error>())
                .is_some_and(|error| matches!(error, rustls::Error::AlertReceived(_))),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// # Errors
    /// Names the step that failed.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let (host, port) = (self.origin.host(), self.origin.port());
        let address = self.origin.authority().to_owned();
        let stream = if let Some(direct) = self.direct {
            let address = direct.to_string();
            tcp(self.peer, address, TcpStream::connect(direct)).await?
        } else if let Some(proxy) = &self.proxy {
            let mut stream =
                dial(Peer::Proxy, proxy.address(), (proxy.host(), proxy.port())).await?;
            within(
                Peer::Proxy,
                proxy.address(),
                proxy::tunnel(&mut stream, proxy, host, port),
            )
            .await??;
            stream
        } else {
            dial(self.peer, address.clone(), (host, port)).await?
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
        let handshake = tls.connect(name, stream);
        let stream = within(self.peer, address.clone(), handshake)
            .await?
            .map_err(|source| ConnectError::of_handshake(self.peer, address, host, source))?;
        let (_, session) = stream.get_ref();
        // That of this process is told as the one served.
        let own = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .filter(|_| self.direct.is_none());
        if let Some(not_after) = own.and_then(tls_roots::not_after) {
            let at = Instant::now();
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(SeenCertificate { not_after, at });
        }
        Ok(Box::new(stream))
    }
}

/// A name that is not known is another matter than one where nobody listens. Each of its addresses is tried.
async fn dial(
    peer: Peer,
    address: String,
    (host, port): (&str, u16),
) -> Result<TcpStream, ConnectError> {
    let fail = |source| ConnectError::Resolve {
        peer,
        host: host.to_owned(),
        source,
    };
    let resolve = tokio::net::lookup_host((host, port));
    let found: Vec<SocketAddr> = within(peer, address.clone(), resolve)
        .await?
        .map_err(fail)?
        .collect();
    tcp(peer, address, TcpStream::connect(found.as_slice())).await
}

async fn tcp(
    peer: Peer,
    address: String,
    connect: impl Future<Output = io::Result<TcpStream>>,
) -> Result<TcpStream, ConnectError> {
    within(peer, address.clone(), connect)
        .await?
        .map_err(|source| ConnectError::Tcp {
            peer,
            address,
            source,
        })
}

async fn within<T>(
    peer: Peer,
    address: String,
    step: impl Future<Output = T>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(STEP_LIMIT, step)
        .await
        .map_err(|_| ConnectError::TooLong { peer, address })
}
