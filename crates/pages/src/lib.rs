//! Man pages and completion scripts, made from the command line that a program really has.
//!
//! Packages call it at build time through a hidden `pages` command; the folders are those below `/usr/share`.

use camino::{Utf8Path, Utf8PathBuf};
use clap::Command;
use clap_complete::Shell;
use std::{fs, io};

/// Of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    UserCommands,
    SystemAdministration,
}

impl Section {
    const fn number(self) -> &'static str {
        match self {
            Self::UserCommands => "1",
            Self::SystemAdministration => "8",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write `{path}`")]
pub struct PagesError {
    path: Utf8PathBuf,
    #[source]
    source: io::Error,
}

impl daemon::Hint for PagesError {}

/// Writes `man/manN/*.N`, one page for each command, and the completions of bash, fish and zsh below `dir`.
///
/// # Errors
/// A folder or file cannot be written.
pub fn write(command: Command, section: Section, dir: &Utf8Path) -> Result<(), PagesError> {
    let man = make(dir.join(format!("man/man{}", section.number())))?;
    let name = command.get_name().to_owned();
    for (shell, folder) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Fish, "fish/vendor_completions.d"),
        (Shell::Zsh, "zsh/vendor-completions"),
    ] {
        let folder = make(dir.join(folder))?;
        let file = match shell {
            // The name that bash-completion looks for has no ending.
            Shell::Bash => name.clone(),
            Shell::Zsh => format!("_{name}"),
            _ => format!("{name}.fish"),
        };
        put(
            &folder.join(file),
            completion(command.clone(), shell).as_bytes(),
        )?;
    }
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, section, &man)
}

/// The completion script of one shell, for a command that prints it.
#[must_use]
pub fn completion(mut command: Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn page(command: &Command, section: Section, dir: &Utf8Path) -> Result<(), PagesError> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        page(below, section, dir)?;
    }
    let man = clap_mangen::Man::new(command.clone())
        .section(section.number())
        .manual("Gitspaces");
    let mut text = Vec::new();
    let path = dir.join(man.get_filename());
    man.render(&mut text).map_err(|source| PagesError {
        path: path.clone(),
        source,
    })?;
    put(&path, &text)
}

fn make(path: Utf8PathBuf) -> Result<Utf8PathBuf, PagesError> {
    match fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(PagesError { path, source }),
    }
}

fn put(path: &Utf8Path, bytes: &[u8]) -> Result<(), PagesError> {
    fs::write(path, bytes).map_err(|source| PagesError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_command_has_a_page_and_each_shell_a_script_and_hidden_ones_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let command = Command::new("x-agent")
            .subcommand(Command::new("config").subcommand(Command::new("check")))
            .subcommand(Command::new("pages").hide(true));
        write(command, Section::SystemAdministration, dir).unwrap();
        let found: BTreeSet<String> = [
            "man/man8",
            "bash-completion/completions",
            "fish/vendor_completions.d",
            "zsh/vendor-completions",
        ]
        .iter()
        .flat_map(|folder| fs::read_dir(dir.join(folder)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            [
                "_x-agent",
                "x-agent",
                "x-agent-config-check.8",
                "x-agent-config.8",
                "x-agent.8",
                "x-agent.fish",
            ]
        );
    }
}
