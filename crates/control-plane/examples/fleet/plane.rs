//! The control plane that is measured: a process of its own.

use crate::gateway;
use axum::body::Body;
use camino::Utf8PathBuf;
use control_plane::{ControlPlane, ControlPlaneConfig, Deps};
use daemon::{Lifecycle, RandomIds, SystemClock};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{net::Ipv4Addr, process::Stdio, sync::Arc, time::Duration};
use token::SigningKey;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use tower::ServiceExt as _;
use wire::{
    control::{ENROL_PURPOSE, EnrolClaims},
    ids::DelegateUuid,
};

/// Of one join token.
const USES: usize = 10_000;
/// Calls at once.
const CALLS: usize = 32;

/// Where a control plane is, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    pub(crate) dir: Utf8PathBuf,
    pub(crate) port: u16,
    pub(crate) heartbeat: Duration,
}

pub(crate) struct Enrolled {
    pub(crate) id: DelegateUuid,
    pub(crate) key: SigningKey,
}

impl Plane {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn build(&self) -> ControlPlane {
        let mut config = ControlPlaneConfig::new(&self.dir);
        config.listen = (Ipv4Addr::LOCALHOST, self.port).into();
        config.public_url = self.url();
        config.delegate_heartbeat_ms =
            u64::try_from(self.heartbeat.as_millis()).expect("not that long");
        let deps = Deps {
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            listener: None,
            seal_key: None,
            tls: None,
        };
        Box::pin(ControlPlane::build(config, deps)).await.unwrap()
    }

    /// As a daemon does, until it is killed.
    pub(crate) async fn serve(&self) {
        let mut plane = self.build().await;
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        plane.start(&lifecycle).unwrap();
        let token = plane.embedded_gateway().await.unwrap().token;
        let gateway = gateway::stay(self.port, token, lifecycle.drain_token());
        lifecycle.spawn("gateway", gateway);
        lifecycle.run().await;
    }

    /// Enrols delegates before anything is measured.
    pub(crate) async fn enrol(&self, count: usize) -> Vec<Enrolled> {
        let mut plane = self.build().await;
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        plane.start(&lifecycle).unwrap();
        let router = plane.router();
        let admin = self.admin_token();
        let mut enrolled = Vec::with_capacity(count);
        while enrolled.len() < count {
            let body = json!({"uses": USES});
            let made = call(&router, &admin, "/join-tokens", body).await;
            let join = made["token"].as_str().unwrap();
            let last = count.min(enrolled.len() + USES);
            let more = stream::iter(enrolled.len()..last)
                .map(|number| enrol(&router, join, self.url(), number))
                .buffered(CALLS)
                .collect::<Vec<_>>();
            enrolled.extend(more.await);
        }
        lifecycle.kill_token().cancel();
        lifecycle.run().await;
        enrolled
    }

    pub(crate) fn admin_token(&self) -> String {
        let token = std::fs::read_to_string(self.dir.join("admin-token")).unwrap();
        token.trim().to_owned()
    }

    /// A process of its own; answers when it listens.
    pub(crate) async fn start(&self) -> Process {
        let arguments = [
            "serve".to_owned(),
            self.dir.to_string(),
            self.port.to_string(),
            self.heartbeat.as_millis().to_string(),
        ];
        Process::start(&arguments, self.port).await
    }
}

/// This program once more, in another part.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
}

impl Process {
    pub(crate) async fn start(arguments: &[String], port: u16) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().expect("runs");
        let listens = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listens)
            .await
            .expect("listens");
        Self { child, pid }
    }

    /// As `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Memory that is its own, in KiB.
    pub(crate) fn user_memory(&self) -> f64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .map(|line| number(line.split_whitespace().nth(1)))
            .sum()
    }

    /// Seconds of a core, user and system.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let (_, after_name) = text.rsplit_once(')').unwrap();
        let fields: Vec<_> = after_name.split_whitespace().collect();
        // Ticks of a hundredth.
        (number(fields.get(11).copied()) + number(fields.get(12).copied())) / 100.0
    }
}

fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok()).expect("a number")
}

async fn call(router: &axum::Router, token: &str, path: &str, body: Value) -> Value {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/v1{path}"))
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

async fn enrol(router: &axum::Router, join: &str, url: String, number: usize) -> Enrolled {
    let key = SigningKey::generate().unwrap();
    let name = format!("host-{number}");
    let now = Timestamp::now();
    let claims = EnrolClaims {
        audience: url,
        name: name.clone(),
        iat: now,
        exp: now + Duration::from_secs(60),
    };
    let proof = token::sign(&claims, &key, ENROL_PURPOSE).unwrap();
    let public = key.public().to_string();
    let body =
        json!({"join_token": join, "name": name, "tags": [], "public_key": public, "proof": proof});
    let made = call(router, "", "/delegates/enroll", body).await;
    let id = made["delegate"].as_str().unwrap().parse().unwrap();
    Enrolled { id, key }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
