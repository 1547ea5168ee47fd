//! Everything that is wrong with a configuration, as far as it can be told at once.

use super::{Loader, SettingsError, UnknownKey, deserialize, merge};
use camino::Utf8PathBuf;
use config::{Value, ValueKind};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// Values of the wrong type that are looked for in one file.
const MAX_WRONG: usize = 100;

/// What a look at the whole configuration found.
#[derive(Debug)]
pub struct Looked<T> {
    /// Where enough of it is right. What is wrong has its default here.
    pub value: Option<T>,
    /// The files that could be read, in order.
    pub files: Vec<Utf8PathBuf>,
    pub unknown_keys: Vec<UnknownKey>,
    pub wrong: Vec<SettingsError>,
}

impl Loader {
    /// As [`Loader::load`], and goes on behind each error: a file that is not TOML is left out, a value of the wrong type is not set.
    #[must_use]
    pub fn look<T: DeserializeOwned>(self) -> Looked<T> {
        let mut looked = Looked {
            value: None,
            files: Vec::new(),
            unknown_keys: Vec::new(),
            wrong: Vec::new(),
        };
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                looked.wrong.push(error);
                return looked;
            }
        };
        for file in files {
            match merge(std::slice::from_ref(&file), None) {
                Ok(_) => looked.files.push(file),
                Err(error) => looked.wrong.push(error),
            }
        }
        let mut root = match merge(&looked.files, self.environment()) {
            Ok(root) => root,
            Err(error) => {
                looked.wrong.push(error);
                return looked;
            }
        };
        while looked.wrong.len() < MAX_WRONG {
            match deserialize::<T>(root.clone()) {
                Ok((value, unknown_keys)) => {
                    looked.value = Some(value);
                    looked.unknown_keys = unknown_keys;
                    return looked;
                }
                Err(wrong) => {
                    let is_gone = remove(&mut root, &wrong.path);
                    looked.wrong.push(wrong.into());
                    if !is_gone {
                        return looked;
                    }
                }
            }
        }
        looked
    }
}

/// Takes the key at `path` away, or the list or table around it, whichever has a name.
fn remove(root: &mut Value, path: &Path) -> bool {
    let keys: Vec<&str> = path
        .iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.as_str()),
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect();
    let Some((last, tables)) = keys.split_last() else {
        return false;
    };
    let mut at = root;
    for key in tables {
        let ValueKind::Table(table) = &mut at.kind else {
            return false;
        };
        let Some(below) = table.get_mut(*key) else {
            return false;
        };
        at = below;
    }
    match &mut at.kind {
        ValueKind::Table(table) => table.remove(*last).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorChain;
    use camino::Utf8Path;
    use serde::Deserialize;
    use std::fs;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Settings {
        name: Option<String>,
        tags: Vec<String>,
        api: Api,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Api {
        limit: u32,
        socket: Option<String>,
    }

    fn look(files: &[(&str, &str)]) -> Looked<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("x.toml");
        fs::create_dir(format!("{path}.d")).unwrap();
        for (name, text) in files {
            fs::write(path.parent().unwrap().join(name), text).unwrap();
        }
        Loader::new(path).look()
    }

    #[test]
    fn each_wrong_value_is_found_and_the_rest_is_read() {
        let looked = look(&[(
            "x.toml",
            "name = [1]\ntags = [\"a\", { b = 1 }]\ntagz = 1\n[api]\nlimit = \"many\"\nsocket = \"/s\"\nlimmit = 2\n",
        )]);
        let wrong: Vec<_> = looked
            .wrong
            .iter()
            .map(|error| ErrorChain(error).to_string())
            .collect();
        for key in ["`name`", "`tags[1]`", "`api.limit`"] {
            assert!(
                wrong.iter().any(|words| words.contains(key)),
                "no {key} in {wrong:#?}"
            );
        }
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        let unknown: Vec<_> = looked
            .unknown_keys
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            unknown,
            [
                "unknown key `api.limmit`, did you mean `api.limit`?",
                "unknown key `tagz`, did you mean `tags`?"
            ]
        );
        let value = looked.value.expect("the rest");
        assert_eq!(value.api.socket.as_deref(), Some("/s"));
    }

    #[test]
    fn a_file_that_is_no_toml_does_not_hide_what_is_wrong_in_another() {
        let looked = look(&[
            ("x.toml", "name = \n"),
            ("x.toml.d/10-a.toml", "[api\n"),
            ("x.toml.d/20-b.toml", "[api]\nlimit = \"many\"\n"),
        ]);
        let wrong: Vec<_> = looked
            .wrong
            .iter()
            .map(|error| ErrorChain(error).to_string())
            .collect();
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        for word in ["x.toml", "10-a.toml", "`api.limit`"] {
            assert!(
                wrong.iter().any(|words| words.contains(word)),
                "no {word} in {wrong:#?}"
            );
        }
        assert_eq!(looked.files.len(), 1);
    }
}
