//! A gateway, the control plane it listens to, and the app behind it.

use crate::ssh_server::SshServer;
use camino::Utf8PathBuf;
use daemon::{Lifecycle, SystemClock};
use futures_util::{SinkExt as _, StreamExt as _, future::BoxFuture};
use gateway::{
    Authorized, Dial, DialError, Gateway, GatewayConfig, Listen, SshConfig, Target, Upstream,
};
use jiff::{SignedDuration, Timestamp};
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{
    cell::Cell,
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tls_server::{Names, ServedCertificate, Source};
use token::SigningKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};
use uuid::Uuid;
use wire::{
    agent::ListeningPort,
    gateway::{
        GRANT_PURPOSE, GrantClaims, PortSet, Revocation, RevokedSubject, Route, SUBPROTOCOL,
        ToGateway,
    },
    gitspace::GitspaceState,
    runner::DialTarget,
    secret::Secret,
};

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const SLUG: &str = "demo-ab12cd";
pub(crate) const HOST: &str = "8000--demo-ab12cd.localhost:7080";
pub(crate) const ORIGIN: &str = "http://8000--demo-ab12cd.localhost:7080";
pub(crate) const TOKEN: &str = "gateway-token-canary";

pub(crate) fn uuid<K: TypedUuidKind>(n: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(Uuid::from_u128(n))
}

/// Waits for `what`, and fails by name.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// What the app got, and how often it was dialled.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) dials: AtomicUsize,
    pub(crate) sent: AtomicUsize,
    /// Of its own way.
    pub(crate) probes: AtomicUsize,
    /// SSH keys and access tokens that are registered, as they are sent.
    pub(crate) credentials: Mutex<BTreeSet<String>>,
    /// Seconds that a grant for SSH lasts, where it is not ten minutes.
    pub(crate) grant_life: AtomicUsize,
    /// How often the start of the gitspace was asked for.
    pub(crate) woken: AtomicUsize,
    /// And not only come to.
    pub(crate) asked_for: AtomicUsize,
    pub(crate) refuses_to_wake: AtomicBool,
    /// Whether the control plane gives next grants, and how often it did.
    pub(crate) renews: AtomicBool,
    pub(crate) renewed: AtomicUsize,
    /// What the control plane was asked about SSH.
    pub(crate) asked: Mutex<Vec<serde_json::Value>>,
    /// The first thing it heard.
    pub(crate) hello: Mutex<String>,
    /// What the control plane heard after the hello.
    pub(crate) said: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

thread_local! {
    static OVER_TLS: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test whose gateways end TLS: what its clients send and read is carried through a TLS connection each.
pub(crate) fn over_tls(test: fn()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            OVER_TLS.set(false);
        }
    }
    OVER_TLS.set(true);
    let _reset = Reset;
    test();
}

/// What a gateway shows, and whom its clients trust.
struct Tls {
    _guard: tempfile::TempDir,
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Tls {
    fn if_wanted() -> Option<Self> {
        OVER_TLS.get().then(|| {
            let guard = tempfile::tempdir().unwrap();
            let served = ServedCertificate::open(
                Source::PrivateCa,
                Names::default().below(&"https://gitspaces.localhost".parse().unwrap()),
                camino::Utf8Path::from_path(guard.path()),
                Arc::new(SystemClock),
            )
            .unwrap();
            Self {
                _guard: guard,
                server: served.server_config().unwrap(),
                client: served.own_client_config().unwrap(),
            }
        })
    }

    async fn carry(self, clear: TcpListener, gateway: SocketAddr) {
        let mut open = JoinSet::new();
        loop {
            let (mut plain, _) = clear.accept().await.unwrap();
            let connector = TlsConnector::from(self.client.clone());
            open.spawn(async move {
                let stream = TcpStream::connect(gateway).await?;
                let name = "demo.gitspaces.localhost".try_into().unwrap();
                let mut stream = connector.connect(name, stream).await?;
                tokio::io::copy_bidirectional(&mut plain, &mut stream).await
            });
        }
    }
}

struct Loopback {
    app: SocketAddr,
    ssh: SocketAddr,
    seen: Arc<Seen>,
}

impl Dial for Loopback {
    fn has(&self, delegate: wire::ids::DelegateUuid) -> Option<bool> {
        Some(delegate == uuid(3))
    }

    fn probe(
        &self,
        _: Vec<(wire::ids::GitspaceUuid, wire::ids::DelegateUuid)>,
    ) -> BoxFuture<'_, wire::control::ProbeReport> {
        self.seen.probes.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(wire::control::ProbeReport::default()))
    }

    fn dial(&self, target: Authorized<Target>) -> BoxFuture<'_, Result<Upstream, DialError>> {
        Box::pin(async move {
            assert_eq!(target.get().gitspace, uuid(7));
            match target.get().to {
                DialTarget::Port(8000) | DialTarget::Workspace => {}
                DialTarget::Ssh => {
                    self.seen.dials.fetch_add(1, Ordering::SeqCst);
                    return TcpStream::connect(self.ssh)
                        .await
                        .map(Upstream::Tcp)
                        .map_err(|error| DialError::Unreachable {
                            cause: error.to_string(),
                        });
                }
                DialTarget::Port(8002) => return Err(DialError::NotRunning),
                DialTarget::Port(8003) => {
                    return Err(DialError::Unreachable {
                        cause: "the delegate <is> away".to_owned(),
                    });
                }
                DialTarget::Port(_) => {
                    return Err(DialError::PortClosed {
                        listening: vec![ListeningPort {
                            port: 8000,
                            address: "127.0.0.1".to_owned(),
                            process: Some("node".to_owned()),
                            pid: None,
                            forwarded: false,
                        }],
                    });
                }
            }
            self.seen.dials.fetch_add(1, Ordering::SeqCst);
            let stream =
                TcpStream::connect(self.app)
                    .await
                    .map_err(|error| DialError::Unreachable {
                        cause: error.to_string(),
                    })?;
            Ok(Upstream::Tcp(stream))
        })
    }
}

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) ssh: SocketAddr,
    pub(crate) ssh_server: Arc<SshServer>,
    /// For files of a test.
    dir: tempfile::TempDir,
    pub(crate) seen: Arc<Seen>,
    pub(crate) key: SigningKey,
    /// Messages for the gateway; `None` cuts the link.
    pub(crate) tell: mpsc::Sender<Option<ToGateway>>,
    lifecycle: Lifecycle,
    _work: JoinSet<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.lifecycle.kill_token().cancel();
    }
}

pub(crate) fn route(state: GitspaceState, reachable: bool) -> Route {
    Route {
        slug: SLUG.parse().unwrap(),
        gitspace: uuid(7),
        name: "demo".to_owned(),
        state,
        reachable,
        delegate: Some(uuid(3)),
        error: None,
        phase: None,
        owner: "ada".to_owned(),
        shared: Vec::new(),
    }
}

pub(crate) fn snapshot(key: &SigningKey) -> ToGateway {
    ToGateway::Snapshot {
        gateway: uuid(1),
        keys: vec![key.public().to_string()],
        authorize_url: "http://localhost:7070/authorize".to_owned(),
        routes: vec![route(GitspaceState::Running, true)],
        revocations: Vec::new(),
        probes: true,
        wakes: false,
        starts: true,
    }
}

impl World {
    /// With a link to the control plane that is up.
    pub(crate) async fn start() -> Self {
        let world = Self::start_unconnected("http://localhost:7080").await;
        world.tell.send(Some(snapshot(&world.key))).await.unwrap();
        world.until_connected().await;
        world
    }

    pub(crate) async fn start_unconnected(public_url: &str) -> Self {
        let mut work = JoinSet::new();
        let seen = Arc::new(Seen::default());
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app_address = app.local_addr().unwrap();
        work.spawn(crate::harness::app(app, seen.clone()));
        let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control_address = control.local_addr().unwrap();
        let (tell, told) = mpsc::channel(16);
        let key = SigningKey::generate().unwrap();
        let grant = token::sign(&claims(), &key, GRANT_PURPOSE).unwrap();
        work.spawn(control_plane(
            control,
            told,
            grant,
            key.clone(),
            seen.clone(),
        ));
        let ssh_server = SshServer::new();
        let ssh = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ssh_address = ssh.local_addr().unwrap();
        work.spawn(Arc::clone(&ssh_server).serve(ssh));
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls::if_wanted();
        let gateway = Gateway::build(
            GatewayConfig {
                listen: Listen::Address("127.0.0.1:0".parse().unwrap()),
                tls: tls.as_ref().map(|tls| tls.server.clone()),
                public_url: public_url.parse().unwrap(),
                control_plane_url: "http://control.invalid:1".parse().unwrap(),
                gateway_token: Secret::new(TOKEN),
                control_connect: Some(control_address),
                control_tls: None,
                ssh: Some(SshConfig {
                    listen: Listen::Address("127.0.0.1:0".parse().unwrap()),
                    host_key: Utf8PathBuf::from_path_buf(dir.path().join("host_key")).unwrap(),
                    passwords: true,
                    post_quantum_only: false,
                    public_port: None,
                }),
                tunnels: Some(public_url.parse().unwrap()),
            },
            Some(Arc::new(Loopback {
                app: app_address,
                ssh: ssh_address,
                seen: seen.clone(),
            })),
            Arc::new(SystemClock),
        )
        .unwrap();
        let ssh = gateway.ssh_addr().unwrap();
        let mut address = gateway.local_addr();
        if let Some(tls) = tls {
            let clear = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let outside = std::mem::replace(&mut address, clear.local_addr().unwrap());
            work.spawn(tls.carry(clear, outside));
        }
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        gateway.start(&lifecycle);
        Self {
            address,
            ssh,
            ssh_server,
            dir,
            seen,
            key,
            tell,
            lifecycle,
            _work: work,
        }
    }

    /// A path for a file of the test's own.
    pub(crate) fn file(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    /// As the service manager tells it to stop.
    pub(crate) fn drain(&self) {
        self.lifecycle.drain_token().cancel();
    }

    pub(crate) async fn until_connected(&self) {
        within("the snapshot", async {
            while self.get("/", "").await.starts_with("HTTP/1.1 503") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Sends a message and waits until it has had its effect on a request.
    pub(crate) async fn tell_until(&self, message: ToGateway, head: &str, wanted: &str) {
        self.tell.send(Some(message)).await.unwrap();
        within(wanted, async {
            while !self.get("/", head).await.starts_with(wanted) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn sign(&self, claims: &GrantClaims) -> String {
        token::sign(claims, &self.key, GRANT_PURPOSE).unwrap()
    }

    pub(crate) fn grant(&self) -> String {
        self.sign(&claims())
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads all until the gateway closes.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // It may close before it has read everything.
        drop(stream.write_all(request.as_ref()).await);
        let mut answer = Vec::new();
        within("an answer", stream.read_to_end(&mut answer))
            .await
            .ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// GET with more lines in the head.
    pub(crate) async fn get(&self, path: &str, head: &str) -> String {
        self.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{head}\r\n"
        ))
        .await
    }

    pub(crate) async fn granted(&self, path: &str, head: &str) -> String {
        let grant = self.grant();
        self.get(path, &format!("gitspaces-grant: {grant}\r\n{head}"))
            .await
    }
}

pub(crate) fn claims() -> GrantClaims {
    let now = Timestamp::now();
    GrantClaims {
        id: uuid(5),
        gateway: uuid(1),
        gitspace: uuid(7),
        slug: SLUG.parse().unwrap(),
        user: uuid(9),
        ports: PortSet::All {},
        workspace: true,
        is_guest: false,
        iat: now - SignedDuration::from_secs(1),
        exp: now + SignedDuration::from_secs(600),
        until: None,
    }
}

pub(crate) fn revoke_user() -> ToGateway {
    ToGateway::Revoked {
        revocation: Revocation {
            subject: RevokedSubject::User { user: uuid(9) },
            before: Timestamp::now(),
        },
    }
}

/// Reads one message up to its empty line.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn control_plane(
    listener: TcpListener,
    mut told: mpsc::Receiver<Option<ToGateway>>,
    grant: String,
    key: SigningKey,
    seen: Arc<Seen>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut start = [0_u8; 4];
        if stream.peek(&mut start).await.unwrap_or(0) == 0 {
            continue;
        }
        if &start == b"POST" {
            post(&mut stream, &grant, &key, &seen).await;
            continue;
        }
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/api/v1/gateways/connect");
            assert_eq!(
                request.headers()["authorization"],
                format!("Bearer {TOKEN}")
            );
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            response
                .headers_mut()
                .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, check)
            .await
            .unwrap();
        let hello = socket.next().await.unwrap().unwrap();
        assert!(
            hello.to_text().unwrap().contains("\"localhost\""),
            "{hello}"
        );
        *seen.hello.lock().unwrap() = hello.to_text().unwrap().to_owned();
        loop {
            tokio::select! {
                message = told.recv() => match message {
                    Some(Some(message)) => {
                        let text = serde_json::to_string(&message).unwrap();
                        socket.send(Message::text(text)).await.unwrap();
                    }
                    Some(None) | None => break,
                },
                // Pings are answered while it is polled.
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        seen.said.lock().unwrap().push(text.as_str().to_owned());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
                accepted = listener.accept() => post(&mut accepted.unwrap().0, &grant, &key, &seen).await,
            }
        }
    }
}

async fn post(stream: &mut TcpStream, grant: &str, key: &SigningKey, seen: &Seen) {
    let head = read_head(stream).await.to_lowercase();
    if head.is_empty() {
        // The gateway has hung up on its client, and on us.
        return;
    }
    assert!(
        head.contains(&format!("authorization: bearer {TOKEN}")),
        "{head}"
    );
    let length: usize = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .unwrap()
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let question: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let (status, body) = match path {
        "/api/v1/gateways/exchange" => exchange(&question, grant),
        "/api/v1/gateways/ssh" => ssh_verdict(&question, key, seen),
        "/api/v1/gateways/wake" => wake(&question, seen),
        "/api/v1/gateways/renew" => renew(&question, key, seen),
        other => panic!("{other} was asked"),
    };
    let body = body.to_string();
    // The gateway may have hung up on its client, and on us, meanwhile.
    stream
        .write_all(
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        )
        .await
        .ok();
}

/// As the control plane answers, where it renews.
fn renew(
    question: &serde_json::Value,
    key: &SigningKey,
    seen: &Seen,
) -> (&'static str, serde_json::Value) {
    let now = Timestamp::now();
    let grant = question["grant"].as_str().unwrap();
    let old: GrantClaims = token::verify(grant, [key.public()], GRANT_PURPOSE, now).unwrap();
    if !seen.renews.load(Ordering::SeqCst) {
        let problem = wire::problem::Problem::new("grant_refused", "the grant is not taken");
        return ("404 Not Found", serde_json::to_value(problem).unwrap());
    }
    seen.renewed.fetch_add(1, Ordering::SeqCst);
    let exp = now + SignedDuration::from_secs(3600);
    let next = GrantClaims {
        iat: now,
        exp,
        ..old
    };
    let next = token::sign(&next, key, GRANT_PURPOSE).unwrap();
    ("200 OK", serde_json::json!({ "grant": next }))
}

/// As the control plane answers. The route that says so comes from the test.
fn wake(question: &serde_json::Value, seen: &Seen) -> (&'static str, serde_json::Value) {
    assert!(
        question["grant"]
            .as_str()
            .unwrap()
            .starts_with("v4.public.")
    );
    seen.woken.fetch_add(1, Ordering::SeqCst);
    if question["is_asked_for"] == true {
        seen.asked_for.fetch_add(1, Ordering::SeqCst);
    }
    if seen.refuses_to_wake.load(Ordering::SeqCst) {
        let problem = wire::problem::Problem::new("not_woken", "the gitspace is not started")
            .cause("it failed");
        return ("409 Conflict", serde_json::to_value(problem).unwrap());
    }
    ("200 OK", serde_json::json!({"state": "starting"}))
}

/// As the control plane answers: ada has every registered credential, and the gitspace `demo`.
fn ssh_verdict(
    question: &serde_json::Value,
    key: &SigningKey,
    seen: &Seen,
) -> (&'static str, serde_json::Value) {
    seen.asked.lock().unwrap().push(question.clone());
    let credential = &question["credential"];
    let text = match credential["by"].as_str().unwrap() {
        "key" => credential["key"].as_str().unwrap(),
        "token" => credential["token"].as_str().unwrap(),
        other => panic!("{other}"),
    };
    if !seen.credentials.lock().unwrap().contains(text) {
        return (
            "404 Not Found",
            serde_json::json!({"code": "ssh_refused", "message": "the SSH credential is not taken"}),
        );
    }
    if question["proven"] == false {
        return ("200 OK", serde_json::json!({}));
    }
    let mut verdict = serde_json::json!({"user": claims().user, "user_name": "ada"});
    let wanted = question["gitspace"].as_str().unwrap_or_default();
    if wanted == "demo" || wanted == SLUG {
        let mut claims = claims();
        let life = seen.grant_life.load(Ordering::SeqCst);
        if life > 0 {
            claims.exp = Timestamp::now() + SignedDuration::from_secs(i64::try_from(life).unwrap());
        }
        verdict["grant"] = serde_json::json!({
            "grant": token::sign(&claims, key, GRANT_PURPOSE).unwrap(),
            "exp": claims.exp,
            "slug": claims.slug,
        });
    }
    ("200 OK", verdict)
}

/// Takes the code `good`, and `path=X` as one that returns to X.
fn exchange(question: &serde_json::Value, grant: &str) -> (&'static str, serde_json::Value) {
    assert_eq!(question["slug"], SLUG);
    assert_eq!(question["port"], 8000);
    let code = question["code"].as_str().unwrap();
    let return_to = match code {
        "good" => Some("/x?y=z"),
        other => other.strip_prefix("path="),
    };
    match return_to {
        Some(return_to) => (
            "200 OK",
            serde_json::json!({
                "grant": grant,
                "exp": Timestamp::now() + SignedDuration::from_secs(600),
                "return_to": return_to,
            }),
        ),
        None => (
            "403 Forbidden",
            serde_json::json!({"code": "code_used", "message": "the code was used"}),
        ),
    }
}

async fn app(listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(app_connection(stream, seen.clone()));
    }
}

/// One connection of the app: what it does is in the path.
async fn app_connection(mut stream: TcpStream, seen: Arc<Seen>) {
    loop {
        let head = read_head(&mut stream).await;
        if head.is_empty() {
            return;
        }
        seen.bytes
            .lock()
            .unwrap()
            .extend_from_slice(head.as_bytes());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let lower = head.to_ascii_lowercase();
        if lower.contains("\r\nupgrade:") && path != "/refuse" {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
                .await
                .unwrap();
            echo(&mut stream, &seen).await;
            return;
        }
        match path.as_str() {
            "/endless" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
                let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {
                    seen.sent.fetch_add(0x4000, Ordering::SeqCst);
                }
                return;
            }
            "/never" => {
                // Ends when the gateway goes away.
                let mut byte = [0];
                drop(stream.read(&mut byte).await);
                seen.bytes.lock().unwrap().extend_from_slice(b"[gone]");
                return;
            }
            "/close" => return,
            "/once" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                return;
            }
            "/interim" => stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap(),
            "/trailers" => stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n").await.unwrap(),
            "/until-end" => {
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await.unwrap();
                return;
            }
            "/nul" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1;\0Domain=localhost\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                return;
            }
            "/garbage" => {
                stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
                return;
            }
            "/events" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await.unwrap();
                let mut byte = [0];
                drop(stream.read(&mut byte).await);
                return;
            }
            _ => {
                if lower.contains("\r\nexpect: 100-continue\r\n") {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                }
                let body = read_body(&mut stream, &lower).await;
                seen.bytes.lock().unwrap().extend_from_slice(&body);
                let answer = [head.as_bytes(), &body].concat();
                let set = "Set-Cookie: app=1\r\nSet-Cookie: gitspaces-grant=forged; Domain=localhost\r\n";
                // What it is asked to say in its head, it says.
                let said: String = head.split_inclusive("\r\n").filter_map(|line| line.strip_prefix("X-Say: ")).collect();
                let answer_head = format!("HTTP/1.1 200 OK\r\n{set}{said}Content-Length: {}\r\n\r\n", answer.len());
                stream.write_all(answer_head.as_bytes()).await.unwrap();
                if !lower.starts_with("head ") {
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
        if lower.contains(" http/1.0\r\n") {
            return;
        }
    }
}

async fn read_body(stream: &mut TcpStream, head: &str) -> Vec<u8> {
    let field = |name: &str| {
        head.split("\r\n")
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length:") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).await.unwrap();
    } else if field("transfer-encoding:").is_some() {
        while !body.ends_with(b"0\r\n\r\n") && !body.ends_with(b"\r\nx-t: 1\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            body.push(byte[0]);
        }
    }
    body
}

async fn echo(stream: &mut TcpStream, seen: &Seen) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        seen.bytes
            .lock()
            .unwrap()
            .extend_from_slice(&buffer[..read]);
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
