//! The plain port that sends browsers on to https, and does nothing else.

use crate::{
    door::{Door, Incoming},
    names::Names,
};
use bytes::Bytes;
use daemon::{Exit, Hint};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{body::Incoming as Body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;

/// At a time; each is one request.
const MAX_CONNECTIONS: usize = 256;
/// From the connection's start to the end of the one answer.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 16 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Of a DNS name.
const MAX_LABEL: usize = 63;

#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error("cannot listen on {address} (`tls.redirect_listen`)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl Hint for RedirectError {
    fn hint(&self) -> Option<String> {
        let Self::Listen { source, .. } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => Some("see `ss -ltnp`".to_owned()),
            io::ErrorKind::PermissionDenied => Some(
                "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE and CapabilityBoundingSet=CAP_NET_BIND_SERVICE in a drop-in of the unit".to_owned(),
            ),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

/// Whom it sends where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redirect {
    /// Host names, and their authorities where https is served.
    hosts: Vec<(String, String)>,
    /// Domains below which each name goes to itself, with the port's suffix.
    domains: Vec<(String, String)>,
}

impl Redirect {
    pub(crate) fn to(names: &Names) -> Self {
        let name = |url: &Url| url.host_str().map(str::to_ascii_lowercase);
        let hosts = names.host_urls().iter();
        let domains = names.domain_urls().iter();
        Self {
            hosts: hosts
                .filter_map(|url| Some((name(url)?, url.authority().to_owned())))
                .collect(),
            domains: domains
                .filter_map(|url| {
                    let port = url.port().map(|port| format!(":{port}"));
                    Some((name(url)?, port.unwrap_or_default()))
                })
                .collect(),
        }
    }

    /// Opens the port.
    pub(crate) async fn bind(self, address: SocketAddr) -> Result<BoundRedirect, RedirectError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| RedirectError::Listen { address, source })?;
        Ok(BoundRedirect {
            redirect: Arc::new(self),
            door: Door::new(listener, None),
        })
    }

    /// Where a request goes, or with which status it is refused.
    fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<String, StatusCode> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(StatusCode::BAD_REQUEST);
        };
        let host = host.to_str().map_err(|_| StatusCode::BAD_REQUEST)?;
        // In its other forms a request names its host twice.
        if uri.authority().is_some() || !uri.path().starts_with('/') {
            return Err(StatusCode::BAD_REQUEST);
        }
        let authority = self
            .authority(host)
            .ok_or(StatusCode::MISDIRECTED_REQUEST)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(format!("https://{authority}{path}"))
    }

    fn authority(&self, host: &str) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host.as_str(),
        };
        let exact = self.hosts.iter().find(|(known, _)| known == name);
        if let Some((_, authority)) = exact {
            return Some(authority.clone());
        }
        self.domains.iter().find_map(|(domain, port)| {
            let label = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
            let good = (1..=MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            good.then(|| format!("{label}.{domain}{port}"))
        })
    }

    fn answer(&self, request: &Request<Body>) -> Response<Empty<Bytes>> {
        let mut answer = Response::new(Empty::new());
        let judged = self.judge(request.method(), request.uri(), request.headers());
        let (status, field) = match judged {
            Ok(location) => (
                StatusCode::PERMANENT_REDIRECT,
                Some((header::LOCATION, location)),
            ),
            Err(StatusCode::METHOD_NOT_ALLOWED) => (
                StatusCode::METHOD_NOT_ALLOWED,
                Some((header::ALLOW, "GET, HEAD".to_owned())),
            ),
            Err(status) => (status, None),
        };
        *answer.status_mut() = status;
        if let Some((name, value)) = field
            && let Ok(value) = value.parse()
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// It listens.
#[derive(Debug)]
pub(crate) struct BoundRedirect {
    redirect: Arc<Redirect>,
    door: Door,
}

impl BoundRedirect {
    /// Serves until `stop`; a redirect under way is no loss.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.door.next().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => continue,
                next = next => next,
            };
            match accepted {
                Ok((Incoming::Plain(stream), _)) => {
                    let redirect = Arc::clone(&self.redirect);
                    drop(connections.spawn(async move {
                        let _place = place;
                        let service = service_fn(move |request| {
                            let answer = redirect.answer(&request);
                            std::future::ready(Ok::<_, Infallible>(answer))
                        });
                        let serving = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(LIMIT)
                            .keep_alive(false)
                            .max_buf_size(MAX_HEADERS)
                            .serve_connection(TokioIo::new(stream), service);
                        if let Ok(Err(error)) = tokio::time::timeout(LIMIT, serving).await {
                            tracing::debug!(%error, "Nobody was sent on");
                        }
                    }));
                }
                // Its door has no TLS.
                Ok((Incoming::Tls(_), _)) => {}
                Err(error) => {
                    tracing::warn!(%error, "Cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect() -> Redirect {
        Redirect::to(
            &Names::default()
                .host(&"https://Control.example.com:8443".parse().unwrap())
                .below(&"https://gs.example.com".parse().unwrap()),
        )
    }

    fn judge(method: &Method, target: &str, hosts: &[&str]) -> Result<String, StatusCode> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        redirect().judge(method, &target.parse().unwrap(), &headers)
    }

    #[test]
    fn a_known_host_is_sent_to_itself_with_path_and_query() {
        let to = |host: &str, target: &str| judge(&Method::GET, target, &[host]);
        assert_eq!(
            to("control.example.com", "/a?b=c").unwrap(),
            "https://control.example.com:8443/a?b=c"
        );
        assert_eq!(
            to("CONTROL.example.com:80", "/").unwrap(),
            "https://control.example.com:8443/"
        );
        assert_eq!(
            to("8000--demo.gs.example.com:8080", "//evil").unwrap(),
            "https://8000--demo.gs.example.com//evil"
        );
    }

    #[test]
    fn nobody_is_sent_anywhere_else() {
        for host in [
            "evil.example",
            "gs.example.com",
            "a.b.gs.example.com",
            ".gs.example.com",
            "gs.example.com.evil.example",
            "a_b.gs.example.com",
            "user@x.gs.example.com",
            "x.gs.example.com.",
            "x/.gs.example.com",
            "",
        ] {
            assert_eq!(
                judge(&Method::GET, "/", &[host]),
                Err(StatusCode::MISDIRECTED_REQUEST),
                "{host}"
            );
        }
        let known = "x.gs.example.com";
        for method in [Method::POST, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(
                judge(&method, "/", &[known]),
                Err(StatusCode::METHOD_NOT_ALLOWED)
            );
        }
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &[known, known][..]),
            ("http://x.gs.example.com/", &[known][..]),
            ("*", &[known][..]),
        ] {
            assert_eq!(
                judge(&Method::GET, target, hosts),
                Err(StatusCode::BAD_REQUEST),
                "{target} {hosts:?}"
            );
        }
    }
}
