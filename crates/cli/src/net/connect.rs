//! One connection: address, TCP, TLS.

use super::{
    RequestError,
    origin::{Origin, is_localhost},
    tls,
};
use bytes::Bytes;
use camino::Utf8PathBuf;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Host;

/// For the name, one address, and TLS each.
const STEP_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Connector {
    ca_file: Option<Utf8PathBuf>,
    tls: OnceLock<Arc<ClientConfig>>,
}

/// A host that is gone is noticed after about a minute, also where nothing is on its way.
const KEEPALIVE_IDLE_S: u32 = 20;
const KEEPALIVE_PERIOD_S: u32 = 10;
const KEEPALIVE_PROBES: u32 = 4;
const UNACKNOWLEDGED_MS: u32 = 60_000;

fn set_options(tcp: &TcpStream) -> io::Result<()> {
    // Keys typed in a shell must not wait for the answer to the last one.
    tcp.set_nodelay(true)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &KEEPALIVE_PERIOD_S)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(tcp, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
    Ok(())
}

impl Connector {
    pub(crate) const fn new(ca_file: Option<Utf8PathBuf>) -> Self {
        Self {
            ca_file,
            tls: OnceLock::new(),
        }
    }

    pub(crate) async fn connect(&self, origin: &Origin) -> Result<Stream, RequestError> {
        let tcp = dial(origin).await?;
        set_options(&tcp).map_err(|source| RequestError::Connect {
            url: origin.to_string(),
            source,
        })?;
        if !origin.https {
            return Ok(Line::Plain(tcp).into());
        }
        let fail = |source| RequestError::Tls {
            url: origin.to_string(),
            source,
        };
        let name = match &origin.host {
            Host::Domain(name) => {
                ServerName::try_from(name.clone()).map_err(|error| fail(io::Error::other(error)))?
            }
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
        };
        let connector = TlsConnector::from(self.tls_config()?);
        match timeout(STEP_LIMIT, connector.connect(name, tcp)).await {
            Ok(stream) => Ok(Line::Tls(Box::new(stream.map_err(fail)?)).into()),
            Err(_) => Err(fail(io::ErrorKind::TimedOut.into())),
        }
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, RequestError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = tls::config(self.ca_file.as_ref())?;
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

async fn dial(origin: &Origin) -> Result<TcpStream, RequestError> {
    let mut last: io::Error = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses(origin).await? {
        match timeout(STEP_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(RequestError::Connect {
        url: origin.to_string(),
        source: last,
    })
}

async fn addresses(origin: &Origin) -> Result<Vec<SocketAddr>, RequestError> {
    let ip = |ip: IpAddr| SocketAddr::new(ip, origin.port);
    let name = match &origin.host {
        Host::Ipv4(address) => return Ok(vec![ip(IpAddr::V4(*address))]),
        Host::Ipv6(address) => return Ok(vec![ip(IpAddr::V6(*address))]),
        Host::Domain(name) if is_localhost(name) => {
            return Ok(vec![
                ip(Ipv4Addr::LOCALHOST.into()),
                ip(Ipv6Addr::LOCALHOST.into()),
            ]);
        }
        Host::Domain(name) => name,
    };
    let fail = |source| RequestError::Resolve {
        host: name.clone(),
        source,
    };
    let found = timeout(
        STEP_LIMIT,
        tokio::net::lookup_host((name.as_str(), origin.port)),
    )
    .await
    .map_err(|_| fail(io::ErrorKind::TimedOut.into()))?
    .map_err(fail)?;
    Ok(found.collect())
}

/// A connected stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Read already; comes first.
    ahead: Bytes,
    line: Line,
}

#[derive(Debug)]
enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The same, with something read from it put back.
    pub(crate) fn after(mut self, ahead: Bytes) -> Self {
        self.ahead = ahead;
        self
    }
}

impl From<Line> for Stream {
    fn from(line: Line) -> Self {
        Self {
            ahead: Bytes::new(),
            line,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        match &mut this.line {
            Line::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Line::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().line {
            Line::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Line::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().line {
            Line::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Line::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().line {
            Line::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Line::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
