//! The dev container side of a gitspace: what devcontainer.json says, and what of it is carried out here.
//!
//! Responsible for reading the file ([`parse`]), its variables ([`substitute`]) and finding it in a clone ([`locate`]). The home of the
//! complete specification. It does no I/O and knows neither Docker nor machines.
//!
//! Invariant: what would change what the user gets and is not carried out is an error that names it; nothing is replaced silently.

pub(crate) mod locate;
pub(crate) mod parse;
pub(crate) mod substitute;

use std::collections::BTreeMap;
use wire::agent::CommandLine;

/// Largest devcontainer.json, in bytes.
pub(crate) const MAX_FILE: usize = 1024 * 1024;

/// What a devcontainer.json says, checked, its variables not yet replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DevContainerFile {
    pub(crate) image: Option<String>,
    pub(crate) container_env: BTreeMap<String, String>,
    pub(crate) remote_env: BTreeMap<String, Option<String>>,
    pub(crate) remote_user: Option<String>,
    pub(crate) container_user: Option<String>,
    pub(crate) workspace_folder: Option<String>,
    pub(crate) on_create: Option<CommandLine>,
    pub(crate) post_create: Option<CommandLine>,
    pub(crate) post_start: Option<CommandLine>,
    pub(crate) forward_ports: Vec<u16>,
    /// Properties that are left out without changing what the user gets; they are named in the log.
    pub(crate) ignored: Vec<String>,
}

/// Whether `text` can be the name of an image: it becomes a part of a URL of Docker's API.
pub(crate) fn is_image_name(text: &str) -> bool {
    (1..=512).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.contains("//")
        && !text.ends_with('/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@'))
}

/// Whether `text` can be a user: a name or `uid[:gid]`.
pub(crate) fn is_user(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'))
}

/// Whether `text` can be a folder inside the container.
pub(crate) fn is_folder(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 1024
        && !text.chars().any(char::is_control)
        && !text.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_cannot_leave_its_place_in_a_url() {
        for good in [
            "debian",
            "debian:12",
            "r.example:5000/a/b@sha256:00",
            "gitspaces/default:latest",
        ] {
            assert!(is_image_name(good), "{good}");
        }
        for bad in [
            "",
            "../containers",
            "a/../../b",
            "a?b",
            "a b",
            "-a",
            "a//b",
            "/a",
            "a%2fb",
            "a\n",
        ] {
            assert!(!is_image_name(bad), "{bad}");
        }
    }
}
