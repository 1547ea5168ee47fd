//! Which site a `Host` names: `[port--]slug.domain[:port]`, and nothing else.

use url::Url;
use wire::{runner::DialTarget, text::Slug};

/// A DNS name has at most 253 characters; a port adds six.
const MAX_HOST: usize = 260;

/// One origin: a gitspace's workspace, or one of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) slug: Slug,
    pub(crate) to: DialTarget,
    /// As a browser writes it in `Origin`.
    pub(crate) origin: String,
}

/// The part of every site's URL that is not its own.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    name: String,
    secure: bool,
    port: u16,
    /// `:port` where it is not the scheme's own.
    port_suffix: String,
}

/// Whether it is `http(s)://host[:port]`.
pub(crate) fn is_origin(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host is not one of this gateway's")]
pub(crate) struct UnknownHost;

impl Domain {
    /// `None` where the URL is not `http(s)://domain[:port]`.
    pub(crate) fn from_url(url: &Url) -> Option<Self> {
        let Some(url::Host::Domain(name)) = url.host() else {
            return None;
        };
        if !is_origin(url) || name.ends_with('.') || name.starts_with('.') {
            return None;
        }
        Some(Self {
            name: name.to_ascii_lowercase(),
            secure: url.scheme() == "https",
            port: url.port_or_known_default()?,
            port_suffix: url
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn secure(&self) -> bool {
        self.secure
    }

    /// `http(s)://domain[:port]`, the scheme's own port left out.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.name, self.port_suffix)
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The site that a `Host` names. A trailing dot is refused: it would be another origin to a browser.
    pub(crate) fn site(&self, host: &[u8]) -> Result<Site, UnknownHost> {
        if host.len() > MAX_HOST {
            return Err(UnknownHost);
        }
        let host = std::str::from_utf8(host).map_err(|_| UnknownHost)?;
        let host = host.to_ascii_lowercase();
        let name = match host.split_once(':') {
            None => host.as_str(),
            Some((name, port)) => {
                let same = decimal(port).is_some_and(|port| port == self.port);
                if !same {
                    return Err(UnknownHost);
                }
                name
            }
        };
        let label = name
            .strip_suffix(self.name.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .ok_or(UnknownHost)?;
        let (slug, to) = match label.split_once("--") {
            None => (label, DialTarget::Workspace),
            Some((port, slug)) => (slug, DialTarget::Port(decimal(port).ok_or(UnknownHost)?)),
        };
        // The slug's own rules leave no dot and no `--`.
        let slug: Slug = slug.parse().map_err(|_| UnknownHost)?;
        let origin = format!(
            "{}://{label}.{}{}",
            self.scheme(),
            self.name,
            self.port_suffix
        );
        Ok(Site { slug, to, origin })
    }
}

/// A port in its one spelling: no sign, no leading zero.
fn decimal(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(url: &str) -> Domain {
        Domain::from_url(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_host_names_a_workspace_or_a_port() {
        let domain = domain("http://localhost:7080");
        let site = domain.site(b"demo-ab12cd.localhost:7080").unwrap();
        assert_eq!(
            (site.slug.as_str(), site.to),
            ("demo-ab12cd", DialTarget::Workspace)
        );
        let site = domain.site(b"8000--demo-ab12cd.LOCALHOST:7080").unwrap();
        assert_eq!(site.to, DialTarget::Port(8000));
        assert_eq!(site.origin, "http://8000--demo-ab12cd.localhost:7080");
        assert!(domain.site(b"demo-ab12cd.localhost").is_ok());
    }

    #[test]
    fn the_schemes_own_port_is_not_in_the_origin() {
        let domain = domain("https://gitspaces.example.com");
        for host in ["a-1.gitspaces.example.com", "a-1.gitspaces.example.com:443"] {
            let site = domain.site(host.as_bytes()).unwrap();
            assert_eq!(site.origin, "https://a-1.gitspaces.example.com");
        }
    }

    #[test]
    fn every_other_host_is_unknown() {
        let domain = domain("http://localhost:7080");
        for host in [
            "",
            "localhost",
            "localhost:7080",
            ".localhost:7080",
            "127.0.0.1",
            "127.0.0.1:7080",
            "[::1]:7080",
            "evil.example",
            "demo.localhost.evil.example",
            "demo.localhost.",
            "demo.localhost.:7080",
            "demo.evillocalhost",
            "demolocalhost",
            "x.demo.localhost",
            "demo..localhost",
            "demo.localhost:80",
            "demo.localhost:",
            "demo.localhost:+7080",
            "demo.localhost:07080",
            "demo.localhost:7080:7080",
            "demo.localhost:99999",
            "user@demo.localhost",
            "user:pass@demo.localhost:7080",
            "demo.localhost/",
            "demo.localhost#x",
            "demo.localhost?x",
            "demo.localhost\\",
            "demo .localhost",
            "demo.localhost ",
            "demo_x.localhost",
            "--demo.localhost",
            "0--demo.localhost",
            "08000--demo.localhost",
            "+80--demo.localhost",
            "65536--demo.localhost",
            "8000--.localhost",
            "8000---demo.localhost",
            "8000--9000--demo.localhost",
            "x--demo.localhost",
            "xn--dmo-bma.localhost",
            "d\u{e9}mo.localhost",
            "demo\0.localhost",
            "-demo.localhost",
            "demo-.localhost",
            "demo,evil.localhost",
            "http://demo.localhost",
        ] {
            assert_eq!(domain.site(host.as_bytes()), Err(UnknownHost), "{host}");
        }
        let long = format!("{}.localhost", "a".repeat(300));
        assert_eq!(domain.site(long.as_bytes()), Err(UnknownHost));
        assert_eq!(domain.site(b"\xff.localhost"), Err(UnknownHost));
    }

    #[test]
    fn a_public_url_is_scheme_and_domain_only() {
        for url in [
            "http://127.0.0.1:7080",
            "http://[::1]",
            "ftp://localhost",
            "http://localhost/x",
            "http://u@localhost",
            "http://localhost?x",
        ] {
            assert!(Domain::from_url(&url.parse().unwrap()).is_none(), "{url}");
        }
    }
}
