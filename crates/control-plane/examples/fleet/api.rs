//! The API of a running control plane, as users reach it.

use crate::plane::Plane;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{net::Ipv4Addr, sync::Arc};
use tokio::{net::TcpStream, sync::Mutex};

/// Of a list.
const PAGE: usize = 100;

/// One connection.
pub(crate) struct Api {
    token: String,
    port: u16,
    sender: hyper::client::conn::http1::SendRequest<Full<bytes::Bytes>>,
    _connection: tokio::task::JoinSet<()>,
}

impl Api {
    pub(crate) async fn connect(plane: &Plane) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, plane.port))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { drop(connection.await) });
        Self {
            token: plane.admin_token(),
            port: plane.port,
            sender,
            _connection: task,
        }
    }

    pub(crate) async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Value {
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::from(body))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

/// Several connections, each used by one call at a time.
#[derive(Clone)]
pub(crate) struct Users(Vec<Arc<Mutex<Api>>>);

impl Users {
    pub(crate) async fn connect(plane: &Plane, count: usize) -> Self {
        let mut apis = Vec::with_capacity(count);
        for _ in 0..count {
            apis.push(Arc::new(Mutex::new(Api::connect(plane).await)));
        }
        Self(apis)
    }

    pub(crate) async fn post(&self, user: usize, path: &str, body: Value) -> Value {
        let mut api = self.0[user % self.0.len()].lock().await;
        api.call(Method::POST, path, Some(body)).await
    }

    /// Answers in the order of the calls.
    pub(crate) async fn post_all(&self, calls: Vec<(String, Value)>) -> Vec<Value> {
        stream::iter(calls.into_iter().enumerate())
            .map(|(number, (path, body))| async move { self.post(number, &path, body).await })
            .buffered(self.0.len() * 2)
            .collect()
            .await
    }

    /// Every one of a list.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let mut api = self.0[0].lock().await;
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = api
                .call(Method::GET, &format!("{path}?limit={PAGE}{cursor}"), None)
                .await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}
