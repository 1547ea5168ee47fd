//! Files that are whole or not there.

use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
};

/// Writers of the same file wait for each other; each wait ends with one of them done.
const MAX_TURNS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot write `{path}`: it is not a path to a file")]
    NotAPath { path: Utf8PathBuf },
    #[error("cannot write `{path}`: cannot {step}")]
    Io {
        path: Utf8PathBuf,
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Replaces the file at `path` by `bytes`, so that after a crash at any instruction, of this process or of the host,
/// it holds the old or the new content, and when this returns, the new.
///
/// The content is written to `.<name>.tmp` beside it, under a lock: what a crash leaves there is overwritten by the
/// next write and never more than one file. Blocks on the disk: call it from `spawn_blocking` where that matters.
///
/// # Errors
/// Says which step failed. Where it is the last one, the new content is in place, but may not survive a power cut.
pub fn write_atomic(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let fail = |step| {
        move |source| WriteError::Io {
            path: path.to_owned(),
            step,
            source,
        }
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(WriteError::NotAPath {
            path: path.to_owned(),
        });
    };
    let parent = if parent.as_str().is_empty() {
        Utf8Path::new(".")
    } else {
        parent
    };
    let temporary = parent.join(format!(".{name}.tmp"));
    let mut file = lock_temporary(&temporary).map_err(fail("open its temporary file"))?;
    file.set_len(0).map_err(fail("empty its temporary file"))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(fail("set its mode"))?;
    give_to_owner_of(parent, &file).map_err(fail("give it to the owner of its folder"))?;
    file.write_all(bytes)
        .map_err(fail("write its temporary file"))?;
    file.sync_all()
        .map_err(fail("flush its temporary file to the disk"))?;
    fs::rename(&temporary, path).map_err(fail("rename its temporary file"))?;
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(fail("flush its directory to the disk"))
}

/// What root writes into the folder of a daemon's own user, as at an enrolment, is for that daemon to read.
pub(crate) fn give_to_owner_of(dir: &Utf8Path, file: &File) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if geteuid().is_root() && owner.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// A file to be locked: made where it is missing, and not looked for behind a link.
pub(crate) fn open_to_lock(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// As [`open_to_lock`], where the file is there.
pub(crate) fn open_lock(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// The temporary file, locked, and still the one with that name.
fn lock_temporary(path: &Utf8Path) -> io::Result<Flock<File>> {
    for _ in 0..MAX_TURNS {
        let file = open_to_lock(path)?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        // Whoever had the lock before has renamed the file that this one waited for.
        match fs::symlink_metadata(path) {
            Ok(named) if named.ino() == file.metadata()?.ino() => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many processes write this file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn what_root_writes_into_the_folder_of_a_user_belongs_to_that_user() {
        let (_guard, dir) = dir();
        let nobody = 65_534;
        if geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(nobody), Some(nobody)).unwrap();
        }
        write_atomic(&dir.join("identity"), b"x", 0o600).unwrap();
        let owner = |path: &Utf8Path| {
            let of = fs::metadata(path).unwrap();
            (of.uid(), of.gid())
        };
        assert_eq!(owner(&dir.join("identity")), owner(&dir));
    }

    #[test]
    fn a_file_is_replaced_with_the_mode_asked_for() {
        let (_guard, dir) = dir();
        let path = dir.join("ledger.json");
        fs::write(&path, "a longer content than the next").unwrap();
        fs::write(
            dir.join(".ledger.json.tmp"),
            "left by a crash, and much longer",
        )
        .unwrap();
        write_atomic(&path, b"short", 0o640).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn concurrent_writers_leave_one_whole_content() {
        let (_guard, dir) = dir();
        let path = dir.join("state");
        std::thread::scope(|scope| {
            for byte in b'a'..=b'h' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_atomic(path, &[byte; 5000], 0o600).unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 5000);
        assert!(content.iter().all(|byte| *byte == content[0]));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let (_guard, dir) = dir();
        fs::write(dir.join("victim"), "kept").unwrap();
        std::os::unix::fs::symlink(dir.join("victim"), dir.join(".f.tmp")).unwrap();
        let error = write_atomic(&dir.join("f"), b"x", 0o600).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("cannot open its temporary file")
        );
        assert_eq!(fs::read_to_string(dir.join("victim")).unwrap(), "kept");
    }
}
