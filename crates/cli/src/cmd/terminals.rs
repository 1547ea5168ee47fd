//! `terminal`.

use super::Context;
use crate::{api::Object, args::TerminalCommand, error::CliError, text};
use wire::workspace::TerminalInfo;

const PATH: &str = "/api/v1/terminals";

pub(super) async fn terminal(context: &Context, args: TerminalCommand) -> Result<(), CliError> {
    match args {
        TerminalCommand::List(args) => list(context, &args.name).await,
        TerminalCommand::Close { name, id } => {
            let entry = context.api.grant(&name).await?;
            let path = format!("{PATH}/{id}");
            Ok(entry.delete(context.api.client(), &path).await?)
        }
    }
}

async fn list(context: &Context, name: &str) -> Result<(), CliError> {
    let entry = context.api.grant(name).await?;
    let terminals: Object<Vec<TerminalInfo>> = entry.get(context.api.client(), PATH).await?;
    context.out.show(&terminals, || {
        let now = context.clock.now();
        let rows: Vec<_> = terminals
            .it
            .iter()
            .map(|terminal| {
                vec![
                    terminal.id.to_string(),
                    terminal.title.clone(),
                    text::relative(terminal.started, now),
                    match terminal.attached {
                        0 => "left".to_owned(),
                        count => count.to_string(),
                    },
                ]
            })
            .collect();
        Ok(text::table(&["ID", "TITLE", "STARTED", "ATTACHED"], &rows))
    })
}
