//! Which servers a daemon trusts: the host's certificate authorities, and those of one more file.

mod validity;

pub use validity::{Left, WARN_DAYS, left, not_after};

use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Exit, Hint};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificates in `{path}`: {reason}")]
    CaFile { path: Utf8PathBuf, reason: String },
    #[error("`{path}` holds no certificate")]
    EmptyCaFile { path: Utf8PathBuf },
    #[error("a certificate in `{path}` cannot be a root")]
    Root {
        path: Utf8PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("this host trusts no certificate authority: {reason}")]
    NoRoots { reason: String },
    #[error("TLS cannot be set up")]
    Protocol {
        #[source]
        source: rustls::Error,
    },
}

impl Hint for TlsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::CaFile { path, .. } | Self::EmptyCaFile { path } | Self::Root { path, .. } => {
                Some(format!(
                    "`{path}` (`ca_file`) has to hold certificates in PEM form"
                ))
            }
            Self::NoRoots { .. } => {
                Some("install the package `ca-certificates`, or set `ca_file`".to_owned())
            }
            Self::Protocol { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// Those of a `ca_file`.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn certificates_in(path: &Utf8Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::CaFile {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(TlsError::EmptyCaFile {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// For connections to the control plane.
///
/// # Errors
/// No authority is trusted, or `ca_file` holds none.
pub fn client_config(ca_file: Option<&Utf8Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(native.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "Some of the host's certificates cannot be roots");
    }
    if let Some(path) = ca_file {
        for certificate in certificates_in(path)? {
            roots.add(certificate).map_err(|source| TlsError::Root {
                path: path.to_owned(),
                source,
            })?;
        }
    }
    if roots.is_empty() {
        let reasons: Vec<_> = native.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots {
            reason: if reasons.is_empty() {
                "none is installed".to_owned()
            } else {
                reasons.join("; ")
            },
        });
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Protocol { source })?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
