//! The block of gitspaces in the configuration of ssh. Nothing else in the file is touched.

use crate::{
    config::{ConfigError, Environment},
    error::CliError,
};
use camino::{Utf8Path, Utf8PathBuf};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
};

const BEGIN: &str =
    "# >>> gitspaces: `gitspace config-ssh` writes this, and what is changed here is lost\n";
const END: &str = "# <<< gitspaces\n";
/// How a line of the first begins, whatever version wrote it.
const BEGINS: &str = "# >>> gitspaces";

/// `~/.ssh/config`.
pub(super) fn usual(environment: &Environment) -> Result<Utf8PathBuf, ConfigError> {
    let home = environment.home.as_ref().ok_or(ConfigError::NoHome)?;
    Ok(home.join(".ssh").join("config"))
}

/// Puts `block` there in the place of the one of before, or takes that out. False where it is so already.
pub(super) fn set(path: &Utf8Path, block: Option<&str>) -> Result<bool, CliError> {
    // A link into somebody's folder of settings stays one.
    let path = &path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned());
    let fail = |source| CliError::Write {
        path: path.clone(),
        source,
    };
    let (before, mode) = match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path).map_err(fail)?.permissions().mode();
            (text, mode & 0o777)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o600),
        Err(source) => {
            return Err(CliError::Input {
                what: format!("`{path}`"),
                source,
            });
        }
    };
    let Some(rest) = without(&before) else {
        return Err(CliError::usage(
            format!("the block of gitspaces in `{path}` has no end"),
            format!(
                "take the lines from `{BEGINS}` on out of it by hand, as far as they are not yours"
            ),
        ));
    };
    // In front: of an option that is said twice, ssh takes the first.
    let after = match block {
        Some(block) => format!("{BEGIN}{block}{END}{rest}"),
        None => rest,
    };
    if after == before {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fail)?;
    }
    daemon::write_atomic(path, after.as_bytes(), mode)
        .map_err(|error| fail(io::Error::other(error)))?;
    Ok(true)
}

/// The text without its block. `None` where that has no end.
fn without(text: &str) -> Option<String> {
    let mut rest = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if line.starts_with(BEGINS) {
            inside = true;
        } else if inside && line.trim_end() == END.trim_end() {
            inside = false;
        } else if !inside {
            rest.push_str(line);
        }
    }
    (!inside).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(guard.path().join("ssh/config")).unwrap();
        (guard, path)
    }

    #[test]
    fn a_block_comes_is_replaced_and_goes_and_what_is_the_users_stays() {
        let (_guard, path) = file();
        let read = || fs::read_to_string(&path).unwrap();
        assert!(set(&path, Some("Host a\n")).unwrap());
        assert_eq!(read(), format!("{BEGIN}Host a\n{END}"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let own = "Host mine\n  Port 2222\n# no newline";
        fs::write(&path, format!("{BEGIN}Host a\n{END}{own}")).unwrap();
        assert!(set(&path, Some("Host b\n")).unwrap());
        assert_eq!(read(), format!("{BEGIN}Host b\n{END}{own}"));
        assert!(!set(&path, Some("Host b\n")).unwrap());
        assert!(set(&path, None).unwrap());
        assert_eq!(read(), own);
        assert!(!set(&path, None).unwrap());
    }

    #[test]
    fn a_block_without_an_end_is_left_to_its_user() {
        let (_guard, path) = file();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("{BEGIN}Host a\nHost mine\n");
        fs::write(&path, &text).unwrap();
        let error = set(&path, Some("Host b\n")).unwrap_err();
        assert!(error.to_string().contains("has no end"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_link_stays_a_link() {
        let (guard, path) = file();
        let target = Utf8PathBuf::try_from(guard.path().join("dotfiles")).unwrap();
        fs::write(&target, "Host mine\n").unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        set(&path, Some("Host a\n")).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(
            fs::read_to_string(&target)
                .unwrap()
                .ends_with("Host mine\n")
        );
    }
}
