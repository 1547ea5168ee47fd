//! A certificate with its chain and its key, from PEM.

use crate::private_ca::PrivateCaError;
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Exit, Hint};
use jiff::Timestamp;
use ring::digest;
use rustls::{crypto::ring::default_provider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
};

/// A chain is a few certificates.
const MAX_FILE: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` has more than {MAX_FILE} bytes")]
    TooLarge { path: Utf8PathBuf },
    #[error("`{path}` holds no certificate: {reason}")]
    NoCertificate { path: Utf8PathBuf, reason: String },
    #[error("`{path}` holds no private key: {reason}")]
    NoKey { path: Utf8PathBuf, reason: String },
    #[error("every user of this host can read the key in `{path}` (mode {mode:o})")]
    KeyExposed { path: Utf8PathBuf, mode: u32 },
    #[error("the key in `{key}` is not that of the first certificate in `{certificate}`")]
    Pair {
        certificate: Utf8PathBuf,
        key: Utf8PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the certificate in `{path}` ended at {at}")]
    Ended { path: Utf8PathBuf, at: Timestamp },
    #[error("the certificate in `{path}` does not hold for {}", missing.join(", "))]
    Names {
        path: Utf8PathBuf,
        missing: Vec<String>,
    },
    #[error(transparent)]
    PrivateCa(#[from] PrivateCaError),
    #[error("TLS cannot be set up")]
    Protocol {
        #[source]
        source: rustls::Error,
    },
}

impl Hint for CertificateError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("let the user of this process read `{path}`")
            }
            Self::Read { .. } | Self::TooLarge { .. } | Self::NoCertificate { .. } => {
                "`tls.certificate` has to be a file of certificates in PEM form, the server's first"
                    .to_owned()
            }
            Self::NoKey { .. } => {
                "`tls.key` has to be a file with the key in PEM form, without a password".to_owned()
            }
            Self::KeyExposed { path, .. } => {
                format!("chmod o= {path}; and where others have read it, get a new key and certificate")
            }
            Self::Pair { .. } => {
                "name the two files of one certificate; the server's own comes first in its file".to_owned()
            }
            Self::Ended { .. } => "renew it, and look at this host's clock".to_owned(),
            Self::Names { .. } => {
                "get one for all names that clients use: the host of `public_url`, and for a gateway the wildcard below it".to_owned()
            }
            Self::PrivateCa(error) => return error.hint(),
            Self::Protocol { .. } => return None,
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::PrivateCa(error) => error.exit(),
            Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::NoCertificate { .. }
            | Self::NoKey { .. }
            | Self::KeyExposed { .. }
            | Self::Pair { .. }
            | Self::Ended { .. }
            | Self::Names { .. }
            | Self::Protocol { .. } => Exit::Config,
        }
    }
}

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) not_after: Timestamp,
}

impl Pair {
    /// From two files, which may be the same.
    pub(crate) fn read(certificate: &Utf8Path, key: &Utf8Path) -> Result<Self, CertificateError> {
        let (text, _) = bytes(certificate)?;
        let no_certificate = |reason: String| CertificateError::NoCertificate {
            path: certificate.to_owned(),
            reason,
        };
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| no_certificate(error.to_string()))?;
        let first = chain
            .first()
            .ok_or_else(|| no_certificate("there is none in PEM form".to_owned()))?;
        let not_after = tls_roots::not_after(first)
            .ok_or_else(|| no_certificate("the first one is malformed".to_owned()))?;
        let private = private_key(key)?;
        let key =
            CertifiedKey::from_der(chain, private, &default_provider()).map_err(|source| {
                CertificateError::Pair {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                    source,
                }
            })?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }

    /// The server's own.
    pub(crate) fn first(&self) -> Option<&CertificateDer<'static>> {
        self.key.cert.first()
    }
}

/// Refuses one that every user of the host can read.
pub(crate) fn private_key(path: &Utf8Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let (text, mode) = bytes(path)?;
    if mode & 0o007 != 0 {
        return Err(CertificateError::KeyExposed {
            path: path.to_owned(),
            mode,
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| CertificateError::NoKey {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// With the file's mode.
fn bytes(path: &Utf8Path) -> Result<(Vec<u8>, u32), CertificateError> {
    let failed = |source| CertificateError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    let mut text = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE) {
        Ok((text, mode))
    } else {
        Err(CertificateError::TooLarge {
            path: path.to_owned(),
        })
    }
}

/// As `openssl x509 -fingerprint -sha256` writes it.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = digest::digest(&digest::SHA256, certificate);
    let bytes: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    /// A self-signed pair for these names, in two files with these modes.
    pub(crate) fn write(dir: &Utf8Path, stem: &str, names: &[&str]) -> (Utf8PathBuf, Utf8PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (
            dir.join(format!("{stem}.pem")),
            dir.join(format!("{stem}.key")),
        );
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        (certificate, key)
    }

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_key_that_every_user_can_read_is_refused_and_one_for_a_group_is_not() {
        let (_guard, dir) = dir();
        let (certificate, key) = write(&dir, "a", &["x"]);
        for (mode, good) in [
            (0o600, true),
            (0o640, true),
            (0o400, true),
            (0o644, false),
            (0o604, false),
            (0o602, false),
        ] {
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            let read = Pair::read(&certificate, &key);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
        }
        let error = Pair::read(&certificate, &key).unwrap_err();
        assert!(error.to_string().contains("mode 602"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_told_with_its_file() {
        let (_guard, dir) = dir();
        let (certificate, key) = write(&dir, "a", &["x"]);
        let (_, other) = write(&dir, "b", &["x"]);
        assert!(matches!(
            Pair::read(&certificate, &other),
            Err(CertificateError::Pair { .. })
        ));
        assert!(matches!(
            Pair::read(&key, &key),
            Err(CertificateError::NoCertificate { .. })
        ));
        // As a certificate, its file may be read by all.
        fs::set_permissions(&certificate, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            Pair::read(&certificate, &certificate),
            Err(CertificateError::NoKey { .. })
        ));
        assert!(matches!(
            Pair::read(&dir.join("none"), &key),
            Err(CertificateError::Read { .. })
        ));
        fs::write(&certificate, vec![b'x'; 300_000]).unwrap();
        assert!(matches!(
            Pair::read(&certificate, &key),
            Err(CertificateError::TooLarge { .. })
        ));
    }
}
