//! The environment of the user's processes.
//!
//! Later layers win: the container's environment, what the account says, `remoteEnv`, what the caller adds. Git learns of the credential
//! helper here and nowhere else, so nothing lies in the clone's configuration and no secret in an environment.

use crate::{account::Account, agent::Agent};
use std::{collections::BTreeMap, ffi::OsString};
use wire::{agent::AgentConfig, gitspace::GitIdentity};

pub(crate) type Environment = BTreeMap<String, String>;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's environment as PID 1 got it. What is not UTF-8 is left out: it cannot be passed on over JSON.
pub(crate) fn inherited(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| is_name(name))
        .collect()
}

/// Whether a process can have a variable of this name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// The environment of a process of `account`; `layers` override in their order, `None` unsets.
pub(crate) fn of_user<'a>(
    agent: &Agent,
    account: &Account,
    config: Option<&'a AgentConfig>,
    layers: impl IntoIterator<Item = &'a BTreeMap<String, Option<String>>>,
) -> Environment {
    let mut environment = agent.inherited.clone();
    apply_account(&mut environment, account);
    if let Some(config) = config {
        environment.insert("GITSPACES".to_owned(), "true".to_owned());
        environment.insert("GITSPACE_NAME".to_owned(), config.name.to_string());
    }
    for (name, value) in config
        .map(|config| &config.remote_env)
        .into_iter()
        .chain(layers)
        .flatten()
    {
        match value {
            Some(value) if is_name(name) && !value.contains('\0') => {
                environment.insert(name.clone(), value.clone());
            }
            Some(_) => tracing::warn!(name, "A variable that no process can have is left out"),
            None => {
                environment.remove(name);
            }
        }
    }
    if let Some(config) = config {
        let mut settings = vec![
            (
                "credential.helper".to_owned(),
                agent.credential_helper(None),
            ),
            ("safe.directory".to_owned(), config.workspace_folder.clone()),
        ];
        if let Some(GitIdentity { name, email }) = &config.git_identity {
            settings.push(("user.name".to_owned(), name.clone()));
            settings.push(("user.email".to_owned(), email.clone()));
        }
        add_git_settings(&mut environment, settings);
    }
    environment
}

fn apply_account(environment: &mut Environment, account: &Account) {
    let mut set = |name: &str, value: &str| {
        environment.insert(name.to_owned(), value.to_owned());
    };
    set("HOME", &account.home);
    set("USER", &account.name);
    set("LOGNAME", &account.name);
    if let Some(shell) = &account.shell {
        set("SHELL", shell);
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("LANG", "C.UTF-8")] {
        environment
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
}

/// Adds to what the image may already say in `GIT_CONFIG_COUNT`.
fn add_git_settings(environment: &mut Environment, settings: Vec<(String, String)>) {
    let mut count: usize = environment
        .get("GIT_CONFIG_COUNT")
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    for (key, value) in settings {
        if value.contains('\0') {
            continue;
        }
        environment.insert(format!("GIT_CONFIG_KEY_{count}"), key);
        environment.insert(format!("GIT_CONFIG_VALUE_{count}"), value);
        count += 1;
    }
    environment.insert("GIT_CONFIG_COUNT".to_owned(), count.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_settings_are_added_to_those_of_the_image() {
        let mut environment = Environment::from([
            ("GIT_CONFIG_COUNT".to_owned(), "1".to_owned()),
            ("GIT_CONFIG_KEY_0".to_owned(), "a.b".to_owned()),
        ]);
        add_git_settings(
            &mut environment,
            vec![("user.name".to_owned(), "Ada".to_owned())],
        );
        assert_eq!(environment["GIT_CONFIG_COUNT"], "2");
        assert_eq!(environment["GIT_CONFIG_KEY_0"], "a.b");
        assert_eq!(environment["GIT_CONFIG_VALUE_1"], "Ada");
    }
}
