//! What a daemon tells of its certificate.

use crate::served::ServedCertificate;
use admin::{Check, Registry, Severity, metrics::gauge};
use tls_roots::{Left, left};

const CERTIFICATE: &str = "tls_certificate";
const RELOAD: &str = "tls_reload";

impl ServedCertificate {
    /// For alerts that are older than the warning.
    pub fn metrics(&self, registry: &mut Registry) {
        let view = self.view();
        gauge(
            registry,
            "gitspaces_tls_certificate_end_seconds",
            "When the certificate that is served ends, in seconds since 1970",
            u64::try_from(view.not_after.as_second()).unwrap_or_default(),
        );
        gauge(
            registry,
            "gitspaces_tls_certificate_refused",
            "Whether the newest certificate on the disk is not the one served",
            u64::from(view.not_taken.is_some()),
        );
    }

    /// Until when it holds, for whom, and whether the newest one is served.
    #[must_use]
    pub fn checks(&self, warn_days: u32) -> Vec<Check> {
        let view = self.view();
        let (file, until) = (&view.file, view.not_after);
        let renew = match &view.authority {
            None => {
                "renew it; what is written to its file is taken within half a minute".to_owned()
            }
            Some(authority) => format!(
                "the authority ends: remove `{}`, restart, and give the new file to all who trust this one",
                authority.file.parent().unwrap_or(&authority.file)
            ),
        };
        let certificate = match left(until, self.now(), warn_days) {
            Left::Nothing => Check::bad(
                CERTIFICATE,
                Severity::Error,
                format!("the certificate in `{file}` ended at {until}"),
            )
            .cause("no client takes it")
            .fix(renew),
            Left::Enough | Left::Little { .. } if !view.missing_names.is_empty() => Check::bad(
                CERTIFICATE,
                Severity::Error,
                format!(
                    "the certificate in `{file}` does not hold for {}",
                    view.missing_names.join(", ")
                ),
            )
            .cause("clients that use these names do not take it")
            .fix("get one for all names, the wildcard among them"),
            Left::Little { days } => Check::bad(
                CERTIFICATE,
                Severity::Warning,
                format!("the certificate in `{file}` ends in {days} days, at {until}"),
            )
            .fix(renew),
            Left::Enough => Check::good(
                CERTIFICATE,
                Severity::Warning,
                format!("the certificate holds until {until}"),
            ),
        };
        let reload = match view.not_taken {
            None => Check::good(
                RELOAD,
                Severity::Warning,
                "the newest certificate is the one served",
            ),
            Some(told) => {
                let check = Check::bad(
                    RELOAD,
                    Severity::Warning,
                    format!("the certificate on the disk is not taken since {}; the one before is served", told.since),
                )
                .cause(told.error);
                match told.hint {
                    Some(hint) => check.fix(hint),
                    None => check,
                }
            }
        };
        vec![certificate, reload]
    }
}
