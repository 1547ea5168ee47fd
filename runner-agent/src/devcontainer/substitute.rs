//! Variables in devcontainer.json.
//!
//! `${localEnv:…}` is the machine the user's editor runs on in other tools; here that would be the host, whose environment is nobody's
//! business: it is always empty, and its default is taken.

use super::{DevContainerFile, is_folder, is_image_name, is_user};
use std::collections::BTreeMap;
use wire::{
    agent::CommandLine,
    failure::{Failure, FailureCode},
};

/// What the variables stand for.
#[derive(Clone, Debug)]
pub(crate) struct Variables {
    /// Folder of the clone inside the container.
    pub(crate) workspace_folder: String,
    /// The same, as the clone's own folder: there is no other place the repository lies in.
    pub(crate) local_workspace_folder: String,
    pub(crate) devcontainer_id: String,
    /// Environment of the container: the image's and `containerEnv`.
    pub(crate) container_env: BTreeMap<String, String>,
}

impl Variables {
    fn value(&self, variable: &str) -> Option<String> {
        let basename = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut parts = variable.splitn(3, ':');
        let name = parts.next()?;
        let argument = parts.next();
        let default = || parts.clone().next().unwrap_or_default().to_owned();
        match (name, argument) {
            ("localWorkspaceFolder", None) => Some(self.local_workspace_folder.clone()),
            ("localWorkspaceFolderBasename", None) => Some(basename(&self.local_workspace_folder)),
            ("containerWorkspaceFolder", None) => Some(self.workspace_folder.clone()),
            ("containerWorkspaceFolderBasename", None) => Some(basename(&self.workspace_folder)),
            ("devcontainerId", None) => Some(self.devcontainer_id.clone()),
            ("localEnv" | "env", Some(_)) => Some(default()),
            ("containerEnv", Some(key)) => {
                Some(self.container_env.get(key).cloned().unwrap_or_else(default))
            }
            _ => None,
        }
    }

    /// Replaces the variables that are known; what else looks like one stays, as it may be the shell's.
    pub(crate) fn replace(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((variable, behind)) = after.split_once('}') else {
                out.push_str("${");
                rest = after;
                continue;
            };
            if let Some(value) = self.value(variable) {
                out.push_str(&value);
                rest = behind;
            } else {
                out.push_str("${");
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }

    fn command(&self, command: &CommandLine) -> CommandLine {
        match command {
            CommandLine::Shell { script } => CommandLine::Shell {
                script: self.replace(script),
            },
            CommandLine::Exec { argv } => CommandLine::Exec {
                argv: argv.iter().map(|argument| self.replace(argument)).collect(),
            },
            CommandLine::Parallel { commands } => CommandLine::Parallel {
                commands: commands
                    .iter()
                    .map(|(name, command)| (name.clone(), self.command(command)))
                    .collect(),
            },
        }
    }
}

impl DevContainerFile {
    /// The image, before anything of it is known.
    pub(crate) fn image_with(&self, variables: &Variables) -> Result<Option<String>, Failure> {
        let Some(image) = &self.image else {
            return Ok(None);
        };
        let image = variables.replace(image);
        if is_image_name(&image) {
            Ok(Some(image))
        } else {
            Err(Failure::new(
                FailureCode::DevcontainerInvalid,
                "`image` is not the name of an image once its variables are replaced",
            ))
        }
    }

    /// Replaces all variables; the container's environment and the workspace folder are settled first, as others refer to them.
    pub(crate) fn settle(
        &self,
        mut variables: Variables,
        image_env: &BTreeMap<String, String>,
    ) -> Result<(Self, Variables), Failure> {
        let mut settled = self.clone();
        let wrong = |what: &str| Failure::new(FailureCode::DevcontainerInvalid, what);
        if let Some(folder) = &self.workspace_folder {
            let folder = variables.replace(folder);
            if !is_folder(&folder) {
                return Err(wrong(
                    "`workspaceFolder` is not an absolute path without `..` once its variables are replaced",
                ));
            }
            variables.workspace_folder.clone_from(&folder);
            settled.workspace_folder = Some(folder);
        }
        variables.container_env.clone_from(image_env);
        settled.container_env = self
            .container_env
            .iter()
            .map(|(key, value)| (key.clone(), variables.replace(value)))
            .collect();
        variables
            .container_env
            .extend(settled.container_env.clone());
        settled.remote_env = self
            .remote_env
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    value.as_ref().map(|value| variables.replace(value)),
                )
            })
            .collect();
        for user in [&mut settled.remote_user, &mut settled.container_user]
            .into_iter()
            .flatten()
        {
            *user = variables.replace(user);
            if !is_user(user) {
                return Err(wrong(
                    "`remoteUser` or `containerUser` is not the name of a user once its variables are replaced",
                ));
            }
        }
        for command in [
            &mut settled.on_create,
            &mut settled.post_create,
            &mut settled.post_start,
        ]
        .into_iter()
        .flatten()
        {
            *command = variables.command(command);
        }
        Ok((settled, variables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables {
            workspace_folder: "/workspaces/app".to_owned(),
            local_workspace_folder: "/workspaces/app".to_owned(),
            devcontainer_id: "id0".to_owned(),
            container_env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        }
    }

    #[test]
    fn known_variables_are_replaced_and_others_stay() {
        let variables = variables();
        for (text, expected) in [
            ("${containerWorkspaceFolder}/x", "/workspaces/app/x"),
            ("${localWorkspaceFolderBasename}", "app"),
            ("${containerWorkspaceFolderBasename}", "app"),
            ("${containerEnv:PATH}:/opt", "/bin:/opt"),
            ("${containerEnv:NONE:fall}", "fall"),
            ("${localEnv:HOME}", ""),
            ("${localEnv:HOME:/d:e}", "/d:e"),
            ("${devcontainerId}", "id0"),
            ("${HOME} $X ${a${devcontainerId}", "${HOME} $X ${aid0"),
            ("${unclosed", "${unclosed"),
        ] {
            assert_eq!(variables.replace(text), expected, "{text}");
        }
    }

    #[test]
    fn remote_env_sees_container_env() {
        let file = DevContainerFile {
            container_env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            remote_env: BTreeMap::from([("B".to_owned(), Some("${containerEnv:A}2".to_owned()))]),
            ..DevContainerFile::default()
        };
        let (settled, _) = file.settle(variables(), &BTreeMap::new()).unwrap();
        assert_eq!(settled.remote_env.get("B"), Some(&Some("12".to_owned())));
    }

    #[test]
    fn a_folder_that_variables_lead_astray_is_refused() {
        let file = DevContainerFile {
            workspace_folder: Some("${localEnv:X:/..}/etc".to_owned()),
            ..DevContainerFile::default()
        };
        assert!(file.settle(variables(), &BTreeMap::new()).is_err());
    }
}
