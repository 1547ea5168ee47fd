//! A request's head, read strictly and written anew.

use crate::{
    cookies,
    framing::Framing,
    headers::{Field, request_field, tokens},
    path,
};
use std::mem::MaybeUninit;

/// Largest head, in bytes.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// Most header fields.
pub(crate) const MAX_FIELDS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the head is not HTTP/1.1")]
    Syntax,
    #[error("the head has a bare line feed")]
    BareLf,
    #[error("the request has more than {MAX_FIELDS} header fields")]
    TooManyFields,
    #[error("the head has more than {MAX_HEAD} bytes")]
    TooLarge,
    #[error("the request needs exactly one Host")]
    Host,
    #[error("the request's target does not agree with its Host")]
    TargetHost,
    #[error("the request's target is not a path")]
    Target,
    #[error("the path climbs with `..`")]
    Climbs,
    #[error("the method `{0}` is not taken")]
    Method(&'static str),
    #[error("what a button sends is a POST without a body")]
    Button,
    #[error("Content-Length is malformed or given twice")]
    ContentLength,
    #[error("Transfer-Encoding is not `chunked`, alone and once")]
    TransferEncoding,
    #[error("the request has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    #[error("the expectation is not `100-continue`")]
    Expect,
    #[error("the upgrade is malformed")]
    Upgrade,
    #[error("`{0}` is given twice")]
    Twice(&'static str),
}

impl BadRequest {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TooManyFields | Self::TooLarge => 431,
            Self::Method(_) | Self::Button => 405,
            Self::Expect => 417,
            Self::Syntax
            | Self::BareLf
            | Self::Host
            | Self::TargetHost
            | Self::Target
            | Self::Climbs
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::TwoLengths
            | Self::Upgrade
            | Self::Twice(_) => 400,
        }
    }
}

/// Room for the fields of one head, on the stack of whoever parses it.
pub(crate) type Room<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

/// A head that keeps all the rules.
pub(crate) struct Request<'r, 'b> {
    pub(crate) method: &'b str,
    /// Origin form.
    pub(crate) target: &'b str,
    pub(crate) host: &'b [u8],
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    http10: bool,
    /// Which protocol it asks for, where it may have one.
    pub(crate) upgrade: Option<&'b [u8]>,
    expects_continue: bool,
    te_trailers: bool,
    pub(crate) grant: Option<&'b [u8]>,
    /// It has nothing against starting what does not run.
    pub(crate) wakes: bool,
    pub(crate) origin: Option<&'b [u8]>,
    pub(crate) fetch_site: Option<&'b [u8]>,
    fetch_mode: Option<&'b [u8]>,
    /// A person looks at the answer itself: it is in no frame, and not fetched in advance.
    is_seen: bool,
    pub(crate) accepts_html: bool,
    /// Whether `Connection` names fields to take away.
    nominates: bool,
    /// Bytes of the head.
    pub(crate) length: usize,
    fields: &'r [httparse::Header<'b>],
    kinds: [Field; MAX_FIELDS],
}

impl std::fmt::Debug for Request<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// `None` where the head is not whole.
pub(crate) fn parse<'r, 'b>(
    bytes: &'b [u8],
    room: &'r mut Room<'b>,
) -> Result<Option<Request<'r, 'b>>, BadRequest> {
    let mut raw = httparse::Request::new(&mut []);
    let length = match raw.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Err(BadRequest::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooManyFields),
        Err(_) => return Err(BadRequest::Syntax),
    };
    if length > MAX_HEAD {
        return Err(BadRequest::TooLarge);
    }
    let head = bytes.get(..length).ok_or(BadRequest::Syntax)?;
    if has_bare_lf(head) {
        return Err(BadRequest::BareLf);
    }
    let (Some(method), Some(target), Some(version)) = (raw.method, raw.path, raw.version) else {
        return Err(BadRequest::Syntax);
    };
    read_fields(method, target, version == 0, length, raw.headers).map(Some)
}

fn has_bare_lf(head: &[u8]) -> bool {
    let mut before = b'\r';
    head.iter().any(|byte| {
        let bare = *byte == b'\n' && before != b'\r';
        before = *byte;
        bare
    })
}

fn read_fields<'r, 'b>(
    method: &'b str,
    target: &'b str,
    http10: bool,
    length: usize,
    fields: &'r [httparse::Header<'b>],
) -> Result<Request<'r, 'b>, BadRequest> {
    for refused in ["TRACE", "CONNECT", "TRACK", "PRI"] {
        if method.eq_ignore_ascii_case(refused) {
            return Err(BadRequest::Method(refused));
        }
    }
    let mut request = Request {
        method,
        target,
        host: b"",
        framing: Framing::Done,
        keep_alive: !http10,
        http10,
        upgrade: None,
        wakes: true,
        expects_continue: false,
        te_trailers: false,
        grant: None,
        origin: None,
        fetch_mode: None,
        is_seen: true,
        fetch_site: None,
        accepts_html: false,
        nominates: false,
        length,
        fields,
        kinds: [Field::Pass; MAX_FIELDS],
    };
    let mut host = None;
    let mut content_length = None;
    let mut chunked = false;
    let mut asks_upgrade = false;
    let mut upgrade = None;
    for (field, kind) in fields.iter().zip(request.kinds.iter_mut()) {
        *kind = request_field(field.name);
        let value = field.value;
        match *kind {
            Field::Pass | Field::Drop | Field::Cookie => {}
            Field::Host => once(&mut host, value).map_err(|()| BadRequest::Host)?,
            Field::ContentLength => {
                let number = content_length_of(value).ok_or(BadRequest::ContentLength)?;
                once(&mut content_length, number).map_err(|()| BadRequest::ContentLength)?;
            }
            Field::TransferEncoding => {
                if chunked || http10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadRequest::TransferEncoding);
                }
                chunked = true;
            }
            Field::Connection => {
                for token in tokens(value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        request.keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"upgrade") {
                        asks_upgrade = true;
                    } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                        request.nominates = true;
                    }
                }
            }
            Field::Upgrade => once(&mut upgrade, value).map_err(|()| BadRequest::Upgrade)?,
            Field::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(BadRequest::Expect);
                }
                request.expects_continue = true;
            }
            Field::Te => {
                request.te_trailers |=
                    tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            Field::Origin => {
                once(&mut request.origin, value).map_err(|()| BadRequest::Twice("Origin"))?;
            }
            Field::FetchSite => once(&mut request.fetch_site, value)
                .map_err(|()| BadRequest::Twice("Sec-Fetch-Site"))?,
            // Who sends it twice is no browser; the first says what it is.
            Field::FetchMode => {
                request.fetch_mode.get_or_insert(value);
            }
            Field::FetchDest => request.is_seen &= value == b"document",
            Field::Purpose => request.is_seen = false,
            Field::Accept => request.accepts_html |= contains(value, b"text/html"),
            Field::Grant => {
                once(&mut request.grant, value)
                    .map_err(|()| BadRequest::Twice("gitspaces-grant"))?;
            }
            Field::Wake => request.wakes = false,
        }
    }
    request.host = host.ok_or(BadRequest::Host)?;
    request.framing = match (chunked, content_length) {
        (true, Some(_)) => return Err(BadRequest::TwoLengths),
        (true, None) => Framing::chunked(),
        (false, length) => Framing::length(length.unwrap_or(0)),
    };
    request.target = origin_form(target, request.host)?;
    if let (true, Some(protocol)) = (asks_upgrade, upgrade) {
        request.set_upgrade(protocol)?;
    }
    Ok(request)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(()),
    }
}

/// Digits alone: no sign, no list, no white space.
pub(crate) fn content_length_of(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

fn contains(value: &[u8], wanted: &[u8]) -> bool {
    value
        .windows(wanted.len())
        .any(|window| window.eq_ignore_ascii_case(wanted))
}

/// The path and query of a target; the host of an absolute one must be the Host.
fn origin_form<'b>(target: &'b str, host: &[u8]) -> Result<&'b str, BadRequest> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(BadRequest::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BadRequest::Target);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(BadRequest::Target)?;
        if !authority.as_bytes().eq_ignore_ascii_case(host) {
            return Err(BadRequest::TargetHost);
        }
        match path {
            "" => "/",
            path if path.starts_with('/') => path,
            _ => return Err(BadRequest::Target),
        }
    };
    if path.contains('#') {
        return Err(BadRequest::Target);
    }
    Ok(path)
}

impl<'b> Request<'_, 'b> {
    fn set_upgrade(&mut self, protocol: &'b [u8]) -> Result<(), BadRequest> {
        // HTTP/2 inside would pass by every check that is made here for each request: the offer is not passed on.
        let h2c = tokens(protocol).any(|token| {
            token
                .get(..3)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"))
                || token
                    .get(..5)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"http/"))
        });
        if h2c {
            return Ok(());
        }
        // Without a body, so that nothing which follows the head can be taken for one.
        if self.http10 || self.method != "GET" || !self.framing.is_done() || self.expects_continue {
            return Err(BadRequest::Upgrade);
        }
        self.upgrade = Some(protocol);
        Ok(())
    }

    /// The value of a field that is there once. `name` is in lower case.
    pub(crate) fn only(&self, name: &str) -> Option<&'b [u8]> {
        let mut values = self
            .fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value);
        values.next().filter(|_| values.next().is_none())
    }

    pub(crate) fn path_kind(&self) -> Result<path::PathKind, BadRequest> {
        match path::kind(path::split(self.target).0) {
            path::PathKind::Climbs => Err(BadRequest::Climbs),
            kind => Ok(kind),
        }
    }

    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }

    /// Whether it may be sent a second time when the first went unanswered on a connection that had been idle.
    pub(crate) fn is_replayable(&self) -> bool {
        self.is_safe() && self.framing.is_done() && self.upgrade.is_none()
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    pub(crate) fn is_http10(&self) -> bool {
        self.http10
    }

    /// Whether a person at a browser sees the answer.
    pub(crate) fn is_navigation(&self) -> bool {
        // A page's own requests may ask for pieces of HTML, too; browsers say what they are for.
        let is_for_page = self.fetch_mode.is_none_or(|mode| mode == b"navigate");
        self.method == "GET" && self.accepts_html && self.upgrade.is_none() && is_for_page
    }

    /// Whether a person opened it. A frame of some page, or what a browser fetches in advance, is shown like that, and is nobody's wish.
    pub(crate) fn is_opened(&self) -> bool {
        self.is_navigation() && self.is_seen
    }

    /// The grants in its cookies, in their order; `secure` says which name they have.
    pub(crate) fn cookie_grants(&self, secure: bool) -> impl Iterator<Item = &'b [u8]> {
        self.fields
            .iter()
            .zip(&self.kinds)
            .filter(|(_, kind)| **kind == Field::Cookie)
            .flat_map(move |(field, _)| cookies::grants(field.value, secure))
    }

    fn is_nominated(&self, name: &str) -> bool {
        self.fields
            .iter()
            .zip(&self.kinds)
            .filter(|(_, kind)| **kind == Field::Connection)
            .flat_map(|(field, _)| tokens(field.value))
            .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Writes the head for the app. `forwarded` is what we say of the client, whole lines; the last one is left open for the host.
    pub(crate) fn write(&self, out: &mut Vec<u8>, forwarded: &[u8], scheme: &str) {
        out.reserve(self.length + forwarded.len() + 160);
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(if self.http10 {
            b" HTTP/1.0\r\nhost: "
        } else {
            b" HTTP/1.1\r\nhost: "
        });
        out.extend_from_slice(self.host);
        out.extend_from_slice(b"\r\n");
        for (field, kind) in self.fields.iter().zip(&self.kinds) {
            match kind {
                Field::Pass
                | Field::Origin
                | Field::FetchSite
                | Field::FetchMode
                | Field::FetchDest
                | Field::Purpose
                | Field::Accept
                | Field::ContentLength => {
                    let framing = *kind == Field::ContentLength;
                    if framing || !self.nominates || !self.is_nominated(field.name) {
                        line(out, field.name, field.value);
                    }
                }
                Field::Cookie => cookies::write_cookie(out, field.value),
                Field::Drop
                | Field::Host
                | Field::TransferEncoding
                | Field::Connection
                | Field::Upgrade
                | Field::Expect
                | Field::Te
                | Field::Grant
                | Field::Wake => {}
            }
        }
        if matches!(self.framing, Framing::Chunked(_)) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if self.expects_continue {
            out.extend_from_slice(b"expect: 100-continue\r\n");
        }
        match (self.upgrade, self.te_trailers) {
            (Some(protocol), _) => {
                line(out, "connection", b"upgrade");
                line(out, "upgrade", protocol);
            }
            (None, true) => out.extend_from_slice(b"connection: te\r\nte: trailers\r\n"),
            (None, false) => {}
        }
        out.extend_from_slice(forwarded);
        out.extend_from_slice(self.host);
        out.extend_from_slice(b"\";proto=");
        out.extend_from_slice(scheme.as_bytes());
        line_end_and(out, "x-forwarded-host", self.host);
        out.extend_from_slice(b"\r\n");
    }
}

fn line_end_and(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b"\r\n");
    line(out, name, value);
}

pub(crate) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
