//! Sealing of what has to be read again: AES-256-GCM with a key in a file of mode 0600 and a random nonce.
//!
//! A sealed value is `1 || nonce (12) || ciphertext and tag`. The associated data names what it is and whose, so that a row moved to
//! another user or host does not open.

use camino::{Utf8Path, Utf8PathBuf};
use data_encoding::BASE64URL_NOPAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{io, os::unix::fs::PermissionsExt as _};
use wire::secret::Secret;

const KEY: usize = 32;
const VERSION: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot read the key `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot keep a key in `{path}`")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: daemon::WriteError,
    },
    #[error(
        "the key `{path}` can be read by others (mode {mode:o}); make it 0600 and replace what it sealed"
    )]
    Exposed { path: Utf8PathBuf, mode: u32 },
    #[error("`{path}` does not hold a key")]
    NoKey { path: Utf8PathBuf },
    #[error("the sealing key that was handed over is not {KEY} bytes in base64url")]
    GivenKey,
    #[error("the operating system has no randomness to give")]
    Random,
    #[error("cannot seal {what}")]
    Seal { what: &'static str },
    #[error("cannot open {what}: it was sealed with another key, for another owner, or is damaged")]
    Open { what: &'static str },
}

/// What a sealed value is, and whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) what: &'static str,
    pub(crate) owner: &'a str,
    /// Distinguishes values of one owner.
    pub(crate) name: &'a str,
}

impl Label<'_> {
    /// Lengths in front, so that no two labels have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.what, self.owner, self.name] {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// The key that seals. Never printed.
pub(crate) struct SealKey(LessSafeKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey([redacted])")
    }
}

impl SealKey {
    /// The key in `path`; makes it where there is none. Blocks on the disk.
    pub(crate) fn open_or_make(path: &Utf8Path) -> Result<Self, SealError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => {
                let mode = std::fs::metadata(path)
                    .map_err(|source| SealError::Read {
                        path: path.to_owned(),
                        source,
                    })?
                    .permissions()
                    .mode()
                    & 0o777;
                if mode & 0o077 != 0 {
                    return Err(SealError::Exposed {
                        path: path.to_owned(),
                        mode,
                    });
                }
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY];
                getrandom::fill(&mut key).map_err(|_| SealError::Random)?;
                let text = BASE64URL_NOPAD.encode(&key);
                daemon::write_atomic(path, text.as_bytes(), 0o600).map_err(|source| {
                    SealError::Write {
                        path: path.to_owned(),
                        source,
                    }
                })?;
                text
            }
            Err(source) => {
                return Err(SealError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text).ok_or_else(|| SealError::NoKey {
            path: path.to_owned(),
        })
    }

    /// The key that the service manager handed over.
    pub(crate) fn given(key: &Secret) -> Result<Self, SealError> {
        Self::parse(key.expose()).ok_or(SealError::GivenKey)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, label: Label<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut text = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(label.bytes()),
                &mut text,
            )
            .map_err(|_| SealError::Seal { what: label.what })?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        Ok(sealed)
    }

    pub(crate) fn open(&self, label: Label<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = || SealError::Open { what: label.what };
        let (&version, rest) = sealed.split_first().ok_or_else(refused)?;
        if version != VERSION {
            return Err(refused());
        }
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut text = text.to_vec();
        let length = self
            .0
            .open_in_place(nonce, Aad::from(label.bytes()), &mut text)
            .map_err(|_| refused())?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    const LABEL: Label<'static> = Label {
        what: "a test",
        owner: "ada",
        name: "x",
    };

    #[test]
    fn what_was_sealed_opens_again_after_a_restart() {
        let (_guard, dir) = dir();
        let path = dir.join("seal.key");
        let sealed = SealKey::open_or_make(&path)
            .unwrap()
            .seal(LABEL, b"hunter2")
            .unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        let again = SealKey::open_or_make(&path).unwrap();
        assert_eq!(again.open(LABEL, &sealed).unwrap(), b"hunter2");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_value_moved_changed_or_cut_does_not_open() {
        let (_guard, dir) = dir();
        let key = SealKey::open_or_make(&dir.join("seal.key")).unwrap();
        let sealed = key.seal(LABEL, b"hunter2").unwrap();
        for other in [
            Label {
                owner: "bob",
                ..LABEL
            },
            Label {
                owner: "adax",
                name: "",
                ..LABEL
            },
            Label { what: "b", ..LABEL },
        ] {
            assert!(key.open(other, &sealed).is_err());
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key.open(LABEL, &changed).is_err(), "changed at {index}");
            assert!(key.open(LABEL, &sealed[..index]).is_err(), "cut at {index}");
        }
        let other = SealKey::open_or_make(&dir.join("other.key")).unwrap();
        assert!(other.open(LABEL, &sealed).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_guard, dir) = dir();
        let path = dir.join("seal.key");
        SealKey::open_or_make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            SealKey::open_or_make(&path),
            Err(SealError::Exposed { mode: 0o644, .. })
        ));
    }
}
