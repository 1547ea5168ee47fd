//! Why the other end's certificate is not taken, in words that tell the operator what to mend.

use jiff::Timestamp;
use rustls::{CertificateError, pki_types::UnixTime};

/// Of [`super::ConnectError::Certificate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    #[error("it ended at {not_after}, and this host's clock says {now}")]
    Ended {
        not_after: Timestamp,
        now: Timestamp,
    },
    #[error("it holds from {not_before} on, and this host's clock says {now}")]
    NotYet {
        not_before: Timestamp,
        now: Timestamp,
    },
    #[error("it is for {}, and not for `{wanted}`", names(presented))]
    OtherName {
        wanted: String,
        presented: Vec<String>,
    },
    #[error("no authority that this host trusts has signed it")]
    UnknownIssuer,
    #[error("it is that of an authority itself, and not one that an authority gave to a server")]
    IsAuthority,
    #[error("{reason}")]
    Other { reason: String },
}

impl CertificateFault {
    pub(super) fn of(error: &CertificateError, host: &str) -> Self {
        match error {
            CertificateError::ExpiredContext { time, not_after } => Self::Ended {
                not_after: timestamp(*not_after),
                now: timestamp(*time),
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYet {
                not_before: timestamp(*not_before),
                now: timestamp(*time),
            },
            CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName {
                wanted: host.to_owned(),
                presented: presented.clone(),
            },
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Other(other)
                if matches!(
                    other.0.downcast_ref::<webpki::Error>(),
                    Some(webpki::Error::CaUsedAsEndEntity)
                ) =>
            {
                Self::IsAuthority
            }
            error => Self::Other {
                reason: error.to_string(),
            },
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Ended { .. } => Some(
                "renew it; where it has not ended, this host's clock is ahead: set it, `timedatectl set-ntp true`".to_owned(),
            ),
            Self::NotYet { .. } => Some(
                "where that time has come, this host's clock is behind: set it, `timedatectl set-ntp true`".to_owned(),
            ),
            Self::OtherName { wanted, .. } => Some(format!(
                "use a name that it has in the control plane's URL, or give the control plane a certificate for `{wanted}`"
            )),
            Self::UnknownIssuer => Some(
                "set `ca_file` to the certificate of the authority that signed it; where an authority between them did, the control plane has to send that one's too".to_owned(),
            ),
            Self::IsAuthority => Some(
                "give the control plane a certificate that the authority signed, without `CA:TRUE`, and set `ca_file` to the authority's".to_owned(),
            ),
            Self::Other { .. } => None,
        }
    }
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name".to_owned();
    }
    let names: Vec<_> = presented
        .iter()
        .map(|name| {
            // As rustls has them: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
            let bare = name
                .split_once('(')
                .and_then(|(_, name)| name.strip_suffix(')'))
                .unwrap_or(name)
                .trim_matches('"');
            format!("`{}`", wire::shown::line(bare))
        })
        .collect();
    names.join(", ")
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}
