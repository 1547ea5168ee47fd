//! Origins: our own, those of gitspaces behind the gateway, and where a browser may be sent.
//!
//! Invariant: a redirect's origin is always built here from our own records; nothing a request says becomes one.

use url::{Host, Url};
use wire::text::Slug;

/// Longest path a browser is sent on to.
pub(crate) const MAX_RETURN: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("`{url}` cannot be read as a URL: {why}")]
    Syntax { url: String, why: String },
    #[error("`{url}` is neither http nor https")]
    Scheme { url: String },
    #[error("`{url}` has a path, query, fragment or user; only scheme, host and port are taken")]
    NotAnOrigin { url: String },
    #[error("`{url}` has no host name that labels can be put in front of")]
    NoDomain { url: String },
}

pub(crate) fn parse_origin(text: &str) -> Result<Url, OriginError> {
    let url = Url::parse(text).map_err(|error| OriginError::Syntax {
        url: text.to_owned(),
        why: error.to_string(),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(OriginError::Scheme {
            url: text.to_owned(),
        });
    }
    let bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if bare && url.host().is_some() {
        Ok(url)
    } else {
        Err(OriginError::NotAnOrigin {
            url: text.to_owned(),
        })
    }
}

/// `host` or `host:port`, the scheme's own port left out.
fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// The control plane's own origin, and the hosts it answers to.
#[derive(Clone, Debug)]
pub(crate) struct PublicOrigin {
    url: Url,
    origin: String,
}

impl PublicOrigin {
    /// # Errors
    /// Refuses what is not an http(s) origin.
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let url = parse_origin(text)?;
        let origin = url.origin().ascii_serialization();
        Ok(Self { url, origin })
    }

    /// `http(s)://host[:port]`.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.origin
    }

    #[must_use]
    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether browsers may be told to come back to this host by https alone: what is on other ports of `localhost` is not ours.
    #[must_use]
    pub(crate) fn is_strict(&self) -> bool {
        self.is_https()
            && matches!(self.url.host(), Some(Host::Domain(name)) if name != "localhost" && !name.ends_with(".localhost"))
    }

    /// Whether a request for this `Host` is for us: our own name, or loopback by name or address. Any other name is a DNS
    /// entry that somebody else made point here.
    #[must_use]
    pub(crate) fn answers_to(&self, host_header: &str) -> bool {
        let Some(host) = host_of(host_header) else {
            return false;
        };
        if self.url.host().is_some_and(|own| own.to_owned() == host) {
            return true;
        }
        match host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }

    /// Whether `origin` (of an `Origin` header) is this control plane's as the request addressed it: our configured origin, or a loopback
    /// one whose authority is the request's own `Host`.
    #[must_use]
    pub(crate) fn is_same(&self, origin: &str, host_header: Option<&str>) -> bool {
        if origin == self.origin {
            return true;
        }
        let Ok(url) = parse_origin(origin) else {
            return false;
        };
        url.origin().ascii_serialization() == origin
            && host_header.is_some_and(|host| host.eq_ignore_ascii_case(&authority(&url)))
            && self.answers_to(&authority(&url))
    }
}

/// The host of a `Host` header, without its port.
fn host_of(header: &str) -> Option<Host<String>> {
    if header.is_empty()
        || header.len() > 255
        || header
            .bytes()
            .any(|b| !b.is_ascii_graphic() || matches!(b, b'/' | b'@' | b'?' | b'#' | b'\\' | b'%'))
    {
        return None;
    }
    let url = Url::parse(&format!("http://{header}/")).ok()?;
    url.host().map(|host| host.to_owned())
}

/// Origins of gitspaces.
#[derive(Clone, Debug)]
pub(crate) struct GatewayOrigins {
    scheme: String,
    domain: String,
}

/// A place a browser may go on to: one of our origins and a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) port: Option<u16>,
    pub(crate) path: ReturnPath,
}

/// What a gateway has of what users' URLs end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    Origin,
    /// At another port or scheme, as far as it says.
    Domain,
    Other,
}

impl GatewayOrigins {
    /// # Errors
    /// Refuses what is not an http(s) origin of a host name.
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let url = parse_origin(text)?;
        if !matches!(url.host(), Some(Host::Domain(_))) {
            return Err(OriginError::NoDomain {
                url: text.to_owned(),
            });
        }
        Ok(Self {
            scheme: url.scheme().to_owned(),
            domain: authority(&url),
        })
    }

    /// `host[:port]` that every gitspace's host ends with.
    #[must_use]
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether a gateway serves these hosts, which says its domain without a port: it may listen on another one than users dial.
    #[must_use]
    pub(crate) fn is_domain(&self, domain: &str) -> bool {
        let own = self.domain.split_once(':');
        own.map_or(self.domain.as_str(), |(host, _)| host) == domain
    }

    /// How well a gateway that says this of itself fits: the least is the one that users' URLs lead to. `origin` is missing from an older one.
    #[must_use]
    pub(crate) fn fit(&self, domain: &str, origin: Option<&str>) -> Fit {
        let own = format!("{}://{}", self.scheme, self.domain);
        if origin == Some(own.as_str()) {
            Fit::Origin
        } else if self.is_domain(domain) {
            Fit::Domain
        } else {
            Fit::Other
        }
    }

    /// All origins of gitspaces, as a content security policy names them.
    #[must_use]
    pub(crate) fn wildcard(&self) -> String {
        format!("{}://*.{}", self.scheme, self.domain)
    }

    /// Origin of a gitspace's workspace, or of one of its ports.
    #[must_use]
    pub(crate) fn of(&self, slug: &Slug, port: Option<u16>) -> String {
        let (scheme, domain) = (&self.scheme, &self.domain);
        match port {
            None => format!("{scheme}://{slug}.{domain}"),
            Some(port) => format!("{scheme}://{port}--{slug}.{domain}"),
        }
    }

    /// Where a one-time code is handed in.
    #[must_use]
    pub(crate) fn open_url(&self, slug: &Slug, port: Option<u16>, code: &str) -> String {
        format!("{}/.gitspaces/open?code={code}", self.of(slug, port))
    }

    /// `wanted` as a destination in the gitspace `slug`: a path, or a URL of one of its own origins.
    ///
    /// # Errors
    /// Refuses every other place.
    pub(crate) fn destination(
        &self,
        slug: &Slug,
        port: Option<u16>,
        wanted: &str,
    ) -> Result<Destination, ReturnError> {
        if wanted.starts_with('/') {
            return Ok(Destination {
                port,
                path: ReturnPath::parse(wanted)?,
            });
        }
        let url = Url::parse(wanted).map_err(|_| ReturnError::OffSite)?;
        let host = url.host_str().unwrap_or_default();
        let label = host.split('.').next().unwrap_or_default();
        let port = match label.split_once("--") {
            Some((port, _)) => Some(
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or(ReturnError::OffSite)?,
            ),
            None => None,
        };
        // Compared as a whole against what we would build, so that no part is matched by prefix or suffix.
        let built = self.of(slug, port);
        let same = Url::parse(&built).is_ok_and(|own| own.origin() == url.origin())
            && url.username().is_empty()
            && url.password().is_none();
        if !same {
            return Err(ReturnError::OffSite);
        }
        let path = url.query().map_or_else(
            || url.path().to_owned(),
            |query| format!("{}?{query}", url.path()),
        );
        Ok(Destination {
            port,
            path: ReturnPath::parse(&path)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReturnError {
    #[error("the place to go on to has {0} bytes, more than {MAX_RETURN}")]
    TooLong(usize),
    #[error("the place to go on to is not a path that starts with one `/`")]
    OffSite,
    #[error("the place to go on to holds a control character or a backslash")]
    Character,
}

/// Path and query on an origin of ours. Made by checking alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReturnPath(String);

impl ReturnPath {
    /// # Errors
    /// Refuses what a browser could read as another origin, and what could end a header line.
    pub(crate) fn parse(text: &str) -> Result<Self, ReturnError> {
        if text.len() > MAX_RETURN {
            return Err(ReturnError::TooLong(text.len()));
        }
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\' || !c.is_ascii())
        {
            return Err(ReturnError::Character);
        }
        // `//host` and `/\host` are other origins to a browser.
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(ReturnError::OffSite);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> GatewayOrigins {
        GatewayOrigins::parse("http://localhost:7080").unwrap()
    }

    fn slug() -> Slug {
        "demo-abc123".parse().unwrap()
    }

    #[test]
    fn a_gateway_is_known_by_its_domain_whatever_the_port() {
        for url in ["https://gs.example.com", "https://gs.example.com:7080"] {
            let origins = GatewayOrigins::parse(url).unwrap();
            assert!(origins.is_domain("gs.example.com"), "{url}");
            for other in ["gs.example.com:7080", "example.com", "x.gs.example.com", ""] {
                assert!(!origins.is_domain(other), "{url} {other}");
            }
        }
    }

    #[test]
    fn a_gitspace_has_an_origin_of_its_own_and_one_for_each_port() {
        let gateway = gateway();
        assert_eq!(
            gateway.of(&slug(), None),
            "http://demo-abc123.localhost:7080"
        );
        assert_eq!(
            gateway.of(&slug(), Some(3000)),
            "http://3000--demo-abc123.localhost:7080"
        );
        let https = GatewayOrigins::parse("https://gitspaces.example.com").unwrap();
        assert_eq!(
            https.of(&slug(), None),
            "https://demo-abc123.gitspaces.example.com"
        );
    }

    #[test]
    fn nobody_is_sent_off_site() {
        let gateway = gateway();
        for wanted in [
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/x\r\nset-cookie: a=b",
            "/\u{0}",
            "/\u{7f}",
            "/é",
            "/ x",
            "",
            "x",
            "?x",
            "#x",
            "javascript:alert(1)",
            "data:text/html,x",
            "http:evil.example",
            "http:/evil.example",
            "http://evil.example/",
            "https://demo-abc123.localhost:7080/",
            "http://demo-abc123.localhost:7081/",
            "http://demo-abc123.localhost/",
            "http://demo-abc123.localhost:7080.evil.example/",
            "http://demo-abc123.localhost:7080@evil.example/",
            "http://user@demo-abc123.localhost:7080/",
            "http://evil.example/demo-abc123.localhost:7080",
            "http://xdemo-abc123.localhost:7080/",
            "http://demo-abc1234.localhost:7080/",
            "http://demo-abc123.localhost.:7080/",
            "http://other-abc123.localhost:7080/",
            "http://3000--other-abc123.localhost:7080/",
            "http://0--demo-abc123.localhost:7080/",
            "http://99999--demo-abc123.localhost:7080/",
            "http://x--demo-abc123.localhost:7080/",
            "http://localhost:7080/",
            "ftp://demo-abc123.localhost:7080/",
            "http://demo-abc123.localhost:7080//evil.example",
            "http://[::1]:7080/",
            &format!("/{}", "x".repeat(MAX_RETURN)),
        ] {
            assert!(
                gateway.destination(&slug(), None, wanted).is_err(),
                "took {wanted:?}"
            );
        }
    }

    #[test]
    fn own_origins_and_paths_are_destinations() {
        let gateway = gateway();
        for (wanted, port, path) in [
            ("/", Some(80), "/"),
            ("/a?b=c//d", Some(80), "/a?b=c//d"),
            ("http://demo-abc123.localhost:7080/x?y", None, "/x?y"),
            ("http://demo-abc123.localhost:7080", None, "/"),
            (
                "HTTP://3000--DEMO-abc123.localhost:7080/x",
                Some(3000),
                "/x",
            ),
        ] {
            let found = gateway.destination(&slug(), Some(80), wanted).unwrap();
            assert_eq!((found.port, found.path.as_str()), (port, path), "{wanted}");
        }
    }

    #[test]
    fn only_own_names_and_loopback_are_answered_to() {
        let own = PublicOrigin::parse("https://gitspaces.example.com").unwrap();
        for host in [
            "gitspaces.example.com",
            "gitspaces.example.com:443",
            "GITSPACES.example.com",
            "localhost",
            "localhost:7070",
            "127.0.0.1:7070",
            "[::1]:7070",
        ] {
            assert!(own.answers_to(host), "refused {host}");
        }
        for host in [
            "",
            "evil.example",
            "gitspaces.example.com.evil.example",
            "xgitspaces.example.com",
            "example.com",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost/",
            "localhost#",
            "localhost\\x",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "x.localhost",
            "local%68ost",
        ] {
            assert!(!own.answers_to(host), "took {host:?}");
        }
    }

    #[test]
    fn the_same_origin_is_the_configured_one_or_the_loopback_that_was_asked() {
        let own = PublicOrigin::parse("http://localhost:7070").unwrap();
        assert!(own.is_same("http://localhost:7070", Some("localhost:7070")));
        assert!(own.is_same("http://127.0.0.1:7070", Some("127.0.0.1:7070")));
        for (origin, host) in [
            ("null", "localhost:7070"),
            ("", "localhost:7070"),
            ("http://evil.example", "localhost:7070"),
            ("http://evil.example", "evil.example"),
            ("http://localhost:7080", "localhost:7070"),
            ("http://demo.localhost:7080", "localhost:7070"),
            ("http://localhost:7070/", "x"),
            ("http://localhost:7070.evil.example", "localhost:7070"),
        ] {
            assert!(!own.is_same(origin, Some(host)), "took {origin} at {host}");
        }
    }

    #[test]
    fn only_origins_are_configured() {
        for bad in [
            "localhost:7070",
            "ftp://x",
            "http://x/y",
            "http://u@x",
            "http://x?y",
            "http://x#y",
            "",
        ] {
            assert!(PublicOrigin::parse(bad).is_err(), "took {bad:?}");
            assert!(GatewayOrigins::parse(bad).is_err(), "took {bad:?}");
        }
        assert!(GatewayOrigins::parse("http://127.0.0.1:7080").is_err());
    }
}
