//! The terminal page, built from `web/` into `assets/` and embedded.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use local_rpc::server::{self, Body};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Scripts and connections of the own origin alone. xterm.js sets styles of elements as it draws.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    content_type: &'static str,
    bytes: &'static [u8],
}

/// By the only segment of its path.
pub(super) fn find(name: &str) -> Option<Asset> {
    let (content_type, bytes): (_, &[u8]) = match name {
        "" | "index.html" => (
            "text/html; charset=utf-8",
            include_bytes!("../../assets/index.html"),
        ),
        "terminal.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/terminal.js"),
        ),
        "terminal.css" => (
            "text/css; charset=utf-8",
            include_bytes!("../../assets/terminal.css"),
        ),
        _ => return None,
    };
    Some(Asset {
        content_type,
        bytes,
    })
}

impl Asset {
    /// Asked about again each time, and sent only where it has changed.
    pub(super) fn answer(self, request: &HeaderMap) -> Response<Body> {
        let etag = self.etag();
        let known = request
            .get(header::IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok());
        let mut response =
            if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
                server::empty(StatusCode::NOT_MODIFIED)
            } else {
                server::bytes(StatusCode::OK, self.content_type, self.bytes)
            };
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }

    fn etag(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}
