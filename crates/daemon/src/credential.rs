//! Secrets that the service manager hands over: files below `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), which only this
//! process's user can read, in memory that is not swapped.
//!
//! Where no service manager runs, the variable names a folder with the same files. An empty file is no secret: a unit gives one
//! (`SetCredential=name:`) for a secret that need not be there.

use camino::{Utf8Path, Utf8PathBuf};
use std::{
    fs::File,
    io::{self, Read as _},
};
use wire::secret::Secret;

/// Set by systemd.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// Of the packages' units.
const FOLDER: &str = "/etc/gitspaces/credentials";
/// Tokens, keys and passwords are a line or a few.
const MAX_SECRET: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("cannot read the credential `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the credential `{path}` has more than {MAX_SECRET} bytes")]
    TooLarge { path: Utf8PathBuf },
}

impl crate::Hint for CredentialError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(
                "it has to be text that the user of this process can read; see `LoadCredential=` in the unit".to_owned(),
            ),
            Self::TooLarge { .. } => None,
        }
    }

    fn exit(&self) -> crate::Exit {
        crate::Exit::Config
    }
}

/// The folder of this process's credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    dir: Option<Utf8PathBuf>,
}

impl Credentials {
    /// As the service manager says in the environment.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            dir: std::env::var(VARIABLE).ok().map(Utf8PathBuf::from),
        }
    }

    /// Those of the process where the service manager gave some, else, for root, the files that the units take them from: a command
    /// that root runs by hand works with what the daemon works with.
    #[must_use]
    pub fn of_command() -> Self {
        let own = Self::of_process();
        if own.dir.is_none() && nix::unistd::geteuid().is_root() {
            return Self::in_dir(FOLDER);
        }
        own
    }

    /// Those in a folder.
    #[must_use]
    pub fn in_dir(dir: impl Into<Utf8PathBuf>) -> Self {
        Self {
            dir: Some(dir.into()),
        }
    }

    /// The file of this name, for what is read more than once; `None` where it was not given or is empty.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Utf8PathBuf>, CredentialError> {
        let given = self.get(name)?.is_some();
        Ok(self
            .dir
            .as_ref()
            .filter(|_| given)
            .map(|dir| dir.join(name)))
    }

    /// The secret of this name, without the white space around it; `None` where it was not given or is empty.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<Secret>, CredentialError> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        let text = read(&dir.join(name))?.unwrap_or_default();
        let secret = text.trim();
        Ok((!secret.is_empty()).then(|| Secret::new(secret)))
    }
}

/// A secret that the service manager gave to this process; see [`Credentials::get`].
///
/// # Errors
/// It is there and cannot be read.
pub fn credential(name: &str) -> Result<Option<Secret>, CredentialError> {
    Credentials::of_process().get(name)
}

fn read(path: &Utf8Path) -> Result<Option<String>, CredentialError> {
    let failed = |source| CredentialError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    let length = file
        .take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if u64::try_from(length).is_ok_and(|length| length <= MAX_SECRET) {
        Ok(Some(text))
    } else {
        Err(CredentialError::TooLarge {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_its_file_holds_and_an_empty_or_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(path.join("token"), "s3cret\n").unwrap();
        std::fs::write(path.join("empty"), "\n").unwrap();
        let credentials = Credentials::in_dir(path);
        let found = credentials.get("token").unwrap().unwrap();
        assert_eq!(found.expose(), "s3cret");
        assert!(credentials.get("empty").unwrap().is_none());
        assert!(credentials.get("other").unwrap().is_none());
        assert!(Credentials::default().get("token").unwrap().is_none());
    }

    #[test]
    fn what_is_no_text_or_too_long_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(path.join("bytes"), [0xff, 0xfe]).unwrap();
        std::fs::write(path.join("long"), vec![b'x'; 70_000]).unwrap();
        for name in ["bytes", "long"] {
            let error = Credentials::in_dir(path).get(name).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
