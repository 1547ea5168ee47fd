//! Until when the certificates hold that this host's link depends on: the control plane's, and those of `ca_file`.

use crate::transport::Transport;
use admin::{Check, Severity};
use camino::Utf8PathBuf;
use daemon::{Clock, ErrorChain, Hint as _};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tls_roots::{Left, left};
use tls_server::ServedCertificate;

pub(crate) const CERTIFICATE: &str = "certificate";
pub(crate) const CA_FILE: &str = "ca_file";

/// A link may be older than the certificate that the control plane has by then. One that ends soon is looked at anew this often at most.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Whoever asks wants an answer.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What to look at, and when to warn. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// By what is embedded in this process.
    pub(crate) served: Option<ServedCertificate>,
    pub(crate) transport: Transport,
    pub(crate) ca_file: Option<Utf8PathBuf>,
    pub(crate) warn_days: u32,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Certificates {
    /// None where nothing depends on TLS.
    pub(crate) async fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        checks.extend(self.of_control_plane().await);
        checks.extend(self.of_ca_file());
        if let Some(served) = &self.served {
            checks.extend(served.checks(self.warn_days));
        }
        checks
    }

    async fn of_control_plane(&self) -> Option<Check> {
        let mut seen = self.transport.seen_certificate()?;
        let now = self.clock.now();
        if left(seen.not_after, now, self.warn_days) != Left::Enough
            && seen.at.elapsed() >= LOOK_EVERY
        {
            // Where there is no connection the check of the link says why.
            match tokio::time::timeout(LOOK_LIMIT, self.transport.connect()).await {
                Ok(Ok(_)) => seen = self.transport.seen_certificate()?,
                Ok(Err(error)) => {
                    tracing::debug!(error = %ErrorChain(&error), "The certificate cannot be looked at anew");
                }
                Err(_) => tracing::debug!("The certificate cannot be looked at in time"),
            }
        }
        let of = format!("the certificate of {}", self.transport.origin());
        let until = seen.not_after;
        Some(match left(until, now, self.warn_days) {
            Left::Enough => Check::good(CERTIFICATE, Severity::Warning, format!("{of} holds until {until}")),
            Left::Little { days } => Check::bad(
                CERTIFICATE,
                Severity::Warning,
                format!("{of} ends in {days} days, at {until}"),
            )
            .cause("whoever renews it did not, or what stands before the control plane did not load the renewed one")
            .fix("renew it where TLS ends: at the control plane's proxy or load balancer"),
            Left::Nothing => Check::bad(
                CERTIFICATE,
                Severity::Error,
                format!("{of} ended at {until}"),
            )
            .cause("the next connection is refused by this host")
            .fix("renew it where TLS ends, and look at this host's clock"),
        })
    }

    fn of_ca_file(&self) -> Option<Check> {
        let path = self.ca_file.as_ref()?;
        let certificates = match tls_roots::certificates_in(path) {
            Ok(certificates) => certificates,
            Err(error) => {
                let check = Check::bad(
                    CA_FILE,
                    Severity::Warning,
                    format!("`{path}` cannot be used at the next start"),
                )
                .cause(ErrorChain(&error).to_string());
                return Some(match error.hint() {
                    Some(hint) => check.fix(hint),
                    None => check,
                });
            }
        };
        let now = self.clock.now();
        let ends: Vec<Timestamp> = certificates
            .iter()
            .filter_map(tls_roots::not_after)
            .collect();
        // One that holds is enough: the others are on their way out.
        let Some(&last) = ends.iter().max() else {
            return Some(
                Check::bad(
                    CA_FILE,
                    Severity::Warning,
                    format!("`{path}` holds no certificate with an end"),
                )
                .fix("put the authority's certificate there, in PEM form"),
            );
        };
        let fix = format!(
            "put the authority's next certificate into `{path}` beside this one, and restart delegate-agent"
        );
        Some(match left(last, now, self.warn_days) {
            Left::Enough => Check::good(
                CA_FILE,
                Severity::Warning,
                format!("`{path}` holds until {last}"),
            ),
            Left::Little { days } => Check::bad(
                CA_FILE,
                Severity::Warning,
                format!("the authority in `{path}` ends in {days} days, at {last}"),
            )
            .fix(fix),
            Left::Nothing => Check::bad(
                CA_FILE,
                Severity::Error,
                format!("the authority in `{path}` ended at {last}"),
            )
            .cause("what it signed is refused by this host")
            .fix(fix),
        })
    }
}
