//! One HTTP client: requests with deadlines, sent again after a cut connection, over one connection that is kept while it is idle.

use super::{Connector, Origin, RequestError, Stream};
use bytes::Bytes;
use daemon::Ids;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use wire::problem::Problem;

/// The head of an answer; the control plane may wait for its store.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// A whole body that is not a stream.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// A page of a hundred gitspaces with their failures is below a megabyte.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const MAX_PROBLEM: usize = 64 * 1024;
/// Waits before the second and the third try, each with up to as much again by chance.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(600)];

type Sender = http1::SendRequest<Full<Bytes>>;

/// One request, as often as it has to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) origin: Origin,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn new(origin: &Origin, method: Method, target: String) -> Self {
        Self {
            origin: origin.clone(),
            method,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn json(mut self, body: Vec<u8>) -> Self {
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.body = body.into();
        self
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, RequestError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.target)
            .header(header::HOST, self.origin.authority())
            .header(
                header::USER_AGENT,
                concat!("gitspace/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(self.body.clone()))
            .map_err(|source| RequestError::Request {
                url: self.origin.to_string(),
                source,
            })?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }
}

/// A whole answer that is no error.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) url: String,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        serde_json::from_slice(&self.body).map_err(|source| RequestError::Unreadable {
            url: self.url.clone(),
            source,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    connector: Connector,
    ids: Arc<dyn Ids>,
    /// Connections are driven by tasks of their own; they end with the runtime.
    tasks: TaskTracker,
    idle: Mutex<Option<(Origin, Sender)>>,
}

impl Client {
    pub(crate) fn new(connector: Connector, ids: Arc<dyn Ids>) -> Self {
        Self {
            connector,
            ids,
            tasks: TaskTracker::new(),
            idle: Mutex::new(None),
        }
    }

    /// For an `Idempotency-Key`, or a session.
    pub(crate) fn fresh_id(&self) -> Uuid {
        self.ids.uuid()
    }

    /// Sends `call` and takes the whole answer. Every call has to be safe to send twice: what is not by its method has an idempotency key.
    pub(crate) async fn fetch(&self, call: &Call) -> Result<Reply, RequestError> {
        let mut waits = RETRY_AFTER.iter();
        loop {
            match self.fetch_once(call).await {
                Err(error) if error.is_connection() || error.is_in_progress() => match waits.next()
                {
                    Some(wait) => sleep(*wait + wait.mul_f64(self.chance())).await,
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// Sends `call` once and takes the whole answer: for what is not safe to repeat.
    pub(crate) async fn fetch_no_retry(&self, call: &Call) -> Result<Reply, RequestError> {
        let answer = self.open(call).await?;
        let body = collect(call, answer.into_body(), MAX_ANSWER).await?;
        Ok(Reply {
            url: call.origin.to_string(),
            body,
        })
    }

    /// Sends `call` once and gives the answer with its body unread: for streams and upgrades, whose callers have their own way to go on.
    pub(crate) async fn open(&self, call: &Call) -> Result<Response<Incoming>, RequestError> {
        let mut sender = self.connect(&call.origin).await?;
        let answer = send(&mut sender, call).await?;
        checked(call, answer).await
    }

    /// Sends `call` once and gives the bare connection, which speaks `protocol` from there on. The server says the first word of it.
    pub(crate) async fn upgrade(
        &self,
        call: Call,
        protocol: &'static str,
    ) -> Result<Stream, RequestError> {
        let url = call.origin.to_string();
        let call = call
            .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static(protocol));
        let answer = self.open(&call).await?;
        let agreed = answer
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|agreed| agreed == protocol);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !agreed {
            return Err(RequestError::Handshake { url });
        }
        let upgraded = hyper::upgrade::on(answer)
            .await
            .map_err(|source| RequestError::Cut {
                url: url.clone(),
                source,
            })?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| RequestError::Handshake { url })?;
        Ok(parts.io.into_inner().after(parts.read_buf))
    }

    /// Between 0 and 1.
    pub(crate) fn chance(&self) -> f64 {
        let [byte, ..] = self.ids.uuid().into_bytes();
        f64::from(byte) / 255.0
    }

    async fn fetch_once(&self, call: &Call) -> Result<Reply, RequestError> {
        let kept = self.take_idle(&call.origin);
        let reused = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(&call.origin).await?,
        };
        let answer = match send(&mut sender, call).await {
            // The server closed it while it was idle: that is not a failure of the server.
            Err(RequestError::Cut { .. }) if reused => {
                sender = self.connect(&call.origin).await?;
                send(&mut sender, call).await?
            }
            answer => answer?,
        };
        let answer = checked(call, answer).await?;
        let body = collect(call, answer.into_body(), MAX_ANSWER).await?;
        self.keep(&call.origin, sender);
        Ok(Reply {
            url: call.origin.to_string(),
            body,
        })
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, RequestError> {
        let stream = self.connector.connect(origin).await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(64)
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| RequestError::Cut {
                url: origin.to_string(),
                source,
            })?;
        // Its errors reach whoever waits for an answer.
        self.tasks
            .spawn(async { drop(connection.with_upgrades().await) });
        Ok(sender)
    }

    fn take_idle(&self, origin: &Origin) -> Option<Sender> {
        let (kept_for, sender) = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        (kept_for == *origin && !sender.is_closed()).then_some(sender)
    }

    fn keep(&self, origin: &Origin, sender: Sender) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some((origin.clone(), sender));
    }
}

async fn send(sender: &mut Sender, call: &Call) -> Result<Response<Incoming>, RequestError> {
    let cut = |source| RequestError::Cut {
        url: call.origin.to_string(),
        source,
    };
    let request = call.request()?;
    let answer = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    match timeout(HEAD_LIMIT, answer).await {
        Ok(answer) => answer.map_err(cut),
        Err(_) => Err(RequestError::Silent {
            url: call.origin.to_string(),
            what: "answer",
            limit: HEAD_LIMIT,
        }),
    }
}

/// An answer that is an error becomes one.
async fn checked(
    call: &Call,
    answer: Response<Incoming>,
) -> Result<Response<Incoming>, RequestError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let unexplained = || RequestError::Unexplained {
        url: call.origin.to_string(),
        status,
    };
    let body = collect(call, answer.into_body(), MAX_PROBLEM)
        .await
        .map_err(|_| unexplained())?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(RequestError::Refused {
            status,
            problem: Box::new(problem),
        }),
        Err(_) => Err(unexplained()),
    }
}

async fn collect(call: &Call, body: Incoming, limit: usize) -> Result<Bytes, RequestError> {
    let url = || call.origin.to_string();
    match timeout(BODY_LIMIT, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(RequestError::TooLarge { url: url(), limit })
        }
        Ok(Err(error)) => match error.downcast::<hyper::Error>() {
            Ok(source) => Err(RequestError::Cut {
                url: url(),
                source: *source,
            }),
            Err(_) => Err(RequestError::TooLarge { url: url(), limit }),
        },
        Err(_) => Err(RequestError::Silent {
            url: url(),
            what: "whole answer",
            limit: BODY_LIMIT,
        }),
    }
}
