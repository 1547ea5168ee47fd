//! Where a clone goes: made whole beside its place, and renamed.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use std::{fs, io};
use wire::failure::{Failure, FailureCode};

/// A checked destination.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) path: Utf8PathBuf,
    pub(super) partial: Utf8PathBuf,
    parent: Utf8PathBuf,
    name: String,
}

/// What is at the destination.
pub(super) enum Found {
    Nothing,
    Clone,
}

impl Destination {
    pub(super) fn new(path: &str, job: &str) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::new(
                FailureCode::PreconditionFailed,
                format!("cannot clone to `{path}`: {why}"),
            )
        };
        let checked = Utf8Path::new(path);
        if !checked.is_absolute() || path.contains('\0') {
            return Err(refuse("it is not an absolute path"));
        }
        if checked
            .components()
            .any(|part| matches!(part, Utf8Component::ParentDir | Utf8Component::CurDir))
        {
            return Err(refuse("it has `.` or `..` in it"));
        }
        let (Some(parent), Some(name)) = (checked.parent(), checked.file_name()) else {
            return Err(refuse("it is not the path of a folder"));
        };
        if name == ".git" || name.starts_with('-') {
            return Err(refuse("a clone cannot have this name"));
        }
        Ok(Self {
            path: parent.join(name),
            partial: parent.join(format!("{name}.partial-{job}")),
            parent: parent.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Looks, and removes what attempts before this one left.
    pub(super) fn prepare(&self) -> Result<Found, Failure> {
        let fail = |what: &str, error: &io::Error| cannot(what, self.path.as_str(), error);
        fs::create_dir_all(&self.parent).map_err(|error| fail("make the folder of", &error))?;
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail("look at", &error)),
            Ok(metadata) if !metadata.is_dir() => {
                return Err(self.occupied());
            }
            Ok(_) if fs::symlink_metadata(self.path.join(".git")).is_ok() => {
                self.remove_partials()?;
                return Ok(Found::Clone);
            }
            // An empty folder is in nobody's way.
            Ok(_) => fs::remove_dir(&self.path).map_err(|_| self.occupied())?,
        }
        self.remove_partials()?;
        Ok(Found::Nothing)
    }

    fn occupied(&self) -> Failure {
        Failure::new(
            FailureCode::PreconditionFailed,
            format!("`{}` exists and is not a clone", self.path),
        )
        .hint("reset or delete the gitspace")
    }

    /// Takes the place.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        fs::rename(&self.partial, &self.path)
            .map_err(|error| cannot("finish the clone at", self.path.as_str(), &error))
    }

    pub(super) fn remove_partials(&self) -> Result<(), Failure> {
        let fail = |error: &io::Error| cannot("tidy up beside", self.path.as_str(), error);
        let prefix = format!("{}.partial-", self.name);
        for entry in fs::read_dir(&self.parent).map_err(|error| fail(&error))? {
            let entry = entry.map_err(|error| fail(&error))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes())
            {
                fs::remove_dir_all(entry.path()).map_err(|error| fail(&error))?;
            }
        }
        Ok(())
    }
}

fn cannot(what: &str, path: &str, error: &io::Error) -> Failure {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let code = if full {
        FailureCode::DiskFull
    } else {
        FailureCode::Internal
    };
    let failure = Failure::new(code, format!("cannot {what} `{path}`")).detail(error.to_string());
    if full {
        failure.hint("free some disk space on the host, then try again")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_leaves_its_folder_is_refused() {
        for path in [
            "relative",
            "/",
            "/workspaces/../etc",
            "/workspaces/..",
            "/a/.git",
            "/a/-b",
            "/a\0b",
            "",
        ] {
            assert!(Destination::new(path, "1").is_err(), "{path:?}");
        }
        let good = Destination::new("/workspaces/app", "1").unwrap();
        assert_eq!(good.partial, "/workspaces/app.partial-1");
    }
}
