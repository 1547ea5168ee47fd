//! `logs`, `events`.

use super::Context;
use crate::{
    api::Object,
    args::Following,
    error::CliError,
    follow::{Follow, Numbered},
    output::Format,
    progress::{path_of, timeline_entry},
    text,
};
use wire::{
    api::{LogEntry, TimelineEvent},
    task::Phase,
};

pub(super) async fn events(context: &Context, args: &Following) -> Result<(), CliError> {
    all(context, args, "events", |event: &TimelineEvent| {
        timeline_entry(event)
    })
    .await
}

pub(super) async fn logs(context: &Context, args: &Following) -> Result<(), CliError> {
    let mut lines = Lines::default();
    all(context, args, "logs", |entry: &LogEntry| lines.push(entry)).await?;
    if lines.open {
        context.out.raw("\n")?;
    }
    Ok(())
}

async fn all<T: Numbered>(
    context: &Context,
    args: &Following,
    what: &str,
    mut render: impl FnMut(&T) -> String,
) -> Result<(), CliError> {
    let path = format!("{}/{what}", path_of(&args.name));
    let mut write = |item: &Object<T>| match context.out.format {
        Format::Text => context.out.raw(&render(&item.it)),
        Format::Json => context.out.json_line(item),
    };
    if args.follow {
        let mut follow = Follow::<T>::new(&context.api, path, 0);
        while let Some(item) = follow.next().await? {
            write(&item)?;
        }
        return Ok(());
    }
    for item in context.api.list::<T>(&path).await? {
        write(&item)?;
    }
    Ok(())
}

/// Output of the phases, each under a heading of its own.
#[derive(Debug, Default)]
struct Lines {
    phase: Option<Phase>,
    /// The last line is not ended yet.
    open: bool,
}

impl Lines {
    fn push(&mut self, entry: &LogEntry) -> String {
        let mut out = String::new();
        if self.phase != Some(entry.phase) {
            if std::mem::take(&mut self.open) {
                out.push('\n');
            }
            out.push_str(&format!("== {} ==\n", entry.phase.as_str()));
            self.phase = Some(entry.phase);
        }
        let shown = text::output(&entry.text);
        if !shown.is_empty() {
            self.open = !shown.ends_with('\n');
        }
        out.push_str(&shown);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(phase: &str, text: &str) -> LogEntry {
        serde_json::from_value(serde_json::json!({
            "id": 1, "at": "2026-01-01T00:00:00Z", "phase": phase, "stream": "stdout", "text": text,
        }))
        .unwrap()
    }

    #[test]
    fn each_phase_has_a_heading_on_a_line_of_its_own() {
        let mut lines = Lines::default();
        let mut out = lines.push(&entry("clone", "half a "));
        out += &lines.push(&entry("clone", "line"));
        out += &lines.push(&entry("image", "pulled\r\n"));
        assert_eq!(out, "== clone ==\nhalf a line\n== image ==\npulled\n");
        assert!(!lines.open);
    }
}
