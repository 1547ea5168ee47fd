//! One process for one state folder.

use crate::atomic_file::{give_to_owner_of, open_lock, open_to_lock};
use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{fs::File, io};

const FILE: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum StateLockError {
    #[error("cannot lock the state folder: cannot open `{path}`")]
    Open {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another process uses the state folder `{path}`")]
    InUse { path: Utf8PathBuf },
}

/// Held as long as it is not dropped. The kernel ends it with the process, however that ends.
#[derive(Debug)]
#[must_use = "the lock ends with it"]
pub struct StateLock {
    _file: Flock<File>,
}

impl StateLock {
    /// Takes the lock of a state folder that is there. Nobody is waited for.
    ///
    /// # Errors
    /// Another one has it, or its file cannot be opened.
    pub fn take(state_dir: &Utf8Path) -> Result<Self, StateLockError> {
        let path = state_dir.join(FILE);
        let fail = |source| StateLockError::Open {
            path: path.clone(),
            source,
        };
        let file = open_to_lock(&path).map_err(fail)?;
        give_to_owner_of(state_dir, &file).map_err(fail)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => Err(StateLockError::InUse {
                path: state_dir.to_owned(),
            }),
            Err((_, errno)) => Err(fail(errno.into())),
        }
    }

    /// Whether a process has the lock of this folder.
    ///
    /// # Errors
    /// A process of this user could not take it.
    pub fn is_held(state_dir: &Utf8Path) -> Result<bool, StateLockError> {
        let path = state_dir.join(FILE);
        is_locked(&path).map_err(|source| StateLockError::Open { path, source })
    }
}

/// Whether a process has a lock on this file. Nothing is made, and nobody is waited for; where it is free, it is taken for that moment.
///
/// # Errors
/// The file is there and this user cannot lock it.
pub fn is_locked(path: &Utf8Path) -> io::Result<bool> {
    let file = match open_lock(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_free) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;
    use std::os::unix::fs::MetadataExt as _;

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_second_one_is_refused_until_the_first_is_gone() {
        let (_guard, dir) = dir();
        let first = StateLock::take(&dir).unwrap();
        assert!(matches!(
            StateLock::take(&dir),
            Err(StateLockError::InUse { path }) if path == dir
        ));
        drop(first);
        drop(StateLock::take(&dir).unwrap());
    }

    #[test]
    fn what_root_locks_can_be_locked_by_the_user_whose_folder_it_is() {
        let (_guard, dir) = dir();
        let nobody = 65_534;
        if geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(nobody), Some(nobody)).unwrap();
        }
        drop(StateLock::take(&dir).unwrap());
        let owner = |path: &Utf8Path| std::fs::metadata(path).unwrap().uid();
        assert_eq!(owner(&dir.join(FILE)), owner(&dir));
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let (_guard, dir) = dir();
        let elsewhere = dir.join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, dir.join(FILE)).unwrap();
        assert!(matches!(
            StateLock::take(&dir),
            Err(StateLockError::Open { .. })
        ));
        assert!(!elsewhere.exists());
    }
}
