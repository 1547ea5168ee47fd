//! The state folder is one process's at a time: the daemon's, or that of a command that changes the identity.

use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Exit, Hint, StateLock, StateLockError};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum StateFolderError {
    #[error("cannot make the state folder `{path}`")]
    Make {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot lock the state folder: cannot open `{path}`")]
    Open {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another delegate-agent runs with the state folder `{path}`")]
    InUse { path: Utf8PathBuf },
}

impl Hint for StateFolderError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Make { path, .. } | Self::Open { path, .. } => format!(
                "let the user of delegate-agent own `{}`",
                path.parent().unwrap_or(path)
            ),
            Self::InUse { .. } => {
                "stop it first: `systemctl stop delegate-agent`; two delegates need two state folders"
                    .to_owned()
            }
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Make { .. } | Self::Open { .. } => Exit::Config,
            Self::InUse { .. } => Exit::Unavailable,
        }
    }
}

/// Takes the folder, which is made where it is not there.
///
/// # Errors
/// See [`StateFolderError`].
pub fn take(state_dir: &Utf8Path) -> Result<StateLock, StateFolderError> {
    make_private(state_dir).map_err(|source| StateFolderError::Make {
        path: state_dir.to_owned(),
        source,
    })?;
    StateLock::take(state_dir).map_err(|error| match error {
        StateLockError::Open { path, source } => StateFolderError::Open { path, source },
        StateLockError::InUse { path } => StateFolderError::InUse { path },
    })
}

pub(crate) fn make_private(dir: &Utf8Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
