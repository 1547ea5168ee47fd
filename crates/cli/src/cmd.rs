//! One file per group of commands; here is which is which.

mod access;
mod delegates;
mod follow;
mod gateways;
mod gitspaces;
mod input;
mod login;
mod pages;
mod reach;
mod ssh_keys;
mod terminals;

use crate::{
    api::Api,
    args::{Cli, Command, Global},
    config::{Environment, Login, Overrides},
    error::CliError,
    output::Output,
    session, ssh,
};
use daemon::{Clock, RandomIds, SystemClock};
use std::{process::ExitCode, sync::Arc};
use wire::api::GitspaceAction;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) api: Api,
    pub(crate) out: Output,
    pub(crate) clock: Arc<dyn Clock>,
}

pub(crate) async fn run(cli: Cli, environment: Environment) -> Result<ExitCode, CliError> {
    let Global {
        output,
        url,
        token_file,
        ca_file,
    } = cli.global;
    let out = Output { format: output };
    let overrides = Overrides {
        url,
        token_file,
        ca_file,
    };
    let context = || {
        Ok::<_, CliError>(Context {
            api: Api::new(Login::find(&overrides, &environment)?, Arc::new(RandomIds)),
            out,
            clock: Arc::new(SystemClock),
        })
    };
    match cli.command {
        Command::Login => login::login(out, &overrides, &environment).await?,
        Command::Logout => login::logout(out, &environment)?,
        Command::Completion { shell } => pages::completion(out, shell)?,
        Command::Pages { dir } => pages::pages(&dir)?,
        Command::Create(args) => gitspaces::create(&context()?, args).await?,
        Command::List => gitspaces::list(&context()?).await?,
        Command::Show(args) => gitspaces::show(&context()?, &args.name).await?,
        Command::Start(args) => {
            gitspaces::act(&context()?, &args, GitspaceAction::Start).await?;
        }
        Command::Stop(args) => gitspaces::act(&context()?, &args, GitspaceAction::Stop).await?,
        Command::Reset(args) => {
            gitspaces::act(&context()?, &args, GitspaceAction::Reset).await?;
        }
        Command::Delete(args) => {
            gitspaces::act(&context()?, &args, GitspaceAction::Delete).await?;
        }
        Command::Cancel(args) => {
            gitspaces::act(&context()?, &args, GitspaceAction::Cancel).await?;
        }
        Command::Logs(args) => follow::logs(&context()?, &args).await?,
        Command::Events(args) => follow::events(&context()?, &args).await?,
        Command::Exec(args) => return session::exec::run(&context()?, args).await,
        Command::Shell(args) => return session::shell::run(&context()?, args).await,
        Command::Terminal(args) => terminals::terminal(&context()?, args).await?,
        Command::Ssh(args) => return ssh::ssh(&context()?, &overrides, &environment, args).await,
        Command::ConfigSsh(args) => {
            ssh::config_ssh(out, context, &overrides, &environment, args).await?;
        }
        Command::Ports(args) => reach::ports(&context()?, &args.name).await?,
        Command::Share(args) => reach::share(&context()?, &args).await?,
        Command::Url(args) => reach::url(&context()?, &args).await?,
        Command::Delegate(args) => delegates::delegate(&context()?, &args).await?,
        Command::Machine(args) => delegates::machine(&context()?, &args).await?,
        Command::JoinToken(args) => delegates::join_token(&context()?, args).await?,
        Command::Gateway(args) => gateways::gateway(&context()?, args).await?,
        Command::Token(args) => access::token(&context()?, args).await?,
        Command::User(args) => access::user(&context()?, args).await?,
        Command::GitCredential(args) => access::git_credential(&context()?, args).await?,
        Command::SshKey(args) => ssh_keys::ssh_key(&context()?, args).await?,
        Command::Version => pages::version(&context()?).await?,
    }
    Ok(ExitCode::SUCCESS)
}
