//! HTTP proxies: which one, and how to get through it.

mod env;

pub use env::{ProxyEnv, ProxyEnvError};

use super::ConnectError;
use data_encoding::BASE64;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString, zeroize::Zeroize as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use url::Url;
use wire::{secret::Secret, shown};

/// A proxy's answer to `CONNECT` is a few lines.
const MAX_HEAD: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    #[error("it is not a URL: {reason}")]
    Syntax { reason: String },
    #[error("it is not of the form http://[user:password@]host:port")]
    Form,
}

/// The password that lies apart from the URL does not fit it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyPasswordError {
    #[error("there is a password for the proxy `{proxy}`, and no user in its URL")]
    NoUser { proxy: String },
    #[error("there are two passwords for the proxy `{proxy}`: the credential and one in its URL")]
    Two { proxy: String },
}

/// `http://[user:password@]host:port`.
#[derive(Clone)]
pub struct ProxyUrl {
    host: String,
    port: u16,
    user: Option<Vec<u8>>,
    /// `None` where the URL has none, which is another one than an empty one.
    password: Option<SecretSlice<u8>>,
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
        let has_user = !url.username().is_empty() || url.password().is_some();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(80),
            user: has_user.then(|| unescape(url.username())),
            password: url
                .password()
                .map(|password| SecretSlice::from(unescape(password))),
        })
    }

    /// With a password that lies apart from the URL.
    ///
    /// # Errors
    /// Refuses one that the URL has no user for, or another password.
    pub fn with_password(self, password: &Secret) -> Result<Self, ProxyPasswordError> {
        let proxy = self.address();
        if self.user.is_none() {
            return Err(ProxyPasswordError::NoUser { proxy });
        }
        if self.password.is_some() {
            return Err(ProxyPasswordError::Two { proxy });
        }
        let password = Some(SecretSlice::from(password.expose().as_bytes().to_vec()));
        Ok(Self { password, ..self })
    }

    /// `user:password` in base64.
    fn basic(&self) -> Option<SecretString> {
        let mut pair = self.user.clone()?;
        pair.push(b':');
        if let Some(password) = &self.password {
            pair.extend(password.expose_secret());
        }
        let text = SecretString::from(BASE64.encode(&pair));
        pair.zeroize();
        Some(text)
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
    if let Some(credentials) = proxy.basic() {
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
        return Err(fail(format!("it said `{}`", shown::line(line))));
    }
    if code.len() == 3 && code.starts_with('2') {
        return Ok(());
    }
    Err(ConnectError::ProxyRefused {
        proxy: proxy.address(),
        address: target,
        has_user: proxy.user.is_some(),
        status: shown::line(line.split_once(' ').map_or(line, |(_, status)| status)).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_unescaped_and_never_printed() {
        let proxy = ProxyUrl::parse("http://us%40er:p%3Aw@proxy:3128").unwrap();
        assert_eq!(format!("{proxy:?}"), "ProxyUrl(proxy:3128)");
        let credentials = proxy.basic().unwrap();
        let plain = BASE64
            .decode(credentials.expose_secret().as_bytes())
            .unwrap();
        assert_eq!(plain, b"us@er:p:w");
    }

    #[test]
    fn a_password_that_lies_apart_goes_with_the_user_of_the_url_alone() {
        let with = |url: &str| {
            let proxy = ProxyUrl::parse(url).unwrap();
            proxy.with_password(&Secret::new("p@ss:word"))
        };
        let proxy = with("http://us%40er@proxy:3128").unwrap();
        let plain = BASE64.decode(proxy.basic().unwrap().expose_secret().as_bytes());
        assert_eq!(plain.unwrap(), b"us@er:p@ss:word");
        let proxy = "proxy:3128".to_owned();
        assert_eq!(
            with("http://user:other@proxy:3128").unwrap_err(),
            ProxyPasswordError::Two {
                proxy: proxy.clone()
            }
        );
        assert_eq!(
            with("http://proxy:3128").unwrap_err(),
            ProxyPasswordError::NoUser { proxy }
        );
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
