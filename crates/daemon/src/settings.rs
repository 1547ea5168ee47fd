//! Configuration: one TOML file, drop-ins beside it, environment variables over them.
//!
//! Later sources win: `<path>`, then `<path>.d/*.toml` by name, then `<PREFIX>_<KEY>` (tables by two underscores:
//! `GITSPACES_RUNNER_API__SOCKET` is `api.socket`). A value of the wrong type is an error with the path of its key; an
//! unknown key is a warning with its path, so that an older daemon starts with a newer file.

mod fields;
mod problems;

pub use problems::Looked;

use camino::{Utf8Path, Utf8PathBuf};
use config::{Config, ConfigError, Environment, File, FileFormat, Value};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
};

/// A configuration is written by hand.
const MAX_FILE: u64 = 1024 * 1024;
const MAX_DROP_INS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the configuration `{path}` has {length} bytes, more than {MAX_FILE}")]
    TooLarge { path: Utf8PathBuf, length: u64 },
    #[error("the directory `{path}` holds more than {MAX_DROP_INS} files")]
    TooMany { path: Utf8PathBuf },
    #[error("a file name in `{dir}` is not UTF-8: {name}")]
    FileName { dir: Utf8PathBuf, name: String },
    #[error("cannot understand the configuration")]
    Parse {
        #[source]
        source: config::ConfigError,
    },
    #[error("the configuration has a wrong value at `{key}`")]
    Value {
        key: String,
        #[source]
        source: config::ConfigError,
    },
    #[error("the configuration is not complete")]
    Incomplete {
        #[source]
        source: config::ConfigError,
    },
}

impl crate::Hint for SettingsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, source } => match source.kind() {
                io::ErrorKind::NotFound => Some(format!("create `{path}`, or name another file")),
                io::ErrorKind::PermissionDenied => {
                    Some(format!("let the user of this process read `{path}`"))
                }
                _ => None,
            },
            Self::FileName { .. } | Self::TooLarge { .. } | Self::TooMany { .. } => None,
            Self::Parse { .. } | Self::Value { .. } | Self::Incomplete { .. } => None,
        }
    }

    fn exit(&self) -> crate::Exit {
        crate::Exit::Config
    }
}

/// A key that nothing reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownKey {
    pub path: String,
    /// The path of a key that is there and looks like it.
    pub near: Option<String>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown key `{}`", self.path)?;
        match &self.near {
            Some(near) => write!(f, ", did you mean `{near}`?"),
            None => Ok(()),
        }
    }
}

/// What was loaded, and what was not understood.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    pub value: T,
    /// Sorted.
    pub unknown_keys: Vec<UnknownKey>,
    /// The files that were read, in order.
    pub files: Vec<Utf8PathBuf>,
}

impl<T> Loaded<T> {
    /// Warns of each unknown key. Call it when logging is set up.
    pub fn log(&self) {
        for file in &self.files {
            tracing::info!(%file, "Configuration read");
        }
        for key in &self.unknown_keys {
            let near = key.near.as_deref();
            tracing::warn!(
                key = key.path,
                did_you_mean = near,
                "Unknown key in the configuration is ignored"
            );
        }
    }
}

/// Loads a file that must exist, with its drop-ins and the environment.
///
/// # Errors
/// See [`SettingsError`].
pub fn load<T: DeserializeOwned>(
    path: &Utf8Path,
    env_prefix: &str,
) -> Result<Loaded<T>, SettingsError> {
    Loader::new(path).env_prefix(env_prefix).load()
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Loader {
    path: Utf8PathBuf,
    required: bool,
    env_prefix: Option<String>,
    env: Option<HashMap<String, String>>,
}

impl Loader {
    #[must_use]
    pub fn new(path: impl Into<Utf8PathBuf>) -> Self {
        Self {
            path: path.into(),
            required: true,
            env_prefix: None,
            env: None,
        }
    }

    /// The file may be missing: for the default path, where nobody named one.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    #[must_use]
    pub fn env_prefix(mut self, prefix: &str) -> Self {
        self.env_prefix = Some(prefix.to_owned());
        self
    }

    /// Variables in place of the process's own. For tests.
    #[must_use]
    pub fn env<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env = Some(
            variables
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        );
        self
    }

    /// # Errors
    /// See [`SettingsError`].
    pub fn load<T: DeserializeOwned>(self) -> Result<Loaded<T>, SettingsError> {
        let files = self.files()?;
        let root = merge(&files, self.environment())?;
        let (value, unknown_keys) = deserialize(root)?;
        Ok(Loaded {
            value,
            unknown_keys,
            files,
        })
    }

    fn environment(&self) -> Option<Environment> {
        let prefix = self.env_prefix.as_ref()?;
        Some(
            Environment::with_prefix(prefix)
                .prefix_separator("_")
                .separator("__")
                .source(self.env.clone()),
        )
    }

    fn files(&self) -> Result<Vec<Utf8PathBuf>, SettingsError> {
        let mut files = Vec::new();
        match check(&self.path) {
            Ok(()) => files.push(self.path.clone()),
            Err(SettingsError::Read { source, .. })
                if !self.required && source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let dir = Utf8PathBuf::from(format!("{}.d", self.path));
        let fail = |source| SettingsError::Read {
            path: dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(fail(error)),
        };
        let mut drop_ins = Vec::new();
        for entry in entries {
            let name = entry.map_err(fail)?.file_name();
            let Some(name) = name.to_str() else {
                return Err(SettingsError::FileName {
                    dir,
                    name: name.to_string_lossy().into_owned(),
                });
            };
            // What editors and package managers leave behind is not meant.
            if name.ends_with(".toml") && !name.starts_with('.') {
                drop_ins.push(dir.join(name));
            }
            if drop_ins.len() > MAX_DROP_INS {
                return Err(SettingsError::TooMany { path: dir });
            }
        }
        drop_ins.sort();
        for path in drop_ins {
            check(&path)?;
            files.push(path);
        }
        Ok(files)
    }
}

/// One tree of all sources.
fn merge(files: &[Utf8PathBuf], environment: Option<Environment>) -> Result<Value, SettingsError> {
    let mut builder = Config::builder();
    for file in files {
        builder = builder.add_source(File::new(file.as_str(), FileFormat::Toml));
    }
    if let Some(environment) = environment {
        builder = builder.add_source(environment);
    }
    match builder.build() {
        Ok(config) => Ok(config.cache),
        Err(source) => Err(SettingsError::Parse { source }),
    }
}

/// A value that is not of its key's type, or a key that is missing.
struct WrongValue {
    path: serde_path_to_error::Path,
    source: ConfigError,
}

impl From<WrongValue> for SettingsError {
    fn from(wrong: WrongValue) -> Self {
        let WrongValue { path, source } = wrong;
        if path.iter().next().is_none() {
            Self::Incomplete { source }
        } else {
            Self::Value {
                key: path.to_string(),
                source,
            }
        }
    }
}

fn deserialize<T: DeserializeOwned>(root: Value) -> Result<(T, Vec<UnknownKey>), WrongValue> {
    let mut unknown = BTreeSet::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.insert((path.to_string(), keys(&path)));
    };
    let value = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(root, &mut note))
        .map_err(|error| WrongValue {
            path: error.path().clone(),
            source: error.into_inner(),
        })?;
    let unknown = unknown.into_iter().map(|(path, keys)| {
        let near = keys.split_last().and_then(|(last, tables)| {
            let near = fields::nearest(last, fields::fields_at::<T>(tables))?;
            Some(format!("{}{near}", path.strip_suffix(last.as_str())?))
        });
        UnknownKey { path, near }
    });
    Ok((value, unknown.collect()))
}

/// From the root down.
fn keys(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Map { parent, key } => {
            let mut keys = self::keys(parent);
            keys.push(key.clone());
            keys
        }
        Path::Seq { parent, index } => {
            let mut keys = self::keys(parent);
            keys.push(index.to_string());
            keys
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => self::keys(parent),
    }
}

fn check(path: &Utf8Path) -> Result<(), SettingsError> {
    let fail = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    // Opened, so that a file that may not be read is told from one that is missing.
    let file = std::fs::File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() > MAX_FILE {
        return Err(SettingsError::TooLarge {
            path: path.to_owned(),
            length: metadata.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorChain, Hint as _};
    use serde::Deserialize;
    use std::fs;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Settings {
        name: String,
        #[serde(default)]
        api: Api,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Api {
        socket: Option<String>,
        limit: u32,
    }

    fn write(content: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("agent.toml")).unwrap();
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn no_env() -> [(&'static str, &'static str); 0] {
        []
    }

    #[test]
    fn the_environment_wins_over_drop_ins_and_those_over_the_file() {
        let (_guard, path) = write("name = \"file\"\n[api]\nsocket = \"/a\"\nlimit = 1\n");
        let dir = Utf8PathBuf::from(format!("{path}.d"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("20-b.toml"), "[api]\nlimit = 3\n").unwrap();
        fs::write(dir.join("10-a.toml"), "[api]\nlimit = 2\nsocket = \"/b\"\n").unwrap();
        fs::write(dir.join("30-c.toml.dpkg-old"), "broken").unwrap();
        let loaded = Loader::new(&path)
            .env_prefix("GITSPACES_TEST")
            .env([("GITSPACES_TEST_API__SOCKET", "/c"), ("OTHER_NAME", "no")])
            .load::<Settings>()
            .unwrap();
        assert_eq!(
            loaded.value,
            Settings {
                name: "file".to_owned(),
                api: Api {
                    socket: Some("/c".to_owned()),
                    limit: 3
                }
            }
        );
        assert_eq!(loaded.files.len(), 3);
        assert!(loaded.unknown_keys.is_empty());
    }

    #[test]
    fn a_number_comes_from_the_environment() {
        let (_guard, path) = write("name = \"x\"\n");
        let loaded = Loader::new(&path)
            .env_prefix("T")
            .env([("T_API__LIMIT", "7")])
            .load::<Settings>()
            .unwrap();
        assert_eq!(loaded.value.api.limit, 7);
    }

    #[test]
    fn an_unknown_key_is_named_and_ignored() {
        let (_guard, path) = write("name = \"x\"\ncolour = 1\n[api]\nlimt = 2\n");
        let loaded = Loader::new(&path).load::<Settings>().unwrap();
        let unknown: Vec<_> = loaded
            .unknown_keys
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            unknown,
            [
                "unknown key `api.limt`, did you mean `api.limit`?",
                "unknown key `colour`"
            ]
        );
    }

    #[test]
    fn a_wrong_type_carries_the_path_of_its_key() {
        let (_guard, path) = write("name = \"x\"\n[api]\nlimit = \"many\"\n");
        let error = Loader::new(&path)
            .env_prefix("T")
            .env(no_env())
            .load::<Settings>()
            .unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(text.contains("`api.limit`"), "{text}");
        assert!(text.contains("many"), "{text}");
        assert!(text.contains("agent.toml"), "{text}");
    }

    #[test]
    fn a_missing_key_is_named() {
        let (_guard, path) = write("");
        let error = Loader::new(&path).load::<Settings>().unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(text.contains("name"), "{text}");
    }

    #[test]
    fn a_syntax_error_names_the_file_and_the_line() {
        let (_guard, path) = write("name = \"x\"\n[api\n");
        let error = Loader::new(&path).load::<Settings>().unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(
            text.contains("agent.toml") && text.contains("line 2"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_file_is_an_error_with_a_hint_unless_it_is_optional() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("none.toml")).unwrap();
        let error = Loader::new(&path).load::<Settings>().unwrap_err();
        assert!(error.hint().unwrap().starts_with("create `"));
        let loaded = Loader::new(&path).optional().load::<Api>().unwrap();
        assert_eq!(loaded.value, Api::default());
    }
}
