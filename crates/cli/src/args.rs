//! The command line.

use crate::{exit, output::Format};
use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{ffi::OsString, process::ExitCode};
use wire::{
    api::Role,
    gitspace::PortVisibility,
    ids::{
        AccessTokenUuid, GitCredentialUuid, GitspaceUuid, JoinTokenUuid, SshKeyUuid, TerminalUuid,
    },
    text::{GitRef, GitspaceName, RepoUrl},
};

/// Remote development environments on your own hosts, each made from a Git repository.
#[derive(Debug, Parser)]
#[command(name = "gitspace", version, after_help = exit::TABLE, arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// How results are written; `json` is the API's own objects
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// URL of the control plane
    #[arg(long, global = true, env = "GITSPACES_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File with a personal access token; GITSPACES_TOKEN may hold the token itself
    #[arg(long, global = true, env = "GITSPACES_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<Utf8PathBuf>,
    /// File with the certificates (PEM) to trust, instead of this host's
    #[arg(long, global = true, env = "GITSPACES_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<Utf8PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a token and keep it; it is read from --token-file or from stdin
    Login,
    /// Forget the kept token
    Logout,
    /// Make a gitspace from a repository
    Create(Create),
    /// List gitspaces
    #[command(visible_alias = "ls")]
    List,
    /// Show a gitspace
    Show(Named),
    /// Start a gitspace
    Start(Action),
    /// Stop a gitspace; its disk stays
    Stop(Action),
    /// Remove a gitspace's container and keep its disk
    Reset(Action),
    /// Delete a gitspace and its disk
    #[command(visible_alias = "rm")]
    Delete(Action),
    /// Stop what is being done with a gitspace
    Cancel(Action),
    /// Show the output of a gitspace's phases
    Logs(Following),
    /// Show a gitspace's timeline
    Events(Following),
    /// Run a command in a gitspace, with its exit code
    Exec(Exec),
    /// Open a terminal in a gitspace; `~.` after a line break leaves it running
    Shell(ShellArgs),
    /// Terminals of a gitspace that were left, or are open
    #[command(subcommand)]
    Terminal(TerminalCommand),
    /// Open SSH to a gitspace with the `ssh` of this host
    #[command(
        after_help = "Whatever follows the name is for ssh: `gitspace ssh demo -L 8080:localhost:80`, `gitspace ssh demo make test`."
    )]
    Ssh(SshArgs),
    /// Let `ssh NAME.gitspace`, editors, scp and rsync reach gitspaces
    ConfigSsh(ConfigSshArgs),
    /// List the ports that listen in a gitspace
    Ports(Named),
    /// Let others come to a port of a gitspace, or nobody any more
    Share(Share),
    /// Print the URL of a gitspace, or of a port in it
    Url(UrlArgs),
    /// Delegates, which connect hosts
    #[command(subcommand)]
    Delegate(DelegateCommand),
    /// Machines (resource classes)
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Join tokens, with which delegates enrol
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Gateways in processes of their own
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Personal access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Users
    #[command(subcommand)]
    User(UserCommand),
    /// Credentials for private repositories
    #[command(subcommand)]
    GitCredential(GitCredentialCommand),
    /// SSH public keys, with which you reach your gitspaces by ssh
    #[command(subcommand)]
    SshKey(SshKeyCommand),
    /// Show the version of this command and of the control plane
    Version,
    /// Print a completion script
    Completion {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages and completions
    #[command(hide = true)]
    Pages {
        /// Folder for them, as /usr/share
        dir: Utf8PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name or id of the gitspace
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// The port
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// `private` (you alone), `project` (everybody who can log in), or `public` (everybody who knows the URL)
    #[arg(default_value = "project")]
    pub(crate) visibility: PortVisibility,
}

#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Be the ProxyCommand of ssh: carry its bytes over stdin and stdout
    #[arg(long)]
    pub(crate) stdio: bool,
    /// Fail where the gitspace does not run, instead of starting it
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Name of the gitspace, also as NAME.gitspace
    pub(crate) name: String,
    /// Options and command for ssh
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT",
        conflicts_with = "stdio"
    )]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigSshArgs {
    /// Configuration of ssh; ~/.ssh/config where missing
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<Utf8PathBuf>,
    /// Take the block of gitspaces out again
    #[arg(long)]
    pub(crate) remove: bool,
    /// Do not start a gitspace that ssh is opened to
    #[arg(long)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// http(s) or ssh URL of the repository
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repository: RepoUrl,
    /// Name of the gitspace; made from the repository's where missing
    #[arg(long)]
    pub(crate) name: Option<GitspaceName>,
    /// Branch, tag or commit; the default branch where missing
    #[arg(long, value_name = "REF")]
    pub(crate) branch: Option<GitRef>,
    /// Machine (resource class), see `gitspace machine list`
    #[arg(long)]
    pub(crate) machine: Option<String>,
    /// Wait until it runs; this is what happens anyway
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Return as soon as it is being made
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Action {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// Wait until it is done
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Following {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not read stdin
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,
    /// Folder in the gitspace; the workspace's where missing
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Environment variable of the command, repeatable
    #[arg(long, value_name = "K=V", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// Go back to a terminal that was left
    #[arg(long, value_name = "ID")]
    pub(crate) attach: Option<TerminalUuid>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TerminalCommand {
    /// List them; `gitspace shell NAME --attach ID` goes back to one
    List(Named),
    /// Hang one up, and end what runs in it
    Close {
        /// Name or id of the gitspace
        name: String,
        id: TerminalUuid,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UrlArgs {
    /// Name or id of the gitspace
    pub(crate) name: String,
    /// Port in the gitspace; its workspace where missing
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Make a link that opens once without logging in
    #[arg(long)]
    pub(crate) login: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DelegateCommand {
    /// List delegates
    List,
    /// Show a delegate, why its last connection ended, and what its host holds that no record accounts for
    Show {
        /// Name or id of the delegate
        name: String,
    },
    /// Revoke a delegate: its link is cut at once, and its host is given nothing more until it is enrolled again
    Revoke {
        /// Name or id of the delegate
        name: String,
    },
    /// Probe the whole way through a delegate into its gitspaces: each part with its time, and where it ends, why
    ///
    /// Exit code 75 where a part of the host's way is broken. A silent agent is its gitspace's matter: it is shown, and the code is 0.
    Probe {
        /// Name or id of the delegate
        name: String,
    },
    /// Remove what a delegate's host holds of a gitspace that no record accounts for, with its disk
    RemoveUnaccounted {
        /// Name or id of the delegate
        name: String,
        /// Id of the gitspace, as `gitspace delegate show` lists it
        gitspace: GitspaceUuid,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// List machines
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Make one; the token is all that goes to stdout
    Create {
        /// Enrolments it is good for
        #[arg(long)]
        uses: Option<u32>,
        /// How long it is good for, as 30m, 12h, 7d
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u32>,
        /// What it is for
        #[arg(long)]
        comment: Option<String>,
        /// For the return of this revoked delegate, with its gitspaces, and for nothing else
        #[arg(long, value_name = "NAME")]
        delegate: Option<String>,
    },
    /// List them
    List,
    /// Make one useless
    Revoke { id: JoinTokenUuid },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Register one; its token is all that goes to stdout
    Register { name: String },
    /// List them
    List,
    /// Make a gateway's token useless and cut its link
    Revoke {
        /// Name or id of the gateway
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one; the token is all that goes to stdout
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// How long it is good for, as 12h, 90d
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u32>,
        /// For another user, by an administrator
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// List yours
    List,
    /// Make one useless
    Revoke { id: AccessTokenUuid },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleName {
    Admin,
    Developer,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Admin => Self::Admin,
            RoleName::Developer => Self::Developer,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user; give a token with `gitspace token create --user`
    Create {
        name: String,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, value_enum, default_value_t = RoleName::Developer)]
        role: RoleName,
    },
    /// List users
    List,
    /// Let a user in no more; the user's gitspaces stay as they are
    Disable {
        /// Name or id of the user
        name: String,
    },
    /// Let a disabled user in again
    Enable {
        /// Name or id of the user
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GitCredentialCommand {
    /// Keep a password or token for a Git host; it is read from stdin
    Set {
        /// `host` or `host:port`, as in the URL. It is sent over https alone, unless you write `http://host`
        host: String,
        /// User name for Git
        user: String,
    },
    /// List them, without their secrets
    List,
    /// Forget one
    Delete { id: GitCredentialUuid },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SshKeyCommand {
    /// Register one
    Add {
        /// File with the public key, as ~/.ssh/id_ed25519.pub; `-` is stdin
        #[arg(default_value = "-")]
        file: Utf8PathBuf,
        /// What to call it [default: the key's comment]
        #[arg(long)]
        name: Option<String>,
    },
    /// List them
    List,
    /// Forget one, and end the sessions that were opened with it
    Delete { id: SshKeyUuid },
}

/// Usage errors have a code of their own; `--help` and `--version` are none.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    // Where the output is gone, the code is all that is left to say.
    drop(error.print());
    if error.use_stderr() {
        exit::Exit::Usage.into()
    } else {
        ExitCode::SUCCESS
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it has to be NAME=VALUE".to_owned()),
    }
}

/// `90s`, `30m`, `12h`, `7d`.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "it has to be a number with s, m, h or d, as 12h".to_owned();
    let (number, unit) = text
        .char_indices()
        .next_back()
        .and_then(|(at, _)| text.split_at_checked(at))
        .ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(unit) {
        Some(0) => Err("it has to be more than nothing".to_owned()),
        Some(seconds) => Ok(seconds),
        None => Err("it is too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_exec_is_the_commands_own() {
        let cli = Cli::try_parse_from([
            "gitspace", "exec", "demo", "-t", "--env", "A=b=c", "--", "ls", "-o", "--help",
        ])
        .unwrap();
        let Command::Exec(exec) = cli.command else {
            panic!("not exec");
        };
        assert_eq!(exec.command, ["ls", "-o", "--help"]);
        assert_eq!(exec.env, [("A".to_owned(), "b=c".to_owned())]);
        assert!(exec.tty && cli.global.output == Format::Text);
    }

    #[test]
    fn a_repository_that_git_could_run_is_a_usage_error() {
        for url in ["ext::sh -c x", "file:///etc", "--upload-pack=x", "http://"] {
            assert!(
                Cli::try_parse_from(["gitspace", "create", "--", url]).is_err(),
                "{url}"
            );
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("12h"), Ok(43_200));
        for bad in [
            "",
            "12",
            "h",
            "0d",
            "-1d",
            "1é",
            "99999999999s",
            "4294967295d",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
