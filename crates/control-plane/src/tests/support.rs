//! A control plane to talk to, and the words to talk to it.

use crate::{ControlPlane, ControlPlaneConfig, Deps, EmbeddedGateway};
use axum::body::Body;
use camino::Utf8PathBuf;
use daemon::{Lifecycle, ManualClock, RandomIds};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use token::{SigningKey, Validity};
use tower::ServiceExt as _;
use wire::{
    control::{ENROL_PURPOSE, EnrolClaims},
    ids::DelegateUuid,
};

/// As delegates write it in what they sign.
pub(super) const OWN: &str = "http://localhost:7070";
/// Of what they sign.
pub(super) const LIFE: Duration = Duration::from_secs(60);

pub(super) struct TestPlane {
    pub(super) plane: ControlPlane,
    pub(super) clock: Arc<ManualClock>,
    pub(super) address: SocketAddr,
    pub(super) admin: String,
    pub(super) dir: Utf8PathBuf,
    lifecycle: Lifecycle,
    _guard: Option<tempfile::TempDir>,
}

impl Drop for TestPlane {
    fn drop(&mut self) {
        self.lifecycle.kill_token().cancel();
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// The stable code of a problem.
    #[track_caller]
    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().expect("a problem").to_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .to_str()
            .unwrap()
    }
}

#[derive(Clone)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) token_id: String,
}

impl TestPlane {
    pub(super) async fn start() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(guard.path().join("state")).unwrap();
        let mut started = Self::start_in(dir, Arc::new(ManualClock::default())).await;
        started._guard = Some(guard);
        started
    }

    pub(super) async fn start_in(dir: Utf8PathBuf, clock: Arc<ManualClock>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut plane = ControlPlane::build(
            ControlPlaneConfig::new(&dir),
            Deps {
                clock: clock.clone(),
                ids: Arc::new(RandomIds),
                listener: Some(listener),
                seal_key: None,
                tls: None,
            },
        )
        .await
        .unwrap();
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        let address = plane.start(&lifecycle).unwrap();
        let admin = std::fs::read_to_string(dir.join("admin-token")).unwrap();
        Self {
            plane,
            clock,
            address,
            admin: admin.trim().to_owned(),
            dir,
            lifecycle,
            _guard: None,
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.plane.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(super) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request(token, method, path).body(body).unwrap())
            .await
    }

    pub(super) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::GET, path, None).await
    }

    pub(super) async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::POST, path, Some(body)).await
    }

    pub(super) async fn delete(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::DELETE, path, None).await
    }

    pub(super) async fn user(&self, name: &str) -> User {
        let admin = &self.admin;
        let made = self
            .post(admin, "/users", json!({"name": name, "role": "developer"}))
            .await
            .expect(201)
            .json();
        let id = made["id"].as_str().unwrap().to_owned();
        let path = format!("/users/{id}/tokens");
        let token = self
            .post(admin, &path, json!({"name": "test"}))
            .await
            .expect(201)
            .json();
        User {
            id,
            token: token["token"].as_str().unwrap().to_owned(),
            token_id: token["id"].as_str().unwrap().to_owned(),
        }
    }

    /// A gitspace that is not started; answers with its slug.
    pub(super) async fn gitspace(&self, token: &str, name: &str) -> String {
        let body =
            json!({"repo": {"url": "https://example.com/app.git"}, "name": name, "start": false});
        let made = self
            .post(token, "/gitspaces", body)
            .await
            .expect(201)
            .json();
        made["slug"].as_str().unwrap().to_owned()
    }

    pub(super) async fn gateway(&self) -> EmbeddedGateway {
        self.plane.embedded_gateway().await.unwrap()
    }

    /// Enrolled, and not connected.
    pub(super) async fn delegate(&self, name: &str, key: &SigningKey) -> DelegateUuid {
        let made = self.post(&self.admin, "/join-tokens", json!({})).await;
        let join = made.json()["token"].clone();
        let Validity { iat, exp } = Validity::starting(daemon::Clock::now(&*self.clock), LIFE);
        let claims = EnrolClaims {
            audience: OWN.to_owned(),
            name: name.to_owned(),
            iat,
            exp,
        };
        let proof = token::sign(&claims, key, ENROL_PURPOSE).unwrap();
        let body = json!({"join_token": join, "name": name, "tags": [], "public_key": key.public(), "proof": proof});
        let answer = self.post("", "/delegates/enroll", body).await.expect(201);
        answer.json()["delegate"].as_str().unwrap().parse().unwrap()
    }
}

/// With the headers a program sends. `path` is below `/api/v1`; an empty token sends none.
pub(super) fn request(token: &str, method: Method, path: &str) -> http::request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header(header::HOST, "localhost:7070")
        .header(header::CONTENT_TYPE, "application/json");
    if token.is_empty() {
        request
    } else {
        request.header(header::AUTHORIZATION, format!("Bearer {token}"))
    }
}

/// As a browser asks for a page.
pub(super) fn page(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost:7070")
}
