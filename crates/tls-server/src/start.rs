//! From what was checked to what runs.

use crate::{
    names::Names,
    pair::CertificateError,
    redirect::{Redirect, RedirectError},
    served::ServedCertificate,
    settings::TlsPlan,
};
use camino::Utf8Path;
use daemon::{Clock, Exit, Hint, Lifecycle};
use std::sync::Arc;

/// Why TLS is not served.
#[derive(Debug, thiserror::Error)]
pub enum TlsStartError {
    #[error("cannot serve TLS")]
    Certificate {
        #[source]
        source: CertificateError,
    },
    #[error("cannot send browsers on to https")]
    Redirect {
        #[source]
        source: RedirectError,
    },
}

impl Hint for TlsStartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Certificate { source } => source.hint(),
            Self::Redirect { source } => source.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Certificate { source } => source.exit(),
            Self::Redirect { source } => source.exit(),
        }
    }
}

impl TlsPlan {
    /// Reads or makes the certificate, and spawns what keeps it new and what sends browsers on. `None` where nothing is served by TLS.
    /// Whoever starts a daemon also gives it [`ServedCertificate::reload`] for SIGHUP.
    ///
    /// # Errors
    /// See [`TlsStartError`].
    pub async fn start(
        &self,
        names: Names,
        state_dir: &Utf8Path,
        clock: Arc<dyn Clock>,
        lifecycle: &Lifecycle,
    ) -> Result<Option<ServedCertificate>, TlsStartError> {
        let Some(source) = self.source.clone() else {
            return Ok(None);
        };
        if let Some(address) = self.redirect_listen {
            let redirect = Redirect::to(&names)
                .bind(address)
                .await
                .map_err(|source| TlsStartError::Redirect { source })?;
            lifecycle.spawn("https-redirect", redirect.run(lifecycle.drain_token()));
        }
        let served = ServedCertificate::open(source, names, Some(state_dir), clock)
            .map_err(|source| TlsStartError::Certificate { source })?;
        lifecycle.spawn(
            "tls-certificate",
            served.clone().run(lifecycle.drain_token()),
        );
        Ok(Some(served))
    }
}
