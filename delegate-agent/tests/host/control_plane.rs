//! A whole control plane on a port of its own.

use ::control_plane::{ControlPlane, ControlPlaneConfig, Deps};
use axum::body::Body;
use camino::Utf8PathBuf;
use daemon::{Lifecycle, RandomIds, SystemClock};
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tower::ServiceExt as _;
use wire::secret::Secret;

/// Everything here is done within a second; a busy host gets more.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct TestControlPlane {
    inner: ControlPlane,
    pub(crate) address: SocketAddr,
    url: String,
    token: String,
    lifecycle: Lifecycle,
    _dir: tempfile::TempDir,
}

impl TestControlPlane {
    pub(crate) async fn start() -> Self {
        Self::start_with(None, None).await
    }

    /// Something else stands in front of it.
    pub(crate) async fn start_behind(url: &str) -> Self {
        Self::start_with(Some(url), None).await
    }

    /// Something else stands in front of it, and it hears its delegates so often.
    pub(crate) async fn start_behind_with_heartbeat(url: &str, heartbeat: Duration) -> Self {
        Self::start_with(Some(url), Some(heartbeat)).await
    }

    async fn start_with(url: Option<&str>, heartbeat: Option<Duration>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = Utf8PathBuf::from_path_buf(dir.path().join("state")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = url.map_or_else(
            || format!("http://localhost:{}", address.port()),
            str::to_owned,
        );
        let mut config = ControlPlaneConfig::new(state_dir.clone());
        config.public_url.clone_from(&url);
        if let Some(heartbeat) = heartbeat {
            config.delegate_heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap();
        }
        let deps = Deps {
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            listener: Some(listener),
            seal_key: None,
            tls: None,
        };
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        let mut inner = Box::pin(ControlPlane::build(config, deps)).await.unwrap();
        inner.start(&lifecycle).unwrap();
        let token = std::fs::read_to_string(state_dir.join("admin-token")).unwrap();
        Self {
            inner,
            address,
            url,
            token: token.trim().to_owned(),
            lifecycle,
            _dir: dir,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) async fn join_token(&self) -> Secret {
        self.inner
            .mint_join_token("none that is revoked", "test", Duration::from_secs(60))
            .await
            .unwrap()
    }

    /// For a revoked delegate of this name.
    pub(crate) async fn return_token(&self, name: &str) -> Secret {
        let body = serde_json::json!({ "comment": "test", "delegate": name });
        let made = self.call("POST", "/join-tokens", Some(body)).await;
        Secret::new(made["token"].as_str().unwrap())
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let response = self.inner.router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(status.is_success(), "{method} {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The only one.
    pub(crate) async fn delegate(&self) -> Value {
        self.call("GET", "/delegates", None).await["items"][0].clone()
    }

    pub(crate) async fn revoke(&self) {
        let delegate = self.delegate().await;
        let id = delegate["id"].as_str().unwrap();
        self.call("DELETE", &format!("/delegates/{id}"), None).await;
    }

    pub(crate) async fn create_gitspace(&self) -> String {
        let body = json!({"name": "demo", "repo": {"url": "https://git.example/demo.git"}});
        let made = self.call("POST", "/gitspaces", Some(body)).await;
        made["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn until_gitspace(&self, id: &str, state: &str) {
        let path = format!("/gitspaces/{id}");
        self.until(&path, |gitspace| gitspace["state"] == state)
            .await;
    }

    pub(crate) async fn until_delegate(&self, so: impl Fn(&Value) -> bool) -> Value {
        let id = self.delegate().await["id"].as_str().unwrap().to_owned();
        self.until(&format!("/delegates/{id}"), so).await
    }

    /// Asks until it is so. The time between is the runtime's.
    async fn until(&self, path: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let wait = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                last = self.call("GET", path, None).await;
                if so(&last) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(LIMIT, wait).await.is_ok();
        assert!(in_time, "last seen: {last}");
        last
    }
}

impl Drop for TestControlPlane {
    fn drop(&mut self) {
        self.lifecycle.drain_token().cancel();
    }
}
