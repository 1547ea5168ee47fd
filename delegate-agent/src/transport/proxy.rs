//! HTTP proxies: which one, and how to get through it.

use super::ConnectError;
use crate::config::Origin;
use data_encoding::BASE64;
use secrecy::{ExposeSecret as _, SecretString};
use std::net::IpAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use url::Url;

/// A proxy's answer to `CONNECT` is a few lines.
const MAX_HEAD: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    #[error("it is not a URL: {reason}")]
    Syntax { reason: String },
    #[error("it is not of the form http://[user:password@]host:port")]
    Form,
}

/// `http://[user:password@]host:port`.
#[derive(Clone)]
pub struct ProxyUrl {
    host: String,
    port: u16,
    /// `user:password`, in base64.
    credentials: Option<SecretString>,
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyUrl({})", self.address())
    }
}

impl ProxyUrl {
    /// # Errors
    /// Never repeats what was given: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let url = Url::parse(text).map_err(|error| ProxyUrlError::Syntax {
            reason: error.to_string(),
        })?;
        let Some(host) = url.host_str().filter(|_| url.scheme() == "http") else {
            return Err(ProxyUrlError::Form);
        };
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyUrlError::Form);
        }
        let credentials = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let mut pair = unescape(url.username());
            pair.push(b':');
            pair.extend(unescape(url.password().unwrap_or_default()));
            Some(SecretString::from(BASE64.encode(&pair)))
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(80),
            credentials,
        })
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn address(&self) -> String {
        bracketed(&self.host, self.port)
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|hex| u8::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

fn bracketed(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The variables everybody knows. Read once, in `main`.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnv {
    https: Option<ProxyUrl>,
    http: Option<ProxyUrl>,
    none: Vec<String>,
}

impl ProxyEnv {
    /// `read` gives a variable; the lower-case name wins. A value that is not a proxy's URL is named and ignored.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            read(&name.to_ascii_lowercase())
                .or_else(|| read(name))
                .filter(|value| !value.trim().is_empty())
        };
        let proxy = |name: &str| {
            let value = variable(name)?;
            let url = if value.contains("://") {
                value
            } else {
                format!("http://{value}")
            };
            ProxyUrl::parse(&url)
                .inspect_err(|error| {
                    tracing::warn!(variable = name, %error, "A proxy variable is ignored");
                })
                .ok()
        };
        Self {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            none: variable("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .map(|entry| entry.trim().to_ascii_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        }
    }

    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    pub(super) fn proxy_for(&self, origin: &Origin) -> Option<ProxyUrl> {
        let proxy = if origin.is_tls() {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }?;
        if self.is_excepted(origin.host(), origin.port()) {
            None
        } else {
            Some(proxy.clone())
        }
    }

    fn is_excepted(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        // Nobody means a proxy for loopback, and it could not reach ours.
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.none.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            if let (Some(ip), Some(net)) = (ip, Net::parse(entry)) {
                return net.contains(ip);
            }
            let (entry, entry_port) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') => match digits.parse::<u16>() {
                    Ok(port) => (name, Some(port)),
                    Err(_) => (entry.as_str(), None),
                },
                Some(_) | None => (entry.as_str(), None),
            };
            let entry = entry.trim_start_matches("*.").trim_start_matches('.');
            entry_port.is_none_or(|entry_port| entry_port == port)
                && (host == entry
                    || host
                        .strip_suffix(entry)
                        .is_some_and(|front| front.ends_with('.')))
        })
    }
}

/// `10.0.0.0/8`.
struct Net {
    base: IpAddr,
    bits: u32,
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Self { base, bits })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Asks the proxy behind `stream` for a connection to `host`. Not one byte behind its answer is read.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    proxy: &ProxyUrl,
    host: &str,
    port: u16,
) -> Result<(), ConnectError> {
    let target = bracketed(host, port);
    let fail = |reason: String| ConnectError::ProxyProtocol {
        proxy: proxy.address(),
        reason,
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = &proxy.credentials {
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(credentials.expose_secret());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| fail(error.to_string()))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(fail(format!("its head is longer than {MAX_HEAD} bytes")));
        }
        // One byte at a time: what follows the head is the tunnel's. It comes out of the socket's own buffer.
        let byte = stream
            .read_u8()
            .await
            .map_err(|error| fail(format!("it hung up: {error}")))?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    let (version, code) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if !version.starts_with("HTTP/1.") {
        return Err(fail(format!("it said `{}`", line.escape_debug())));
    }
    if code.len() == 3 && code.starts_with('2') {
        return Ok(());
    }
    Err(ConnectError::ProxyRefused {
        proxy: proxy.address(),
        address: target,
        status: line
            .split_once(' ')
            .map_or(line, |(_, status)| status)
            .escape_debug()
            .to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse("x", text).unwrap()
    }

    fn env(pairs: &[(&str, &str)]) -> ProxyEnv {
        ProxyEnv::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn credentials_are_unescaped_and_never_printed() {
        let proxy = ProxyUrl::parse("http://us%40er:p%3Aw@proxy:3128").unwrap();
        assert_eq!(format!("{proxy:?}"), "ProxyUrl(proxy:3128)");
        let credentials = proxy.credentials.unwrap();
        let plain = BASE64
            .decode(credentials.expose_secret().as_bytes())
            .unwrap();
        assert_eq!(plain, b"us@er:p:w");
    }

    #[test]
    fn only_http_proxies_are_taken() {
        for bad in [
            "https://proxy:1",
            "socks5://proxy:1",
            "proxy:1",
            "http://proxy/x",
            "",
        ] {
            assert!(ProxyUrl::parse(bad).is_err(), "took {bad}");
        }
    }

    #[test]
    fn the_variable_of_the_scheme_is_taken_and_lower_case_wins() {
        let env = env(&[
            ("HTTPS_PROXY", "http://a:1"),
            ("https_proxy", "b:2"),
            ("HTTP_PROXY", "http://c:3"),
        ]);
        let proxy = |url: &str| env.proxy_for(&origin(url)).map(|proxy| proxy.address());
        assert_eq!(proxy("https://x.example"), Some("b:2".to_owned()));
        assert_eq!(proxy("http://x.example"), Some("c:3".to_owned()));
        assert_eq!(proxy("http://localhost:7070"), None);
        assert_eq!(proxy("http://127.0.0.1:7070"), None);
    }

    #[test]
    fn no_proxy_takes_names_suffixes_ports_and_networks() {
        let env = env(&[
            ("HTTPS_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "a.example, .b.example,c.example:8443,10.0.0.0/8,fd00::/8",
            ),
        ]);
        for (url, direct) in [
            ("https://a.example", true),
            ("https://x.a.example", true),
            ("https://xa.example", false),
            ("https://x.b.example", true),
            ("https://c.example", false),
            ("https://c.example:8443", true),
            ("https://10.1.2.3", true),
            ("https://11.1.2.3", false),
            ("https://[fd00::1]", true),
        ] {
            assert_eq!(env.proxy_for(&origin(url)).is_none(), direct, "{url}");
        }
    }
}
