//! HTTP proxies: which one, and how to get through it.

mod env;

pub use env::{ProxyEnv, ProxyEnvError};

use super::ConnectError;
use data_encoding::BASE64;
use secrecy::{ExposeSecret as _, SecretString};
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
            "http://proxy:99999",
            "",
        ] {
            assert!(ProxyUrl::parse(bad).is_err(), "took {bad}");
        }
    }
}
