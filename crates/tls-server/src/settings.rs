//! What an operator sets of TLS, checked before anything is opened.

use camino::Utf8PathBuf;
use daemon::{CredentialError, Credentials, Exit, Hint};
use serde::Deserialize;
use std::net::SocketAddr;
use url::Url;

/// Names of the credentials that stand for the files.
const CERTIFICATE: &str = "tls-certificate";
const KEY: &str = "tls-key";

/// `[tls]`, as written in a configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TlsSettings {
    /// PEM: the server's certificate, then those of the authorities between it and the root.
    pub certificate: Option<Utf8PathBuf>,
    /// PEM, for the daemon's user alone.
    pub key: Option<Utf8PathBuf>,
    /// An authority of this deployment's own, made at the first start.
    pub private_ca: bool,
    /// Plain HTTP on an address that other hosts reach: TLS ends in front of it.
    pub behind_tls_proxy: bool,
    /// Plain HTTP that sends browsers on to https, and does nothing else.
    pub redirect_listen: Option<SocketAddr>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Files {
        certificate: Utf8PathBuf,
        key: Utf8PathBuf,
    },
    PrivateCa,
}

/// Checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPlan {
    /// `None`: plain HTTP.
    pub source: Option<Source>,
    pub behind_tls_proxy: bool,
    pub redirect_listen: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsSettingsError {
    #[error("`[tls]` names a certificate and no key")]
    NoKey,
    #[error("`[tls]` names a key and no certificate")]
    NoCertificate,
    #[error("`[tls]` names a certificate, and `private_ca` makes one")]
    TwoSources,
    #[error("`tls.redirect_listen` is set, and there is no TLS to send anybody to")]
    NothingToRedirectTo,
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(
        "`{key}` is {listen}, which other hosts reach, and what goes over it would be readable to all between"
    )]
    PlainOutside {
        key: &'static str,
        listen: SocketAddr,
    },
    #[error("`{one}` and `{other}` are both {listen}")]
    SameAddress {
        one: &'static str,
        other: &'static str,
        listen: SocketAddr,
    },
    #[error("`{key}` is {url}, and TLS ends here")]
    PlainUrl { key: &'static str, url: String },
}

impl Hint for TlsSettingsError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKey | Self::NoCertificate => {
                "set `tls.certificate` and `tls.key`, or the credentials `tls-certificate` and `tls-key`: both of one kind".to_owned()
            }
            Self::TwoSources => "leave one of the two out".to_owned(),
            Self::NothingToRedirectTo => {
                "set `tls.certificate` and `tls.key`, or `tls.private_ca = true`".to_owned()
            }
            Self::Credential(error) => return error.hint(),
            Self::PlainOutside { .. } => {
                "set `tls.certificate` and `tls.key`, or `tls.private_ca = true`; or listen on 127.0.0.1. Where a proxy in front of it ends TLS: `tls.behind_tls_proxy = true`".to_owned()
            }
            Self::SameAddress { .. } => "give each a port of its own".to_owned(),
            Self::PlainUrl { .. } => "begin it with `https://`".to_owned(),
        })
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

impl TlsSettings {
    /// # Errors
    /// See [`TlsSettingsError`]. What the files hold is not looked at.
    pub fn check(self, credentials: &Credentials) -> Result<TlsPlan, TlsSettingsError> {
        let files = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return Err(TlsSettingsError::NoKey),
            (None, Some(_)) => return Err(TlsSettingsError::NoCertificate),
            (None, None) => match (credentials.file(CERTIFICATE)?, credentials.file(KEY)?) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (Some(_), None) => return Err(TlsSettingsError::NoKey),
                (None, Some(_)) => return Err(TlsSettingsError::NoCertificate),
                (None, None) => None,
            },
        };
        let source = match (files, self.private_ca) {
            (Some(_), true) => return Err(TlsSettingsError::TwoSources),
            (Some((certificate, key)), false) => Some(Source::Files { certificate, key }),
            (None, true) => Some(Source::PrivateCa),
            (None, false) => None,
        };
        if source.is_none() && self.redirect_listen.is_some() {
            return Err(TlsSettingsError::NothingToRedirectTo);
        }
        Ok(TlsPlan {
            source,
            behind_tls_proxy: self.behind_tls_proxy,
            redirect_listen: self.redirect_listen,
        })
    }
}

impl TlsPlan {
    /// Of the URLs that are not set.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.source.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Whether it may listen there. `key` is named in the error.
    ///
    /// # Errors
    /// Plain HTTP would be served to other hosts.
    pub fn check_listen(
        &self,
        key: &'static str,
        listen: SocketAddr,
    ) -> Result<(), TlsSettingsError> {
        if self.source.is_some()
            || self.behind_tls_proxy
            || listen.ip().to_canonical().is_loopback()
        {
            Ok(())
        } else {
            Err(TlsSettingsError::PlainOutside { key, listen })
        }
    }

    /// Whether all that listens, `tls.redirect_listen` too, can do it at once. Port 0 is another one each time.
    ///
    /// # Errors
    /// Two have one address.
    pub fn check_apart(
        &self,
        listeners: &[(&'static str, SocketAddr)],
    ) -> Result<(), TlsSettingsError> {
        let redirect = self
            .redirect_listen
            .map(|listen| ("tls.redirect_listen", listen));
        let mut before: Vec<(&'static str, SocketAddr)> = Vec::new();
        for (other, listen) in listeners.iter().copied().chain(redirect) {
            if let Some((one, _)) = before.iter().find(|(_, taken)| overlap(*taken, listen)) {
                return Err(TlsSettingsError::SameAddress { one, other, listen });
            }
            before.push((other, listen));
        }
        Ok(())
    }

    /// Whether what ends TLS is also called so.
    ///
    /// # Errors
    /// It is not.
    pub fn check_url(&self, key: &'static str, url: &Url) -> Result<(), TlsSettingsError> {
        if self.source.is_some() && url.scheme() != "https" {
            return Err(TlsSettingsError::PlainUrl {
                key,
                url: url.origin().ascii_serialization(),
            });
        }
        Ok(())
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(certificate: &str, key: &str) -> TlsSettings {
        let path = |path: &str| (!path.is_empty()).then(|| path.into());
        TlsSettings {
            certificate: path(certificate),
            key: path(key),
            ..TlsSettings::default()
        }
    }

    #[test]
    fn half_of_a_pair_and_two_sources_are_refused() {
        let none = Credentials::default();
        let refused = |settings: TlsSettings| settings.check(&none).unwrap_err();
        assert!(matches!(refused(files("c", "")), TlsSettingsError::NoKey));
        assert!(matches!(
            refused(files("", "k")),
            TlsSettingsError::NoCertificate
        ));
        let both = TlsSettings {
            private_ca: true,
            ..files("c", "k")
        };
        assert!(matches!(refused(both), TlsSettingsError::TwoSources));
        let redirect = TlsSettings {
            redirect_listen: Some(SocketAddr::from(([127, 0, 0, 1], 80))),
            ..TlsSettings::default()
        };
        assert!(matches!(
            refused(redirect),
            TlsSettingsError::NothingToRedirectTo
        ));
        assert_eq!(
            TlsSettings::default().check(&none).unwrap(),
            TlsPlan::default()
        );
    }

    #[test]
    fn credentials_stand_for_the_files_and_empty_ones_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(dir.path()).unwrap();
        let credentials = Credentials::in_dir(path);
        for name in [CERTIFICATE, KEY] {
            std::fs::write(path.join(name), "\n").unwrap();
        }
        let plan = || TlsSettings::default().check(&credentials);
        assert_eq!(plan().unwrap().source, None);
        std::fs::write(path.join(CERTIFICATE), "x").unwrap();
        assert!(matches!(plan(), Err(TlsSettingsError::NoKey)));
        std::fs::write(path.join(KEY), "x").unwrap();
        let expected = Source::Files {
            certificate: path.join(CERTIFICATE),
            key: path.join(KEY),
        };
        assert_eq!(plan().unwrap().source, Some(expected));
    }

    #[test]
    fn plain_http_stays_on_this_host_unless_somebody_says_what_ends_tls() {
        let outside: [SocketAddr; 3] = [
            "0.0.0.0:80".parse().unwrap(),
            "[::]:80".parse().unwrap(),
            "192.0.2.1:80".parse().unwrap(),
        ];
        let inside: [SocketAddr; 3] = [
            "127.0.0.1:80".parse().unwrap(),
            "127.9.9.9:80".parse().unwrap(),
            "[::1]:80".parse().unwrap(),
        ];
        let plain = TlsPlan::default();
        let told = TlsPlan {
            behind_tls_proxy: true,
            ..TlsPlan::default()
        };
        let tls = TlsPlan {
            source: Some(Source::PrivateCa),
            ..TlsPlan::default()
        };
        for listen in outside {
            assert!(plain.check_listen("listen", listen).is_err(), "{listen}");
            assert!(told.check_listen("listen", listen).is_ok(), "{listen}");
            assert!(tls.check_listen("listen", listen).is_ok(), "{listen}");
        }
        for listen in inside {
            assert!(plain.check_listen("listen", listen).is_ok(), "{listen}");
        }
        let http: Url = "http://x".parse().unwrap();
        let https: Url = "https://x".parse().unwrap();
        assert!(tls.check_url("public_url", &http).is_err());
        assert!(tls.check_url("public_url", &https).is_ok());
        // What ends TLS may be in front of it.
        assert!(plain.check_url("public_url", &https).is_ok());
    }

    #[test]
    fn two_listeners_at_one_address_are_refused_and_named() {
        let plan = TlsPlan {
            redirect_listen: Some(SocketAddr::from(([0, 0, 0, 0], 80))),
            ..TlsPlan::default()
        };
        let apart = |one: &str, other: &str| {
            plan.check_apart(&[
                ("listen", one.parse().unwrap()),
                ("ssh_listen", other.parse().unwrap()),
            ])
            .map_err(|error| error.to_string())
        };
        assert_eq!(apart("127.0.0.1:7080", "127.0.0.1:7082"), Ok(()));
        assert_eq!(apart("127.0.0.1:7080", "127.0.0.2:7080"), Ok(()));
        assert_eq!(apart("127.0.0.1:0", "127.0.0.1:0"), Ok(()));
        for (one, other, said) in [
            (
                "127.0.0.1:7080",
                "127.0.0.1:7080",
                "`listen` and `ssh_listen` are both 127.0.0.1:7080",
            ),
            (
                "0.0.0.0:7080",
                "127.0.0.1:7080",
                "`listen` and `ssh_listen` are both 127.0.0.1:7080",
            ),
            (
                "127.0.0.1:7080",
                "127.0.0.1:80",
                "`ssh_listen` and `tls.redirect_listen` are both 0.0.0.0:80",
            ),
        ] {
            assert_eq!(apart(one, other), Err(said.to_owned()));
        }
    }
}
