//! Who this delegate is: a key it made itself, and the id the control plane gave it. One file, mode 0600.

use crate::state_folder::make_private;
use camino::Utf8PathBuf;
use daemon::{Exit, Hint, WriteError, write_atomic};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};
use token::{KeyError, SigningKey};
use wire::ids::DelegateUuid;

const FORMAT: u32 = 1;
const FILE: &str = "identity.json";
/// Beside it, while the key is rotated, or one is enrolled in its place: that one has no delegate.
const NEXT_FILE: &str = "identity.next.json";
/// Larger is not ours.
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {doing} `{path}`")]
    File {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` can be read by others: mode {mode:o}")]
    Mode { path: Utf8PathBuf, mode: u32 },
    #[error("`{path}` is not an identity")]
    Format {
        path: Utf8PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{path}` has format {found}, newer than {FORMAT}")]
    TooNew { path: Utf8PathBuf, found: u32 },
    #[error("the key in `{path}` is damaged")]
    Key {
        path: Utf8PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("cannot make a key")]
    Generate {
        #[source]
        source: KeyError,
    },
    #[error("cannot write `{path}`")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: WriteError,
    },
}

impl Hint for IdentityError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File { path, .. } | Self::Write { path, .. } => Some(format!(
                "let the user of delegate-agent own `{}`",
                path.parent().unwrap_or(path)
            )),
            Self::Mode { path, .. } => Some(format!("chmod 600 {path}")),
            Self::Format { path, .. } | Self::Key { path, .. } => Some(format!(
                "revoke this delegate at the control plane, remove `{path}`, and enrol again"
            )),
            Self::TooNew { .. } => {
                Some("install the version that wrote it, or a later one".to_owned())
            }
            Self::Generate { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// The key is made and kept before the control plane is asked, so that an answer that got lost can be asked for again.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    /// The control plane that was, or is to be, enrolled at.
    pub control_plane: String,
    pub key: SigningKey,
    /// `None` until enrolled.
    pub delegate: Option<DelegateUuid>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    name: String,
    control_plane: String,
    private_key: String,
    delegate: Option<DelegateUuid>,
}

/// Where the identity lies.
#[derive(Clone, Debug)]
pub struct IdentityFile {
    dir: Utf8PathBuf,
}

impl IdentityFile {
    #[must_use]
    pub fn new(state_dir: impl Into<Utf8PathBuf>) -> Self {
        Self {
            dir: state_dir.into(),
        }
    }

    #[must_use]
    pub fn path(&self) -> Utf8PathBuf {
        self.dir.join(FILE)
    }

    #[must_use]
    pub fn next_path(&self) -> Utf8PathBuf {
        self.dir.join(NEXT_FILE)
    }

    /// # Errors
    /// Refuses a file that others can read, and one that is not whole; a missing one is `None`.
    pub fn load(&self) -> Result<Option<Identity>, IdentityError> {
        read(self.path())
    }

    /// The same identity with its next key, where a rotation was begun.
    ///
    /// # Errors
    /// As [`IdentityFile::load`].
    pub fn load_next(&self) -> Result<Option<Identity>, IdentityError> {
        Ok(read(self.next_path())?.filter(|next| next.delegate.is_some()))
    }

    /// The key of an enrolment in place of this identity, where one was begun.
    ///
    /// # Errors
    /// As [`IdentityFile::load`].
    pub fn load_enrolling(&self) -> Result<Option<Identity>, IdentityError> {
        Ok(read(self.next_path())?.filter(|next| next.delegate.is_none()))
    }

    /// # Errors
    /// Fails where it cannot be made durable.
    pub fn save_next(&self, identity: &Identity) -> Result<(), IdentityError> {
        daemon::fail_point("delegate.next-key.before");
        self.write(self.next_path(), identity)?;
        daemon::fail_point("delegate.next-key.after");
        Ok(())
    }

    /// The rotation, or the enrolment, is over. Whether there was one.
    ///
    /// # Errors
    /// The file stays.
    pub fn forget_next(&self) -> Result<bool, IdentityError> {
        let path = self.next_path();
        daemon::fail_point("delegate.forget-next-key.before");
        match std::fs::remove_file(&path) {
            Ok(()) => {
                daemon::fail_point("delegate.forget-next-key.after");
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(IdentityError::File {
                doing: "remove",
                path,
                source,
            }),
        }
    }

    /// What a rotation or an enrolment that was killed has left is taken away where the next key is in force already. What is left then is a rotation that
    /// was begun and not finished: the key before is the one in force.
    ///
    /// # Errors
    /// As [`IdentityFile::load_next`].
    pub fn tidy(&self, identity: &Identity) -> Result<Rotating, IdentityError> {
        match read(self.next_path())? {
            None => Ok(Rotating::No),
            Some(next) if next.key.public() == identity.key.public() => {
                self.forget_next()?;
                Ok(Rotating::No)
            }
            Some(next) if next.delegate.is_some() => Ok(Rotating::Begun),
            Some(_) => Ok(Rotating::No),
        }
    }

    /// # Errors
    /// Fails where it cannot be made durable.
    pub fn save(&self, identity: &Identity) -> Result<(), IdentityError> {
        daemon::fail_point("delegate.identity.before");
        self.write(self.path(), identity)?;
        daemon::fail_point("delegate.identity.after");
        Ok(())
    }

    fn write(&self, path: Utf8PathBuf, identity: &Identity) -> Result<(), IdentityError> {
        make_private(&self.dir).map_err(|source| IdentityError::File {
            doing: "make",
            path: self.dir.clone(),
            source,
        })?;
        let stored = Stored {
            version: FORMAT,
            name: identity.name.clone(),
            control_plane: identity.control_plane.clone(),
            private_key: identity.key.to_text().expose_secret().to_owned(),
            delegate: identity.delegate,
        };
        let json = serde_json::to_vec_pretty(&stored).map_err(|source| IdentityError::Format {
            path: path.clone(),
            source,
        })?;
        write_atomic(&path, &json, 0o600).map_err(|source| IdentityError::Write { path, source })
    }
}

/// Whether a rotation of the key was begun and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotating {
    No,
    Begun,
}

/// The key that proofs are signed with; none before the host is enrolled, and a rotation replaces it while the delegate runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeyInUse(Arc<RwLock<Option<SigningKey>>>);

impl KeyInUse {
    #[must_use]
    pub fn get(&self) -> Option<SigningKey> {
        // Replaced whole.
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set(&self, key: SigningKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

fn read(path: Utf8PathBuf) -> Result<Option<Identity>, IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let fail = |source| IdentityError::File {
        doing: "read",
        path: path.clone(),
        source,
    };
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Mode { path, mode });
    }
    if metadata.len() > MAX_FILE {
        return Err(fail(io::ErrorKind::FileTooLarge.into()));
    }
    let text = SecretString::from(std::fs::read_to_string(&path).map_err(fail)?);
    let stored: Stored =
        serde_json::from_str(text.expose_secret()).map_err(|source| IdentityError::Format {
            path: path.clone(),
            source,
        })?;
    if stored.version > FORMAT {
        return Err(IdentityError::TooNew {
            path,
            found: stored.version,
        });
    }
    let key =
        SigningKey::from_text(&stored.private_key.into()).map_err(|source| IdentityError::Key {
            path: path.clone(),
            source,
        })?;
    Ok(Some(Identity {
        name: stored.name,
        control_plane: stored.control_plane,
        key,
        delegate: stored.delegate,
    }))
}

impl Identity {
    /// # Errors
    /// Fails where there is no randomness.
    pub fn generate(name: &str, control_plane: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            name: name.to_owned(),
            control_plane: control_plane.to_owned(),
            key: SigningKey::generate().map_err(|source| IdentityError::Generate { source })?,
            delegate: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file() -> (tempfile::TempDir, IdentityFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("state")).unwrap();
        (dir, IdentityFile::new(path))
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_and_by_nobody_else() {
        let (_guard, file) = file();
        assert!(file.load().unwrap().is_none());
        let identity = Identity::generate("host", "http://x").unwrap();
        file.save(&identity).unwrap();
        let mode = std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let read = file.load().unwrap().unwrap();
        assert_eq!(read.key.public(), identity.key.public());
        assert_eq!((read.name, read.delegate), ("host".to_owned(), None));
        assert!(!format!("{identity:?}").contains(identity.key.to_text().expose_secret()));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_guard, file) = file();
        file.save(&Identity::generate("host", "http://x").unwrap())
            .unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            file.load(),
            Err(IdentityError::Mode { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_next_key_that_is_in_force_is_tidied_away_and_one_that_is_not_is_kept() {
        let (_guard, file) = file();
        let identity = Identity::generate("host", "http://x").unwrap();
        file.save(&identity).unwrap();
        assert_eq!(file.tidy(&identity).unwrap(), Rotating::No);
        let next = Identity {
            delegate: Some(DelegateUuid::nil()),
            ..Identity::generate("host", "http://x").unwrap()
        };
        file.save_next(&next).unwrap();
        let mode = std::fs::metadata(file.next_path()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(file.tidy(&identity).unwrap(), Rotating::Begun);
        assert!(file.load_next().unwrap().is_some());
        assert_eq!(file.tidy(&next).unwrap(), Rotating::No);
        assert!(!file.next_path().exists());
    }

    #[test]
    fn the_key_of_an_enrolment_in_place_of_the_identity_is_no_rotation() {
        let (_guard, file) = file();
        let mut identity = Identity::generate("host", "http://x").unwrap();
        let enrolling = Identity::generate("host", "http://x").unwrap();
        file.save_next(&enrolling).unwrap();
        assert!(file.load_next().unwrap().is_none());
        assert!(file.load_enrolling().unwrap().is_some());
        assert_eq!(file.tidy(&identity).unwrap(), Rotating::No);
        assert!(file.next_path().exists(), "its answer may have been lost");
        // Killed after the switch.
        identity.key = enrolling.key;
        assert_eq!(file.tidy(&identity).unwrap(), Rotating::No);
        assert!(!file.next_path().exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_fresh_identity() {
        let (_guard, file) = file();
        file.save(&Identity::generate("host", "http://x").unwrap())
            .unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(matches!(file.load(), Err(IdentityError::Format { .. })));
    }
}
