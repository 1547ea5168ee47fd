//! `config check`: a configuration that is only looked at, with all that is wrong with it at once.

use crate::program::{Program, loader, say};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{ErrorChain, Exit, Hint, SettingsError, UnknownKey};
use std::process::ExitCode;

pub(crate) fn check<P: Program>(path: Option<&Utf8Path>, strict: bool) -> ExitCode {
    let found = examine::<P>(path, strict);
    for file in &found.files {
        say(&format!("read {file}"));
    }
    for key in &found.ignored {
        say(&format!("warning: {key}; it is ignored"));
    }
    for error in &found.wrong {
        // Each of them has the code that ends a start.
        let _code = daemon::report(error);
    }
    if found.wrong.is_empty() {
        say(&format!("ok: {}", found.words));
        return ExitCode::SUCCESS;
    }
    Exit::Config.into()
}

/// What is found in a configuration that is only looked at.
#[derive(Debug)]
struct Examined<R: Hint> {
    files: Vec<Utf8PathBuf>,
    /// Unknown keys that a start only warns of.
    ignored: Vec<UnknownKey>,
    wrong: Vec<Fault<R>>,
    /// What it comes to.
    words: String,
}

#[derive(Debug, thiserror::Error)]
enum Fault<R: Hint> {
    #[error(transparent)]
    Settings(SettingsError),
    #[error("{0}")]
    UnknownKey(UnknownKey),
    #[error("the configuration is wrong")]
    Refused(#[source] R),
}

impl<R: Hint> Hint for Fault<R> {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::UnknownKey(_) => None,
            Self::Refused(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

fn examine<P: Program>(path: Option<&Utf8Path>, strict: bool) -> Examined<P::Refusal> {
    let looked = loader::<P>(path).look::<P>();
    let mut found = Examined {
        files: looked.files,
        ignored: Vec::new(),
        wrong: Vec::new(),
        words: String::new(),
    };
    if strict {
        let unknown = looked.unknown_keys.into_iter().map(Fault::UnknownKey);
        found.wrong.extend(unknown);
    } else {
        found.ignored = looked.unknown_keys;
    }
    // What is not of its type is not set further on: that it is missing says nothing.
    let mut unset = Vec::new();
    for error in looked.wrong {
        if let SettingsError::Value { key, .. } = &error {
            let key = key.split('[').next().unwrap_or(key);
            unset.push(format!("`{key}`"));
        }
        found.wrong.push(Fault::Settings(error));
    }
    match looked.value.map(P::examine) {
        None => {}
        Some(Ok(words)) => found.words = words,
        Some(Err(wrong)) => {
            let true_ones = wrong.into_iter().filter(|error| {
                let words = ErrorChain(error).to_string();
                !unset.iter().any(|key| words.contains(key.as_str()))
            });
            found.wrong.extend(true_ones.map(Fault::Refused));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{
        common,
        tests::{Line, Settings, file, line},
    };

    #[test]
    fn a_check_says_all_that_is_wrong_at_once() {
        let guard = tempfile::tempdir().unwrap();
        let text = "admin_socket = []\nlgo = 1\n[log]\nfilter = []\n";
        let path = file(&guard, text);
        let found = examine::<Settings>(Some(&path), false);
        let wrong: Vec<_> = found
            .wrong
            .iter()
            .map(|error| ErrorChain(error).to_string())
            .collect();
        for word in ["`admin_socket`", "`log.filter`", "`good` is not set"] {
            let is_there = |words: &String| words.contains(word);
            assert!(wrong.iter().any(is_there), "no {word} in {wrong:#?}");
        }
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        let refused = found.wrong.last().unwrap();
        assert_eq!(
            (refused.hint().as_deref(), refused.exit()),
            (Some("set it"), Exit::Config)
        );
        let ignored: Vec<_> = found.ignored.iter().map(ToString::to_string).collect();
        assert_eq!(ignored, ["unknown key `lgo`, did you mean `log`?"]);
    }

    #[test]
    fn a_value_that_is_not_read_is_not_told_as_missing_too() {
        let guard = tempfile::tempdir().unwrap();
        let path = file(&guard, "good = \"maybe\"");
        let found = examine::<Settings>(Some(&path), false);
        assert_eq!(found.wrong.len(), 1, "{found:#?}");
    }

    #[test]
    fn an_unknown_key_is_a_warning_unless_somebody_is_strict() {
        let guard = tempfile::tempdir().unwrap();
        let path = file(&guard, "good = true\ncolour = 1\n");
        let check = |words: &str| {
            let command = line(words).unwrap().command;
            common::<Settings, Line>(command, Some(&path)).unwrap()
        };
        assert_eq!(check("x config check"), ExitCode::SUCCESS);
        assert_eq!(check("x config check --strict"), Exit::Config.into());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check("x config check"), Exit::Config.into(), "no file");
    }
}
