//! The key that the gitspace proves itself with. It is made inside, and never leaves: the control plane publishes its public half.
//!
//! It lies in the gitspace's volume, as root's, so that it stays the same for as long as the gitspace's files do. Users may move what is in the
//! volume: a folder that is not root's own is not used.

use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, fstat, mkdirat},
    unistd::unlinkat,
};
use ssh_transport::HostKey;
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

const FOLDER: &str = ".gitspaces";
const FILE: &str = "ssh_host_ed25519_key";
/// A key has less than a kilobyte.
const MAX_FILE: u64 = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HostKeyError {
    #[error("cannot use the folder `{path}` for the SSH host key: {source}")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the folder `{path}` for the SSH host key belongs to user {owner} and not to root")]
    Owner { path: Utf8PathBuf, owner: u32 },
    #[error("cannot read or keep the SSH host key in `{path}`: {source}")]
    Keep {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("it was stopped while the SSH host key was made")]
    Interrupted,
    #[error("cannot make an SSH host key: {0}")]
    Make(#[from] ssh_transport::HostKeyError),
}

/// The key in `volume`; makes it where there is none. What lies there and is no key is replaced: nobody could use it. Blocks on the disk.
pub(crate) fn open_or_make(volume: &Utf8Path) -> Result<HostKey, HostKeyError> {
    let folder = open_folder(volume)?;
    let path = volume.join(FOLDER).join(FILE);
    let failed = |source| HostKeyError::Keep {
        path: path.clone(),
        source,
    };
    if let Some(text) = read(&folder).map_err(failed)? {
        match HostKey::parse(&text) {
            Ok(key) => return Ok(key),
            Err(error) => {
                tracing::error!(%error, %path, "The SSH host key is damaged; another one is made");
            }
        }
    }
    let key = HostKey::generate()?;
    write(&folder, key.to_file().as_bytes()).map_err(failed)?;
    Ok(key)
}

fn open_folder(volume: &Utf8Path) -> Result<OwnedFd, HostKeyError> {
    let path = volume.join(FOLDER);
    let fail = |source: Errno| HostKeyError::Folder {
        path: path.clone(),
        source: source.into(),
    };
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let parent = nix::fcntl::open(volume.as_std_path(), directory, Mode::empty()).map_err(fail)?;
    match mkdirat(&parent, FOLDER, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(fail(error)),
    }
    let folder = openat(&parent, FOLDER, directory, Mode::empty()).map_err(fail)?;
    let owner = fstat(&folder).map_err(fail)?.st_uid;
    let ours = nix::unistd::geteuid().as_raw();
    if owner == ours {
        Ok(folder)
    } else {
        Err(HostKeyError::Owner { path, owner })
    }
}

fn read(folder: &OwnedFd) -> io::Result<Option<String>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(folder.as_fd(), FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    // What is no text is no key.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn write(folder: &OwnedFd, text: &[u8]) -> io::Result<()> {
    const PARTIAL: &str = "ssh_host_ed25519_key.partial";
    match unlinkat(
        folder.as_fd(),
        PARTIAL,
        nix::unistd::UnlinkatFlags::NoRemoveDir,
    ) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(
        folder.as_fd(),
        PARTIAL,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?);
    file.write_all(text)?;
    file.sync_all()?;
    nix::fcntl::renameat(folder.as_fd(), PARTIAL, folder.as_fd(), FILE)?;
    nix::unistd::fsync(folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(guard.path().to_owned()).unwrap();
        (guard, path)
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_guard, volume) = volume();
        let made = open_or_make(&volume).unwrap();
        let again = open_or_make(&volume).unwrap();
        assert_eq!(made.public(), again.public());
        let mode = std::fs::metadata(volume.join(FOLDER).join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_replaced() {
        let (_guard, volume) = volume();
        let made = open_or_make(&volume).unwrap();
        std::fs::write(volume.join(FOLDER).join(FILE), "nonsense").unwrap();
        let other = open_or_make(&volume).unwrap();
        assert_ne!(made.public(), other.public());
        assert_eq!(other.public(), open_or_make(&volume).unwrap().public());
    }

    #[test]
    fn no_link_is_followed_to_where_the_key_would_lie() {
        let (_guard, volume) = volume();
        let (_elsewhere_guard, elsewhere) = self::volume();
        std::os::unix::fs::symlink(&elsewhere, volume.join(FOLDER)).unwrap();
        assert!(matches!(
            open_or_make(&volume),
            Err(HostKeyError::Folder { .. })
        ));
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
