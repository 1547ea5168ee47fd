//! The gateway's host key: made at the first start, and never replaced.

use crate::GatewayError;
use camino::Utf8Path;
use ssh_transport::HostKey;
use std::{io, os::unix::fs::PermissionsExt as _};

/// The key in the file, or one that is made and put there where no file is.
///
/// A file that cannot be used is an error: another key would be a warning of an attack to everybody who knows this one.
pub(crate) fn load_or_make(path: &Utf8Path) -> Result<HostKey, GatewayError> {
    match load(path)? {
        Some(key) => Ok(key),
        None => make(path),
    }
}

/// Whether the SSH host key in the file can be used, or is not made yet.
///
/// # Errors
/// What a start would say of it.
pub fn look_at_ssh_host_key(path: &Utf8Path) -> Result<(), GatewayError> {
    load(path).map(drop)
}

fn load(path: &Utf8Path) -> Result<Option<HostKey>, GatewayError> {
    let failed = |source| GatewayError::HostKeyFile {
        path: path.to_owned(),
        source,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // Of a folder that is none, the write says so.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mode = std::fs::metadata(path)
        .map_err(failed)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(GatewayError::HostKeyExposed {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    HostKey::parse(&text)
        .map(Some)
        .map_err(|source| GatewayError::HostKey {
            path: path.to_owned(),
            source,
        })
}

fn make(path: &Utf8Path) -> Result<HostKey, GatewayError> {
    let key = HostKey::generate().map_err(|source| GatewayError::HostKey {
        path: path.to_owned(),
        source,
    })?;
    daemon::write_atomic(path, key.to_file().as_bytes(), 0o600).map_err(|source| {
        GatewayError::HostKeyWrite {
            path: path.to_owned(),
            source,
        }
    })?;
    tracing::info!(%path, "Made the SSH host key");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;
    use std::fs::Permissions;

    #[test]
    fn a_key_is_made_once_and_what_is_wrong_with_it_is_never_mended_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("key")).unwrap();
        let made = load_or_make(&path).unwrap().public();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load_or_make(&path).unwrap().public(), made);

        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let exposed = load_or_make(&path).unwrap_err();
        assert!(matches!(
            exposed,
            GatewayError::HostKeyExposed { mode: 0o640, .. }
        ));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for damaged in ["", "junk"] {
            std::fs::write(&path, damaged).unwrap();
            let refused = load_or_make(&path).unwrap_err();
            assert!(matches!(refused, GatewayError::HostKey { .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
        let nowhere = load_or_make(&path.join("below"));
        assert!(matches!(nowhere, Err(GatewayError::HostKeyWrite { .. })));
    }
}
