//! The client: JSON calls, NDJSON streams and upgrades over a Unix socket.
//!
//! One connection a call: connecting to a Unix socket costs microseconds, and a call that is dropped takes its
//! connection with it, so the server sees at once that nobody waits. No task is spawned.

mod error;
mod head;
mod ndjson;

pub use error::ClientError;
pub use ndjson::{NdjsonStream, SILENCE_LIMIT};

use crate::{
    connect::{connect, connect_untrusted},
    request::decode_json,
};
use bytes::Bytes;
use camino::Utf8Path;
use error::Call;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Fuse},
};
use head::HeadStream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, io, pin::pin, sync::Arc, time::Duration};
use tokio::net::UnixStream;
use wire::problem::Problem;

const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const DEFAULT_MAX_RESPONSE: usize = 4 * 1024 * 1024;
/// A problem is a few sentences.
const MAX_PROBLEM: usize = 64 * 1024;
/// Of an error body that is no problem.
const MAX_QUOTE: usize = 300;

type Connector = dyn Fn() -> BoxFuture<'static, io::Result<UnixStream>> + Send + Sync;

/// Drives one connection; must be polled beside whatever waits for its answer.
type Driver = Fuse<BoxFuture<'static, hyper::Result<()>>>;

/// A client of one socket. Cheap to clone; holds no connection.
#[derive(Clone)]
pub struct Client {
    target: Arc<str>,
    connector: Arc<Connector>,
    headers: HeaderMap,
    deadline: Duration,
    max_response: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("target", &self.target)
            .field("deadline", &self.deadline)
            .field("max_response", &self.max_response)
            .finish_non_exhaustive()
    }
}

/// A connection that has left HTTP. Nothing behind the head of the `101` has been read: the first byte of `stream`,
/// and a descriptor that goes with it, are the caller's.
#[derive(Debug)]
pub struct Upgraded {
    pub headers: HeaderMap,
    pub stream: UnixStream,
}

/// An answer whose head has arrived.
struct Open {
    response: Response<Incoming>,
    driver: Driver,
}

impl Client {
    /// A client of the socket at `path`, in a directory that only trusted users can write to.
    #[must_use]
    pub fn new(path: impl AsRef<Utf8Path>) -> Self {
        let path: Arc<Utf8Path> = Arc::from(path.as_ref());
        Self::from_connector(path.as_str().to_owned(), move || {
            let path = Arc::clone(&path);
            async move { connect(&path).await }
        })
    }

    /// A client of a socket in a directory that somebody hostile can write to; see [`connect_untrusted`].
    ///
    /// Errors call it by `name` alone: they come to users, whom the host's folders are nothing to.
    #[must_use]
    pub fn untrusted(dir: impl AsRef<Utf8Path>, name: impl Into<String>) -> Self {
        let dir: Arc<Utf8Path> = Arc::from(dir.as_ref());
        let name = name.into();
        Self::from_connector(name.clone(), move || {
            let (dir, name) = (Arc::clone(&dir), name.clone());
            async move { connect_untrusted(&dir, &name).await }
        })
    }

    /// A client with a way to connect of the caller's; `target` is what errors call it.
    #[must_use]
    pub fn from_connector<C, F>(target: impl Into<String>, connector: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<UnixStream>> + Send + 'static,
    {
        Self {
            target: target.into().into(),
            connector: Arc::new(move || connector().boxed()),
            headers: HeaderMap::new(),
            deadline: DEFAULT_DEADLINE,
            max_response: DEFAULT_MAX_RESPONSE,
        }
    }

    /// The time a call may take, from connecting to the last byte of the answer; 30 s where not set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The largest JSON answer; 4 MiB where not set.
    #[must_use]
    pub fn with_max_response(mut self, bytes: usize) -> Self {
        self.max_response = bytes;
        self
    }

    /// A header on every request, as the trace id.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B, T>(&self, path: &str, body: &B) -> Result<T, ClientError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        self.request(Method::PUT, path, Some(body)).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B, T>(&self, path: &str, body: &B) -> Result<T, ClientError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        self.request(Method::POST, path, Some(body)).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, None::<&()>).await
    }

    /// Any call with a JSON answer. An empty answer reads as `null`: take `()` where none is expected.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request<B, T>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        let call = self.call(&method, path);
        let request = self.build(&call, method, path, body)?;
        let bytes = self
            .within_deadline(&call, async {
                let Open { response, driver } = self.open(&call, request).await?;
                if !response.status().is_success() {
                    return Err(refused(&call, response, driver).await);
                }
                collect(&call, response, driver, self.max_response).await
            })
            .await?;
        decode_json(&bytes).map_err(|(path, message)| call.decode(path, message))
    }

    /// A `GET` whose body is taken as it is. A refusal with a status of `also` is an answer, too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch(&self, path: &str, also: &[StatusCode]) -> Result<Bytes, ClientError> {
        let method = Method::GET;
        let call = self.call(&method, path);
        let request = self.build(&call, method, path, None::<&()>)?;
        self.within_deadline(&call, async {
            let Open { response, driver } = self.open(&call, request).await?;
            if !response.status().is_success() && !also.contains(&response.status()) {
                return Err(refused(&call, response, driver).await);
            }
            collect(&call, response, driver, self.max_response).await
        })
        .await
    }

    /// Opens a stream of one JSON value a line. The deadline holds up to the head of the answer; after that, the
    /// stream fails when the server is silent for [`SILENCE_LIMIT`], keep-alives counted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stream_ndjson<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<NdjsonStream<T>, ClientError> {
        let method = Method::GET;
        let call = self.call(&method, path);
        let request = self.build(&call, method, path, None::<&()>)?;
        let opened = self
            .within_deadline(&call, async {
                let Open { response, driver } = self.open(&call, request).await?;
                if !response.status().is_success() {
                    return Err(refused(&call, response, driver).await);
                }
                Ok((response.into_body(), driver))
            })
            .await?;
        Ok(NdjsonStream::new(call, opened.0, opened.1))
    }

    /// Asks the server to leave HTTP for `protocol`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade<B>(
        &self,
        method: Method,
        path: &str,
        protocol: &str,
        body: Option<&B>,
    ) -> Result<Upgraded, ClientError>
    where
        B: Serialize + Sync + ?Sized,
    {
        let call = self.call(&method, path);
        let mut request = self.build(&call, method, path, body)?;
        let wanted = HeaderValue::from_str(protocol).map_err(|error| call.protocol(error))?;
        request
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request
            .headers_mut()
            .insert(header::UPGRADE, wanted.clone());
        self.within_deadline(&call, async {
            let Open {
                mut response,
                mut driver,
            } = self.open(&call, request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refused(&call, response, driver).await);
            }
            if response.headers().get(header::UPGRADE) != Some(&wanted) {
                return Err(call.protocol(format!("the server did not upgrade to `{protocol}`")));
            }
            let on_upgrade = hyper::upgrade::on(&mut response);
            let upgraded = drive(&mut driver, on_upgrade)
                .await
                .map_err(|error| call.protocol(error))?;
            let parts = upgraded
                .downcast::<TokioIo<HeadStream>>()
                .map_err(|_| call.protocol("the upgraded connection is not a Unix socket"))?;
            if !parts.read_buf.is_empty() {
                return Err(call.protocol("the upgraded stream was read ahead"));
            }
            Ok(Upgraded {
                headers: std::mem::take(response.headers_mut()),
                stream: parts.io.into_inner().into_inner(),
            })
        })
        .await
    }

    fn call(&self, method: &Method, path: &str) -> Call {
        Call {
            target: Arc::clone(&self.target),
            what: format!("{method} {path}").into(),
        }
    }

    fn build<B>(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Request<Full<Bytes>>, ClientError>
    where
        B: Serialize + ?Sized,
    {
        let uri: Uri = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| call.protocol(error))?;
        let bytes = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|error| call.protocol(error))?
                .into(),
            None => Bytes::new(),
        };
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        if body.is_some() {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        Ok(request)
    }

    async fn within_deadline<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or_else(|_| Err(call.timeout(self.deadline)))
    }

    async fn open(&self, call: &Call, request: Request<Full<Bytes>>) -> Result<Open, ClientError> {
        let stream = (self.connector)()
            .await
            .map_err(|source| call.connect(source))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake(TokioIo::new(HeadStream::new(stream)))
            .await
            .map_err(|error| call.protocol(error))?;
        let mut driver = connection.with_upgrades().boxed().fuse();
        let response = drive(&mut driver, sender.send_request(request))
            .await
            .map_err(|error| call.protocol(error))?;
        Ok(Open { response, driver })
    }
}

/// Polls the connection while `work` waits for something that comes over it. An error of the connection reaches
/// `work` too.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            // A fused future is pending for ever once it has ended.
            _ = &mut *driver => {}
        }
    }
}

async fn collect(
    call: &Call,
    response: Response<Incoming>,
    mut driver: Driver,
    limit: usize,
) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), limit).collect();
    match drive(&mut driver, body).await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(call.too_large(limit)),
        Err(error) => Err(call.protocol(error)),
    }
}

/// The error of an answer that is not what was asked for.
async fn refused(call: &Call, response: Response<Incoming>, driver: Driver) -> ClientError {
    let status = response.status();
    if status.is_success() || status.is_redirection() || status.is_informational() {
        return call.protocol(format!("the server answered {status}"));
    }
    let bytes = match collect(call, response, driver, MAX_PROBLEM).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let problem = serde_json::from_slice::<Problem>(&bytes).unwrap_or_else(|_| {
        // The server's own words are better than none, whatever wrote them.
        let quote: String = String::from_utf8_lossy(&bytes)
            .chars()
            .take(MAX_QUOTE)
            .collect();
        let problem = Problem::new("http", format!("the server answered {status}"));
        if quote.trim().is_empty() {
            problem
        } else {
            problem.cause(quote)
        }
    });
    call.status(status, problem)
}
