//! Connections on their way in: accepted, and where TLS ends here, through the handshake.
//!
//! Whoever takes them from a [`Door`] has a connection that can be served. A handshake is a task of the door's own; there are
//! [`MAX_HANDSHAKES`] at a time, and the one that has taken longest gives way to the next: it takes milliseconds where nobody plays for time.

use rustls::ServerConfig;
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Each may hold up to 64 KiB of a client's greeting.
const MAX_HANDSHAKES: usize = 512;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A connection to serve.
#[derive(Debug)]
pub enum Incoming {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Incoming {
    /// The socket, for its options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A listener and what is in its handshakes. Dropping it ends both.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    tls: Option<Handshakes>,
}

impl Door {
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            listener,
            tls: tls.map(Handshakes::new),
        }
    }

    /// The next connection. Can be cancelled and called again: nothing is lost.
    ///
    /// # Errors
    /// As the system says it of `accept`.
    pub async fn next(&mut self) -> io::Result<(Incoming, SocketAddr)> {
        let Some(handshakes) = &mut self.tls else {
            let (stream, peer) = self.listener.accept().await?;
            return Ok((Incoming::Plain(stream), peer));
        };
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, peer) = accepted?;
                    handshakes.begin(stream, peer);
                }
                Some(done) = handshakes.open.join_next() => {
                    // One that panicked or gave way is one connection less.
                    if let Ok(Some((stream, peer))) = done {
                        return Ok((Incoming::Tls(stream), peer));
                    }
                }
            }
        }
    }
}

type Shaken = Option<(Box<TlsStream<TcpStream>>, SocketAddr)>;

struct Handshakes {
    acceptor: TlsAcceptor,
    open: JoinSet<Shaken>,
    /// In the order in which they began.
    order: VecDeque<AbortHandle>,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes")
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

impl Handshakes {
    fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            acceptor: config.into(),
            open: JoinSet::new(),
            order: VecDeque::new(),
        }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        while let Some(oldest) = self.order.front() {
            if !oldest.is_finished() {
                if self.order.len() < MAX_HANDSHAKES {
                    break;
                }
                oldest.abort();
            }
            self.order.pop_front();
        }
        let accept = self.acceptor.accept(stream);
        let handle = self.open.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_LIMIT, accept).await {
                Ok(Ok(stream)) => Some((Box::new(stream), peer)),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "Handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(%peer, "Handshake took too long");
                    None
                }
            }
        });
        self.order.push_back(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Names, ServedCertificate, Source};
    use daemon::SystemClock;
    use rustls::ClientConfig;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    struct Bench {
        _guard: tempfile::TempDir,
        door: Door,
        address: SocketAddr,
        client: Arc<ClientConfig>,
        clients: JoinSet<io::Result<u8>>,
    }

    impl Bench {
        async fn new() -> Self {
            let guard = tempfile::tempdir().unwrap();
            let names = Names::default().below(&"https://gs.localhost".parse().unwrap());
            let served = ServedCertificate::open(
                Source::PrivateCa,
                names,
                camino::Utf8Path::from_path(guard.path()),
                Arc::new(SystemClock),
            )
            .unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let door = Door::new(listener, Some(served.server_config().unwrap()));
            Self {
                _guard: guard,
                door,
                address,
                client: served.own_client_config().unwrap(),
                clients: JoinSet::new(),
            }
        }

        /// Connects as somebody who means it, and says one byte.
        fn connect(&mut self) {
            let (address, client) = (self.address, self.client.clone());
            self.clients.spawn(async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("x.gs.localhost").map_err(io::Error::other)?;
                let mut stream = TlsConnector::from(client).connect(name, stream).await?;
                stream.write_all(b"!").await?;
                stream.read_u8().await
            });
        }

        async fn answered(&mut self) -> u8 {
            self.clients.join_next().await.unwrap().unwrap().unwrap()
        }

        async fn serve_one(&mut self) {
            let (incoming, _) = self.door.next().await.unwrap();
            let Incoming::Tls(mut stream) = incoming else {
                panic!("plain");
            };
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            stream.write_all(b"?").await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    #[tokio::test]
    async fn silent_clients_keep_nobody_out_however_many_they_are() {
        let mut bench = Bench::new().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_HANDSHAKES + 50 {
            silent.push(TcpStream::connect(bench.address).await.unwrap());
            // Else the kernel's queue is what is full.
            tokio::select! {
                biased;
                _ = bench.door.next() => panic!("nobody shook hands"),
                () = tokio::task::yield_now() => {}
            }
        }
        bench.connect();
        bench.serve_one().await;
        assert_eq!(bench.answered().await, b'?');
        let open = bench.door.tls.as_ref().map(|tls| tls.order.len());
        assert!(open <= Some(MAX_HANDSHAKES), "{open:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_does_not_end_is_ended() {
        let mut bench = Bench::new().await;
        let mut silent = TcpStream::connect(bench.address).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            _ = bench.door.next() => panic!("nobody shook hands"),
            read = silent.read(&mut byte) => assert_eq!(read.unwrap(), 0, "closed"),
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_is_turned_away_and_the_next_one_served() {
        let mut bench = Bench::new().await;
        let mut plain = TcpStream::connect(bench.address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        bench.connect();
        bench.serve_one().await;
        assert_eq!(bench.answered().await, b'?');
        let mut rest = Vec::new();
        drop(plain.read_to_end(&mut rest).await);
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
}
