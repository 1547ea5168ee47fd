//! Host keys of gitspaces, a file for each beside the settings. `ssh` reads it when the gitspace shows its key, which is after the relay has
//! written down what the control plane says.

use crate::{
    config::{ConfigError, Environment},
    error::CliError,
};
use camino::{Utf8Path, Utf8PathBuf};
use std::{fs, io, os::unix::fs::DirBuilderExt as _};
use wire::text::SshPublicKey;

const FOLDER: &str = "known_hosts";

#[derive(Clone, Debug)]
pub(super) struct KnownHosts {
    folder: Utf8PathBuf,
}

impl KnownHosts {
    pub(super) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let settings = environment.file()?;
        let folder = settings.parent().unwrap_or(Utf8Path::new("/")).join(FOLDER);
        Ok(Self { folder })
    }

    pub(super) fn file(&self, host: &str) -> Utf8PathBuf {
        self.folder.join(host)
    }

    /// Says that `host` has this key and no other.
    pub(super) fn set(&self, host: &str, key: &SshPublicKey) -> Result<(), CliError> {
        let path = self.file(host);
        let line = format!("{host} {key}\n");
        if fs::read_to_string(&path).is_ok_and(|known| known == line) {
            return Ok(());
        }
        let fail = |source| CliError::Write {
            path: path.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(fail)?;
        daemon::write_atomic(&path, line.as_bytes(), 0o600)
            .map_err(|error| fail(io::Error::other(error)))
    }
}
