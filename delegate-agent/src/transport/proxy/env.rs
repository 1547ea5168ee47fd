//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as everybody spells them.
//!
//! Invariant: what cannot be understood is an error wherever it would decide how the control plane is reached, and never a direct connection
//! instead. A variable that decides nothing (the other scheme's, or any beside `proxy` of the configuration) is not judged.

use super::{ProxyUrl, ProxyUrlError};
use crate::config::Origin;
use daemon::{Exit, Hint};
use secrecy::{ExposeSecret as _, SecretString};
use std::net::IpAddr;
use wire::secret::Secret;

/// A variable that says how to reach the control plane, and cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyEnvError {
    #[error("the environment variable `{variable}` names no proxy: `{value}`")]
    Proxy {
        variable: String,
        /// Without its password.
        value: String,
        #[source]
        source: ProxyUrlError,
    },
    #[error("the environment variable `{variable}` has an entry that is not taken: `{entry}`")]
    NoProxy {
        variable: String,
        entry: String,
        #[source]
        source: NoProxyError,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProxyError {
    #[error("it is not a network, address/bits")]
    Network,
    #[error("what follows its last `:` is not a port")]
    Port,
    #[error("it is not the name of a host")]
    Name,
}

impl Hint for ProxyEnvError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Proxy { variable, .. } => format!(
                "set `{variable}` to http://[user:password@]host:port, or to nothing for a direct connection; `proxy` of the configuration goes before it"
            ),
            Self::NoProxy { .. } => {
                "its entries are `*`, name[:port], .suffix, an address or a network like 10.0.0.0/8, with commas between them"
                    .to_owned()
            }
        })
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// One variable, by the name it was found under.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    value: SecretString,
}

/// The variables of one process, unjudged.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnv {
    https: Option<Variable>,
    http: Option<Variable>,
    none: Option<Variable>,
    /// Of the proxy, whether that is a variable's or the configuration's: a credential, no variable.
    password: Option<Secret>,
}

impl ProxyEnv {
    /// `read` gives a variable; the lower-case name wins, also where it is set to nothing.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let (name, value) = match read(&lower) {
                Some(value) => (lower, value),
                None => (name.to_owned(), read(name)?),
            };
            (!value.trim().is_empty()).then(|| Variable {
                name,
                value: SecretString::from(value),
            })
        };
        Self {
            https: variable("HTTPS_PROXY"),
            http: variable("HTTP_PROXY"),
            none: variable("NO_PROXY"),
            password: None,
        }
    }

    /// With the password of whichever proxy is used.
    #[must_use]
    pub fn with_password(self, password: Option<Secret>) -> Self {
        Self { password, ..self }
    }

    #[must_use]
    pub(in crate::transport) const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Of this process. What is not Unicode cannot be a URL, and is refused as that where it is used.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// # Errors
    /// Names the variable that cannot be understood.
    pub fn proxy_for(&self, origin: &Origin) -> Result<Option<ProxyUrl>, ProxyEnvError> {
        let variable = if origin.is_tls() {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        };
        let Some(variable) = variable else {
            return Ok(None);
        };
        if self.is_excepted(origin.host(), origin.port())? {
            return Ok(None);
        }
        parse(variable).map(Some)
    }

    fn is_excepted(&self, host: &str, port: u16) -> Result<bool, ProxyEnvError> {
        let host = host.to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        // Nobody means a proxy for loopback, and it could not reach ours.
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return Ok(true);
        }
        let Some(variable) = &self.none else {
            return Ok(false);
        };
        let mut is_excepted = false;
        // All are judged: a wrong one is found whatever stands before it.
        for entry in variable
            .value
            .expose_secret()
            .split([',', ' ', '\t'])
            .filter(|entry| !entry.is_empty())
        {
            let exception = Exception::parse(&entry.to_ascii_lowercase()).map_err(|source| {
                ProxyEnvError::NoProxy {
                    variable: variable.name.clone(),
                    entry: entry.escape_debug().to_string(),
                    source,
                }
            })?;
            is_excepted |= exception.covers(&host, ip, port);
        }
        Ok(is_excepted)
    }
}

fn parse(variable: &Variable) -> Result<ProxyUrl, ProxyEnvError> {
    let value = variable.value.expose_secret().trim();
    let url = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    let parsed = if url.contains(char::REPLACEMENT_CHARACTER) {
        Err(ProxyUrlError::Syntax {
            reason: "it is not Unicode text".to_owned(),
        })
    } else {
        ProxyUrl::parse(&url)
    };
    parsed.map_err(|source| ProxyEnvError::Proxy {
        variable: variable.name.clone(),
        value: without_password(value).escape_debug().to_string(),
        source,
    })
}

/// `user:***@host`, also of text that is no URL: whatever may be a password is left out.
fn without_password(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // A password may hold `@` or `/` unescaped, which is why it is no URL.
    if let Some((user, host)) = rest.rsplit_once('@') {
        let user = user.split(':').next().unwrap_or_default();
        return format!("{scheme}{user}:***@{host}");
    }
    match rest.rsplit_once(':') {
        Some((host, port))
            if !port
                .trim_end_matches('/')
                .bytes()
                .all(|byte| byte.is_ascii_digit()) =>
        {
            format!("{scheme}{host}:***")
        }
        Some(_) | None => text.to_owned(),
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Net(Net),
    /// This host and all below it.
    Name {
        name: String,
        port: Option<u16>,
    },
    Address {
        ip: IpAddr,
        port: Option<u16>,
    },
}

impl Exception {
    /// `text` is in lower case.
    fn parse(text: &str) -> Result<Self, NoProxyError> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        if let Some((base, bits)) = text.split_once('/') {
            return Net::parse(base, bits)
                .map(Self::Net)
                .ok_or(NoProxyError::Network);
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address { ip, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, digits)) if !digits.ends_with(']') => {
                let port = digits.parse().map_err(|_| NoProxyError::Port)?;
                (host, Some(port))
            }
            Some(_) | None => (text, None),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Address { ip, port });
        }
        let name = host
            .strip_prefix("*.")
            .or_else(|| host.strip_prefix('.'))
            .unwrap_or(host);
        let is_name = !name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            });
        if is_name {
            Ok(Self::Name {
                name: name.to_owned(),
                port,
            })
        } else {
            Err(NoProxyError::Name)
        }
    }

    fn covers(&self, host: &str, ip: Option<IpAddr>, at: u16) -> bool {
        let at_port = |port: &Option<u16>| port.is_none_or(|port| port == at);
        match self {
            Self::Everything => true,
            Self::Net(net) => ip.is_some_and(|ip| net.contains(ip)),
            Self::Address { ip: own, port } => ip == Some(*own) && at_port(port),
            Self::Name { name, port } => {
                let is_below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|front| front.is_empty() || front.ends_with('.'));
                is_below && at_port(port)
            }
        }
    }
}

/// `10.0.0.0/8`.
#[derive(Debug, PartialEq, Eq)]
struct Net {
    base: IpAddr,
    bits: u32,
}

impl Net {
    fn parse(base: &str, bits: &str) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::ErrorChain;

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
    fn the_variable_of_the_scheme_is_taken_and_lower_case_wins() {
        let env = env(&[
            ("HTTPS_PROXY", "http://a:1"),
            ("https_proxy", "b:2"),
            ("HTTP_PROXY", "http://c:3"),
        ]);
        let proxy = |url: &str| {
            let proxy = env.proxy_for(&origin(url)).expect("understood");
            proxy.map(|proxy| proxy.address())
        };
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
                "a.example, .b.example,c.example:8443,10.0.0.0/8 fd00::/8,192.0.2.7,[2001:db8::1]:8443,*.d.example",
            ),
        ]);
        for (url, direct) in [
            ("https://a.example", true),
            ("https://A.EXAMPLE", true),
            ("https://x.a.example", true),
            ("https://xa.example", false),
            ("https://x.b.example", true),
            ("https://c.example", false),
            ("https://c.example:8443", true),
            ("https://10.1.2.3", true),
            ("https://11.1.2.3", false),
            ("https://[fd00::1]", true),
            ("https://192.0.2.7", true),
            ("https://192.0.2.8", false),
            ("https://[2001:db8::1]:8443", true),
            ("https://[2001:db8::1]", false),
            ("https://x.d.example", true),
        ] {
            let proxy = env.proxy_for(&origin(url)).expect("understood");
            assert_eq!(proxy.is_none(), direct, "{url}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_an_error_with_its_name_its_value_and_the_cause() {
        for (value, shown, cause) in [
            (
                "socks5://proxy:1080",
                "`socks5://proxy:1080`",
                "not of the form",
            ),
            (
                "https://proxy:443",
                "`https://proxy:443`",
                "not of the form",
            ),
            ("http://proxy:99999", "`http://proxy:99999`", "invalid port"),
            (
                "http://proxy/path",
                "`http://proxy/path`",
                "not of the form",
            ),
            ("http://", "`http://`", "empty host"),
            ("proxy\u{fffd}:1", "`proxy\u{fffd}:1`", "Unicode"),
        ] {
            let error = env(&[("HTTPS_PROXY", value)])
                .proxy_for(&origin("https://x.example"))
                .expect_err(value);
            let words = ErrorChain(&error).to_string();
            assert!(
                words.contains("`HTTPS_PROXY`") && words.contains(shown) && words.contains(cause),
                "{words}"
            );
            assert_eq!(error.exit(), Exit::Config);
            let hint = error.hint().expect("says what to do");
            assert!(hint.contains("http://[user:password@]host:port"), "{hint}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        for value in [
            "socks5://user:hunter2@proxy:1",
            "http://user:hun/hunter2@proxy:1",
            "http://user:h@hunter2@proxy:x",
            "user:hunter2@",
            "http://user:hunter2",
            "socks5://user:hunter2/@proxy",
        ] {
            let env = env(&[("https_proxy", value)]);
            assert!(!format!("{env:?}").contains("hunter2"), "{value}");
            let error = env
                .proxy_for(&origin("https://x.example"))
                .expect_err(value);
            let words = format!("{} {:?} {error:?}", ErrorChain(&error), error.hint());
            assert!(!words.contains("hunter2"), "{words}");
            assert!(words.contains("`https_proxy`"), "{words}");
        }
    }

    #[test]
    fn a_no_proxy_that_cannot_be_understood_is_an_error_where_a_proxy_is_set() {
        for (entry, source) in [
            ("10.0.0.0/33", NoProxyError::Network),
            ("http://x.example", NoProxyError::Network),
            ("x.example:80x", NoProxyError::Port),
            ("x.*.example", NoProxyError::Name),
            ("x..example", NoProxyError::Name),
            (".", NoProxyError::Name),
        ] {
            let list = format!("x.example,{entry}");
            let both = env(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", &list)]);
            let error = both.proxy_for(&origin("https://x.example"));
            assert_eq!(
                error.expect_err(entry),
                ProxyEnvError::NoProxy {
                    variable: "NO_PROXY".to_owned(),
                    entry: entry.to_owned(),
                    source,
                }
            );
            let alone = env(&[("NO_PROXY", &list)]).proxy_for(&origin("https://x.example"));
            assert!(alone.expect("decides nothing").is_none());
        }
    }

    #[test]
    fn a_variable_that_decides_nothing_is_not_judged() {
        let env = env(&[("HTTP_PROXY", "nonsense://"), ("NO_PROXY", ".")]);
        let proxy = env.proxy_for(&origin("https://x.example"));
        assert!(proxy.expect("not asked").is_none());
    }
}
