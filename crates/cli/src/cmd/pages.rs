//! `completion`, `man`, `version`.

use super::Context;
use crate::{api::Object, args::Cli, error::CliError, output::Output, text};
use camino::Utf8Path;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::Value;

pub(super) fn completion(out: Output, shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gitspace", &mut script);
    out.raw(&String::from_utf8_lossy(&script))
}

/// `gitspace.1` and one page for each sub-command.
pub(super) fn man(dir: &Utf8Path) -> Result<(), CliError> {
    let failed = |source| CliError::Write {
        path: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)
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
