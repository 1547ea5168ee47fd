//! At which step there is no connection, why, and what mends that.

use super::{STEP_LIMIT, certificate::CertificateFault};
use rustls::{Error as TlsFailure, InvalidMessage};
use std::{fmt, io};

/// Who is at the other end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    ControlPlane,
    Gateway,
    Proxy,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "the control plane",
            Self::Gateway => "the gateway",
            Self::Proxy => "the proxy",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the name of {peer}, `{host}`, has no address here")]
    Resolve {
        peer: Peer,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to {peer} `{address}`")]
    Tcp {
        peer: Peer,
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{peer} `{address}` did not answer within {} s", STEP_LIMIT.as_secs())]
    TooLong { peer: Peer, address: String },
    #[error("the proxy `{proxy}` refuses to connect to `{address}`: {status}")]
    ProxyRefused {
        proxy: String,
        address: String,
        status: String,
        /// It was told one.
        has_user: bool,
    },
    #[error("the proxy `{proxy}` does not answer as a proxy does: {reason}")]
    ProxyProtocol { proxy: String, reason: String },
    #[error("{peer} `{address}` answers without TLS, and its URL begins with `https://`")]
    NotTls { peer: Peer, address: String },
    #[error("the certificate of `{address}` is not taken: {fault}")]
    Certificate {
        address: String,
        fault: CertificateFault,
    },
    #[error("TLS with `{address}` failed")]
    Tls {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("`{host}` is not a name that a certificate can have")]
    ServerName { host: String },
}

impl ConnectError {
    /// Of a handshake with `peer`, which is `host` at `address`.
    pub(super) fn of_handshake(peer: Peer, address: String, host: &str, source: io::Error) -> Self {
        let failure = source
            .get_ref()
            .and_then(|error| error.downcast_ref::<TlsFailure>());
        match failure {
            Some(TlsFailure::InvalidCertificate(error)) => Self::Certificate {
                address,
                fault: CertificateFault::of(error, host),
            },
            Some(TlsFailure::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                Self::NotTls { peer, address }
            }
            Some(_) | None => Self::Tls { address, source },
        }
    }

    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Resolve {
                peer: Peer::Proxy,
                host,
                ..
            } => Some(format!(
                "check the name in `proxy`, or in HTTPS_PROXY or HTTP_PROXY, and whether this host's DNS knows it: `getent hosts {host}`"
            )),
            Self::Resolve { peer, host, .. } => Some(format!(
                "check the name in {peer}'s URL, and whether this host's DNS knows it: `getent hosts {host}`; where only a proxy leads out, set `proxy`"
            )),
            Self::Tcp {
                peer: Peer::Proxy, ..
            }
            | Self::TooLong {
                peer: Peer::Proxy, ..
            } => Some(
                "is that the proxy's address and port, in `proxy` or in HTTPS_PROXY or HTTP_PROXY, and is the proxy running?"
                    .to_owned(),
            ),
            Self::Tcp { peer, source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Some(format!(
                    "nothing listens there: is {peer} running, and is this its port?"
                ))
            }
            Self::Tcp { peer, .. } | Self::TooLong { peer, .. } => Some(format!(
                "is {peer} running, and does a firewall let this host connect to it?"
            )),
            Self::ProxyRefused {
                address,
                status,
                has_user,
                ..
            } => proxy_hint(status, address, *has_user),
            Self::ProxyProtocol { .. } => Some(
                "is it an HTTP proxy? it is spoken to without TLS, and asked to CONNECT".to_owned(),
            ),
            Self::NotTls { peer, .. } => Some(format!(
                "is that the port of its TLS? where nothing in front of {peer} speaks TLS, its URL begins with `http://`"
            )),
            Self::Certificate { fault, .. } => fault.hint(),
            Self::Tls { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => Some(
                "it hung up in the middle of the handshake: is that the port of its TLS?".to_owned(),
            ),
            Self::Tls { .. } | Self::ServerName { .. } => None,
        }
    }
}

/// Of a proxy's answer to `CONNECT`.
fn proxy_hint(status: &str, address: &str, has_user: bool) -> Option<String> {
    let code = status.split(' ').next().unwrap_or_default();
    match code {
        "407" if has_user => Some(
            "it does not take this user with this password: check both; Basic is the only way that delegate-agent knows".to_owned(),
        ),
        "407" => Some(
            "write the user into `proxy`, http://user@host:port, and its password into the credential `proxy-password`".to_owned(),
        ),
        "403" => Some(format!(
            "its rules forbid it: let it connect to `{address}` for this host; where the control plane is reached without a proxy, name it in NO_PROXY and leave `proxy` out"
        )),
        "502" | "503" | "504" => Some(
            "it is the proxy that does not get there: is the control plane running, and is its name known where the proxy runs?".to_owned(),
        ),
        "400" | "404" | "405" | "501" => {
            Some("is it an HTTP proxy? it does not know CONNECT".to_owned())
        }
        _ => None,
    }
}
