//! What `ssh` is told about gitspaces, on its command line or in its configuration.

use super::known_hosts::KnownHosts;
use crate::{
    config::{ConfigError, Environment, Overrides},
    error::CliError,
};
use camino::Utf8PathBuf;
use wire::text::GitspaceName;

/// Behind a gitspace's name, it is a host of ssh.
pub(super) const HOSTS: &str = "gitspace";

#[derive(Debug)]
pub(super) struct Options {
    /// Of the `ProxyCommand`, up to the name.
    command: Vec<String>,
    known_hosts: KnownHosts,
}

impl Options {
    pub(super) fn new(
        overrides: &Overrides,
        environment: &Environment,
        no_start: bool,
    ) -> Result<Self, CliError> {
        let binary = std::env::current_exe()
            .and_then(|path| Utf8PathBuf::try_from(path).map_err(std::io::Error::other))
            .map_err(|source| CliError::Program {
                what: "this command by its path",
                hint: None,
                source,
            })?;
        let mut command = vec![binary.into_string()];
        let absolute = |path: &Utf8PathBuf| {
            camino::absolute_utf8(path).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })
        };
        if let Some(url) = &overrides.url {
            command.extend(["--url".to_owned(), url.clone()]);
        }
        if let Some(file) = &overrides.token_file {
            command.extend(["--token-file".to_owned(), absolute(file)?.into_string()]);
        }
        if let Some(file) = &overrides.ca_file {
            command.extend(["--ca-file".to_owned(), absolute(file)?.into_string()]);
        }
        command.extend(["ssh", "--stdio"].map(str::to_owned));
        if no_start {
            command.push("--no-start".to_owned());
        }
        Ok(Self {
            command,
            known_hosts: KnownHosts::of(environment)?,
        })
    }

    /// For one gitspace.
    pub(super) fn for_host(&self, name: &GitspaceName) -> Vec<(&'static str, String)> {
        self.of(&format!("{name}.{HOSTS}"))
    }

    /// For all of them: the named ones, which editors list, and whatever is made later.
    pub(super) fn block(&self, names: &[String]) -> String {
        let mut block = format!("Host {} *.{HOSTS}\n", names.join(" "));
        // `%n` is the host as it was typed.
        for (key, value) in self.of("%n") {
            block.push_str(&format!("    {key} {value}\n"));
        }
        // What follows is for whatever it was for before.
        block.push_str("Match all\n");
        block.replace("Host  *", "Host *")
    }

    fn of(&self, host: &str) -> Vec<(&'static str, String)> {
        let mut command: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        command.push(host.to_owned());
        let known_hosts = self.known_hosts.file(host);
        vec![
            ("ProxyCommand", command.join(" ")),
            ("UserKnownHostsFile", format!("\"{known_hosts}\"")),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
            // Whether the line is alive is watched by the relay, which opens the next one: a session outlives a cut.
            ("ServerAliveInterval", "0".to_owned()),
        ]
    }
}

/// For the shell that ssh runs a `ProxyCommand` with, and for ssh, which reads `%` itself.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=".contains(&byte));
    if plain {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_proxy_command_as_they_are() {
        assert_eq!(quoted("/usr/bin/gitspace"), "/usr/bin/gitspace");
        assert_eq!(quoted("/my home/it's 100%"), r"'/my home/it'\''s 100%%'");
        assert_eq!(quoted("$(evil)"), "'$(evil)'");
        assert_eq!(quoted(""), "''");
    }
}
