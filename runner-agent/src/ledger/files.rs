//! The ledger's files: each whole or not there; what cannot be read is put aside.

use super::{FORMAT, LedgerError};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// A record is a few kilobytes.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// A file that could not be read and was put aside.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Damaged {
    pub(crate) file: Utf8PathBuf,
    pub(crate) cause: String,
}

pub(super) fn write<T: Serialize>(
    dir: &Utf8Path,
    name: &str,
    value: &T,
) -> Result<(), LedgerError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|source| LedgerError::Json { source })?;
    daemon::fail_point("runner.ledger.write.before");
    daemon::write_atomic(&dir.join(format!("{name}.json")), &bytes, 0o600)
        .map_err(|source| LedgerError::Write { source })?;
    daemon::fail_point("runner.ledger.write.after");
    Ok(())
}

pub(super) fn remove(dir: &Utf8Path, name: &str) -> Result<(), LedgerError> {
    let path = dir.join(format!("{name}.json"));
    daemon::fail_point("runner.ledger.remove.before");
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LedgerError::Remove { path, source })
        }
        Ok(()) | Err(_) => {
            daemon::fail_point("runner.ledger.remove.after");
            Ok(())
        }
    }
}

/// Every readable entry of a folder, which is made where it is missing.
pub(super) fn load_dir<T: DeserializeOwned>(
    dir: &Utf8Path,
    damaged: &mut Vec<Damaged>,
) -> Result<Vec<T>, LedgerError> {
    let folder = |source| LedgerError::Folder {
        path: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(folder)?;
    let mut found = Vec::new();
    // All names first: what is renamed meanwhile is not read again.
    let mut paths = Vec::new();
    for entry in dir.read_dir_utf8().map_err(folder)? {
        paths.push(entry.map_err(folder)?.into_path());
    }
    for path in paths {
        if path.file_name().is_some_and(|name| name.starts_with('.')) {
            continue;
        }
        match path.extension() {
            Some("json") => {}
            // Told until somebody has looked at it and removed it.
            Some("damaged") => {
                damaged.push(Damaged {
                    file: path,
                    cause: "it was put aside at an earlier start".to_owned(),
                });
                continue;
            }
            _ => continue,
        }
        match load(&path) {
            Ok(value) => found.push(value),
            Err(cause) => {
                tracing::error!(file = %path, cause, "A damaged ledger entry is put aside");
                let aside = Utf8PathBuf::from(format!("{path}.damaged"));
                if let Err(error) = std::fs::rename(&path, &aside) {
                    tracing::error!(file = %path, %error, "Cannot put a damaged ledger entry aside");
                }
                // One of this name from before is replaced.
                damaged.retain(|known: &Damaged| known.file != aside);
                damaged.push(Damaged { file: aside, cause });
            }
        }
    }
    Ok(found)
}

fn load<T: DeserializeOwned>(path: &Utf8Path) -> Result<T, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > MAX_FILE {
        return Err(format!("it has {length} bytes, more than {MAX_FILE}"));
    }
    parse(&std::fs::read(path).map_err(|error| error.to_string())?)
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.format != FORMAT {
        return Err(format!(
            "it has format {}, and this version reads {FORMAT}",
            head.format
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
