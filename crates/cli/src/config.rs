//! Which server, with which token: flags, then environment, then `cli.toml`.
//!
//! Invariant: a stored token goes to the server it was stored for and to no other. Another URL needs a token of its own.

use crate::net::Base;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
};
use wire::secret::Secret;

/// A token has 56 bytes; what is much longer is another file.
const MAX_TOKEN: u64 = 4096;
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("neither XDG_CONFIG_HOME nor HOME says where settings are kept")]
    NoHome,
    #[error("cannot read `{path}`")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write `{path}`")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` can be read by others")]
    Exposed { path: Utf8PathBuf },
    #[error("`{path}` is not understood")]
    Parse {
        path: Utf8PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{from}: {why}")]
    Url { from: String, why: String },
    #[error("the token in {from} is not one: {why}")]
    Token { from: String, why: &'static str },
    #[error("you are not logged in")]
    NotLoggedIn,
    #[error("the stored token is for {stored}, not for {asked}")]
    OtherServer { stored: String, asked: String },
}

impl ConfigError {
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoHome => "set HOME".to_owned(),
            Self::Exposed { path } => format!("it holds a token: chmod 600 {path}"),
            Self::Parse { path, .. } => {
                format!("write it again with `gitspace login`, or remove {path}")
            }
            Self::NotLoggedIn => {
                "gitspace login --url URL < TOKEN_FILE, or set GITSPACES_URL and GITSPACES_TOKEN_FILE"
                    .to_owned()
            }
            Self::OtherServer { .. } => {
                "name its own token with --token-file, or log in there".to_owned()
            }
            Self::Token { .. } => {
                "a personal access token starts with `gsp_`; see `gitspace token create`".to_owned()
            }
            Self::Read { .. } | Self::Write { .. } | Self::Url { .. } => return None,
        };
        Some(hint)
    }
}

/// What the process was started with, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) config_home: Option<Utf8PathBuf>,
    pub(crate) home: Option<Utf8PathBuf>,
    pub(crate) token: Option<String>,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            // The specification says that a relative one is to be ignored.
            config_home: variable("XDG_CONFIG_HOME")
                .map(Utf8PathBuf::from)
                .filter(|path| path.is_absolute()),
            home: variable("HOME").map(Utf8PathBuf::from),
            token: variable("GITSPACES_TOKEN"),
        }
    }

    pub(crate) fn file(&self) -> Result<Utf8PathBuf, ConfigError> {
        let folder = match (&self.config_home, &self.home) {
            (Some(folder), _) => folder.clone(),
            (None, Some(home)) => home.join(".config"),
            (None, None) => return Err(ConfigError::NoHome),
        };
        Ok(folder.join("gitspaces").join("cli.toml"))
    }
}

/// `cli.toml`. Unknown keys are those of another version, and kept out of the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) url: String,
    pub(crate) token: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<Utf8PathBuf>,
}

impl Stored {
    pub(crate) fn load(path: &Utf8Path) -> Result<Option<Self>, ConfigError> {
        let fail = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        if file.metadata().map_err(fail)?.mode() & 0o077 != 0 {
            return Err(ConfigError::Exposed {
                path: path.to_owned(),
            });
        }
        let mut text = String::new();
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(fail)?;
        toml::from_str(&text).map(Some).map_err(|mut source| {
            // The message quotes the line, and a line may hold the token.
            source.set_input(None);
            ConfigError::Parse {
                path: path.to_owned(),
                source: Box::new(source),
            }
        })
    }

    pub(crate) fn save(&self, path: &Utf8Path) -> Result<(), ConfigError> {
        let fail = |source| ConfigError::Write {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(fail)?;
        }
        let text = toml::to_string(self).map_err(|error| fail(io::Error::other(error)))?;
        daemon::write_atomic(path, text.as_bytes(), 0o600)
            .map_err(|error| fail(io::Error::other(error)))
    }
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) url: Option<String>,
    pub(crate) token_file: Option<Utf8PathBuf>,
    pub(crate) ca_file: Option<Utf8PathBuf>,
}

/// Enough to talk to a server.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) base: Base,
    pub(crate) token: Secret,
    pub(crate) ca_file: Option<Utf8PathBuf>,
}

impl Login {
    pub(crate) fn find(
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let own_token = match (&overrides.token_file, &environment.token) {
            (Some(path), _) => Some(token_from_file(path)?),
            (None, Some(text)) => Some(check_token(text, "GITSPACES_TOKEN")?),
            (None, None) => None,
        };
        // What is wholly named by flags or environment needs no home directory.
        let stored = if overrides.url.is_some() && own_token.is_some() {
            None
        } else {
            Stored::load(&environment.file()?)?
        };
        let stored_base = match &stored {
            Some(stored) => Some(base(&stored.url, "cli.toml")?),
            None => None,
        };
        let asked = match &overrides.url {
            Some(url) => Some(base(url, "--url")?),
            None => None,
        };
        let Some(base) = asked.or_else(|| stored_base.clone()) else {
            return Err(ConfigError::NotLoggedIn);
        };
        let token = match (own_token, &stored, stored_base) {
            (Some(token), _, _) => token,
            (None, Some(stored), Some(for_base)) if for_base == base => stored.token.clone(),
            (None, Some(_), Some(for_base)) => {
                return Err(ConfigError::OtherServer {
                    stored: for_base.to_string(),
                    asked: base.to_string(),
                });
            }
            (None, _, _) => return Err(ConfigError::NotLoggedIn),
        };
        Ok(Self {
            base,
            token,
            ca_file: overrides
                .ca_file
                .clone()
                .or_else(|| stored.and_then(|stored| stored.ca_file)),
        })
    }
}

pub(crate) fn base(text: &str, from: &str) -> Result<Base, ConfigError> {
    Base::parse(text).map_err(|error| ConfigError::Url {
        from: from.to_owned(),
        why: error.to_string(),
    })
}

pub(crate) fn token_from_file(path: &Utf8Path) -> Result<Secret, ConfigError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN + 1).read_to_string(&mut text))
        .map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
    check_token(&text, path.as_str())
}

/// One word that fits a header.
pub(crate) fn check_token(text: &str, from: &str) -> Result<Secret, ConfigError> {
    let text = text.trim();
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() as u64 > MAX_TOKEN {
        "it is too long"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "it holds spaces, line breaks or other characters that a token has not"
    } else {
        return Ok(Secret::new(text));
    };
    Err(ConfigError::Token {
        from: from.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn home() -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let environment = Environment {
            config_home: Some(path),
            ..Environment::default()
        };
        (dir, environment)
    }

    fn store(environment: &Environment) -> Utf8PathBuf {
        let path = environment.file().unwrap();
        let stored = Stored {
            url: "http://localhost:8080".to_owned(),
            token: Secret::new("gsp_stored"),
            ca_file: None,
        };
        stored.save(&path).unwrap();
        path
    }

    #[test]
    fn a_login_is_stored_for_its_owner_alone_and_found_again() {
        let (_dir, environment) = home();
        let path = store(&environment);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let login = Login::find(&Overrides::default(), &environment).unwrap();
        assert_eq!(login.token.expose(), "gsp_stored");
        assert_eq!(login.base.to_string(), "http://localhost:8080");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Login::find(&Overrides::default(), &environment).unwrap_err();
        assert!(matches!(error, ConfigError::Exposed { .. }));
    }

    #[test]
    fn a_stored_token_goes_to_no_other_server() {
        let (_dir, mut environment) = home();
        store(&environment);
        let mut overrides = Overrides {
            url: Some("http://evil.example".to_owned()),
            ..Overrides::default()
        };
        let error = Login::find(&overrides, &environment).unwrap_err();
        assert!(matches!(error, ConfigError::OtherServer { .. }));
        environment.token = Some("gsp_other\n".to_owned());
        let login = Login::find(&overrides, &environment).unwrap();
        assert_eq!(login.token.expose(), "gsp_other");
        environment.token = None;
        overrides.url = Some("http://LOCALHOST:8080/".to_owned());
        let login = Login::find(&overrides, &environment).unwrap();
        assert_eq!(login.token.expose(), "gsp_stored");
    }

    #[test]
    fn a_broken_file_is_refused_without_showing_the_token() {
        let (_dir, environment) = home();
        let path = store(&environment);
        fs::write(&path, "token = \"gsp_stored\n").unwrap();
        let error = Login::find(&Overrides::default(), &environment).unwrap_err();
        let words = daemon::ErrorChain(&error).to_string();
        assert!(
            words.contains("cli.toml") && !words.contains("gsp_stored"),
            "{words}"
        );
    }

    #[test]
    fn without_any_setting_one_is_not_logged_in() {
        let (_dir, environment) = home();
        let error = Login::find(&Overrides::default(), &environment).unwrap_err();
        assert!(matches!(error, ConfigError::NotLoggedIn));
        assert!(check_token("two words", "stdin").is_err());
    }
}
