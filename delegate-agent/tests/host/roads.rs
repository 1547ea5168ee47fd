//! What may lie between a delegate and its control plane: a proxy, and TLS.

use daemon::{Clock as _, SystemClock};
use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// One that nothing listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// As certificates take it.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::from_secs(u64::try_from(SystemClock.now().as_second()).unwrap())
}

/// A small real proxy: `CONNECT`, basic credentials, bytes.
pub(crate) struct TestProxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl TestProxy {
    pub(crate) async fn start(credentials: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let wanted = credentials.map(|pair| {
            format!(
                "proxy-authorization: basic {}",
                BASE64.encode(pair.as_bytes())
            )
        });
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&tunnels);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(tunnel(stream, wanted.clone(), Arc::clone(&count)));
            }
        });
        Self {
            address,
            tunnels,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.address)
    }

    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn tunnel(stream: TcpStream, wanted: Option<String>, count: Arc<AtomicUsize>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) <= 2 {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let allowed = wanted.is_none_or(|wanted| {
        head.iter().any(|line| {
            // The value is compared exactly, the name and scheme are not.
            line.len() == wanted.len()
                && line.split(' ').next_back() == wanted.split(' ').next_back()
        })
    });
    if !allowed {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        drop(stream.write_all(answer).await);
        return;
    }
    let mut words = head[0].split(' ');
    assert_eq!(words.next(), Some("CONNECT"));
    let Ok(mut upstream) = TcpStream::connect(words.next().unwrap()).await else {
        drop(stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await);
        return;
    };
    count.fetch_add(1, Ordering::SeqCst);
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        .await
        .unwrap();
    drop(copy_bidirectional(&mut stream, &mut upstream).await);
}

/// A certificate authority nobody else knows.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate ends at the given time.
    pub(crate) fn until(name: &str, not_after: SystemTime) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = not_after.into();
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn acceptor(&self, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Ends TLS for `localhost`, as a load balancer does.
pub(crate) struct TlsFront {
    address: SocketAddr,
    upstream: tokio::sync::watch::Sender<Option<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    pub(crate) async fn bind(authority: &Authority) -> Self {
        Self::bind_with(authority, |_| {}).await
    }

    /// With a certificate that ends.
    pub(crate) async fn bind_until(authority: &Authority, not_after: SystemTime) -> Self {
        Self::bind_with(authority, |params| params.not_after = not_after.into()).await
    }

    /// With another certificate than that of a server for `localhost`.
    pub(crate) async fn bind_with(
        authority: &Authority,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = authority.acceptor(change);
        let (upstream, known) = tokio::sync::watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, mut known) = (acceptor.clone(), known.clone());
                connections.spawn(async move {
                    // A client that does not trust it goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let to = known.wait_for(Option::is_some).await.unwrap().unwrap();
                    let mut upstream = TcpStream::connect(to).await.unwrap();
                    drop(copy_bidirectional(&mut stream, &mut upstream).await);
                });
            }
        });
        Self {
            address,
            upstream,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn forward_to(&self, address: SocketAddr) {
        self.upstream.send_replace(Some(address));
    }
}
