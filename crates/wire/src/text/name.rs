//! Names that become host labels.

use super::checked_text;
use serde::{Deserialize, Serialize};

/// Longest [`GitspaceName`], in characters.
pub const MAX_NAME: usize = 32;
/// Longest [`Slug`]: with `65535--` in front it still fits a DNS label of 63.
pub const MAX_SLUG: usize = 56;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name has {0} characters, more than {1}")]
    TooLong(usize, usize),
    #[error("the name holds {0:?}; lower-case letters, digits and single `-` are taken")]
    Character(char),
    #[error("the name starts or ends with `-`, or has `--` in it")]
    Hyphen,
}

fn check(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(other) = text
        .chars()
        .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
    {
        return Err(NameError::Character(other));
    }
    if text.len() > max {
        return Err(NameError::TooLong(text.len(), max));
    }
    if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
        return Err(NameError::Hyphen);
    }
    Ok(())
}

/// What the user calls a gitspace; unique among its owner's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitspaceName(String);
checked_text!(GitspaceName, NameError);

impl TryFrom<String> for GitspaceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text, MAX_NAME)?;
        Ok(Self(text))
    }
}

impl GitspaceName {
    /// The nearest name to `text`, for a gitspace that its user did not name.
    #[must_use]
    pub fn nearest(text: &str) -> Self {
        let mut name = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            if name.len() == MAX_NAME {
                break;
            }
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                name.push(c);
            } else if !name.is_empty() && !name.ends_with('-') {
                name.push('-');
            }
        }
        let name = name.trim_end_matches('-');
        Self(if name.is_empty() { "gitspace" } else { name }.to_owned())
    }
}

/// A gitspace's host label, unique in its control plane: `<name>-<suffix>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);
checked_text!(Slug, NameError);

impl TryFrom<String> for Slug {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text, MAX_SLUG)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_without_double_hyphens() {
        for good in ["a", "demo", "my-app-2", "0"] {
            good.parse::<GitspaceName>().expect(good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "a.b",
            "a/b",
            "..",
            "a b",
            "é",
            "a\n",
            "a\0",
            "a_b",
            "x".repeat(33).as_str(),
        ] {
            assert!(bad.parse::<GitspaceName>().is_err(), "took {bad:?}");
        }
    }

    #[test]
    fn any_text_has_a_nearest_name_that_is_one() {
        for text in [
            "",
            "---",
            "Hello World",
            "ÄÖÜ",
            "a..b//c",
            "x".repeat(99).as_str(),
            "My.App-",
            "İstanbul",
        ] {
            let name = GitspaceName::nearest(text);
            name.as_str().parse::<GitspaceName>().expect(text);
        }
    }
}
