//! Which servers are trusted. Loaded at the first `https` connection only: reading a host's roots costs milliseconds.

use super::RequestError;
use camino::{Utf8Path, Utf8PathBuf};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{io, sync::Arc};

pub(crate) fn config(ca_file: Option<&Utf8PathBuf>) -> Result<Arc<ClientConfig>, RequestError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => from_host(),
    };
    if roots.is_empty() {
        return Err(RequestError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RequestError::Tls {
            url: "any server".to_owned(),
            source: io::Error::other(error),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The named file alone: what a user names is not widened by what the host trusts.
fn from_file(path: &Utf8Path) -> Result<RootCertStore, RequestError> {
    let fail = |source| RequestError::CaFile {
        path: path.to_owned(),
        source,
    };
    let pem = std::fs::read(path).map_err(fail)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fail(io::Error::other(error)))?;
        roots
            .add(certificate)
            .map_err(|error| fail(io::Error::other(error)))?;
    }
    if roots.is_empty() {
        return Err(fail(io::Error::other("no certificate is in it")));
    }
    Ok(roots)
}

fn from_host() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Single unreadable certificates are common on hosts; what matters is whether any is left.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
