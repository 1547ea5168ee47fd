//! `completion`, `pages`, `version`.

use super::Context;
use crate::{api::Object, args::Cli, error::CliError, output::Output, text};
use camino::Utf8Path;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::Value;

pub(super) fn completion(out: Output, shell: Shell) -> Result<(), CliError> {
    out.raw(&pages::completion(Cli::command(), shell))
}

/// Man pages and completions, as packages install them.
pub(super) fn pages(dir: &Utf8Path) -> Result<(), CliError> {
    Ok(pages::write(
        Cli::command(),
        pages::Section::UserCommands,
        dir,
    )?)
}

pub(super) async fn version(context: &Context) -> Result<(), CliError> {
    let server: Object<Value> = context.api.get("/version").await?;
    context.out.show(&server, || {
        let version = server.raw.get("version").and_then(Value::as_str);
        Ok(text::fields(&[
            ("gitspace", env!("CARGO_PKG_VERSION").to_owned()),
            ("control plane", version.unwrap_or("unknown").to_owned()),
        ]))
    })
}
