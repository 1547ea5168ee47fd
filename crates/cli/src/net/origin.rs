//! Where a request goes: a checked `http(s)://host[:port][/prefix]`.

use std::fmt;
use url::{Host, Url};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OriginError {
    #[error("`{text}` is not a URL: {why}")]
    NotAUrl { text: String, why: String },
    #[error("`{text}` is neither http:// nor https://")]
    Scheme { text: String },
    #[error("`{text}` has no host")]
    NoHost { text: String },
    #[error("the URL holds a user or a password, which belong in no URL")]
    Credentials,
    #[error("`{text}` has a query or a fragment")]
    Query { text: String },
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
}

impl Origin {
    pub(crate) fn of(url: &Url) -> Result<Self, OriginError> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => {
                return Err(OriginError::Scheme {
                    text: url.to_string(),
                });
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::Credentials);
        }
        let Some(host) = url.host() else {
            return Err(OriginError::NoHost {
                text: url.to_string(),
            });
        };
        Ok(Self {
            https,
            host: host.to_owned(),
            port: url.port().unwrap_or(if https { 443 } else { 80 }),
        })
    }

    /// For the `Host` header: the scheme's own port is left out.
    pub(crate) fn authority(&self) -> String {
        if self.port == if self.https { 443 } else { 80 } {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether what is sent stays on this host.
    pub(crate) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => is_localhost(name),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Names that never go to a resolver (RFC 6761, 6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name
            .len()
            .checked_sub(".localhost".len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(".localhost"))
}

/// An origin and the path that everything is under: `https://example.org/gitspaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) origin: Origin,
    /// Empty, or `/…` without a slash at its end.
    pub(crate) prefix: String,
}

impl Base {
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|error| OriginError::NotAUrl {
            text: text.to_owned(),
            why: error.to_string(),
        })?;
        let origin = Origin::of(&url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(OriginError::Query {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            origin,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_written_one_way() {
        for (given, written) in [
            ("http://LOCALHOST:80/", "http://localhost"),
            ("https://example.org:443/a/", "https://example.org/a"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(Base::parse(given).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_plain_http_url_is_refused() {
        for bad in [
            "",
            "example.org",
            "ftp://example.org",
            "http://",
            "http://user:secret@example.org",
            "http://example.org/?a=b",
            "file:///etc/passwd",
        ] {
            let error = Base::parse(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_whole_labels_make_a_name_local() {
        assert!(is_localhost("localhost") && is_localhost("3000--a-b1.LOCALHOST."));
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.example.org"));
    }
}
