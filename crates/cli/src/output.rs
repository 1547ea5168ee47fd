//! What goes to stdout and stderr.

use crate::{error::CliError, text};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned, for people.
    Text,
    /// The API's own objects.
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Bytes to stdout, at once.
    pub(crate) fn raw(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(CliError::Output)
    }

    /// A whole JSON value.
    pub(crate) fn json<T: Serialize>(self, value: &T) -> Result<(), CliError> {
        let mut text = serde_json::to_string_pretty(value).map_err(io_error)?;
        text.push('\n');
        self.raw(&text::json(&text))
    }

    /// One JSON value on a line: for what follows.
    pub(crate) fn json_line<T: Serialize>(self, value: &T) -> Result<(), CliError> {
        let mut text = serde_json::to_string(value).map_err(io_error)?;
        text.push('\n');
        self.raw(&text::json(&text))
    }

    /// The API's value, or what `render` makes of it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        render: impl FnOnce() -> Result<String, CliError>,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(value),
            Format::Text => self.raw(&render()?),
        }
    }

    /// A remark for a person, on stderr.
    pub(crate) fn note(self, text: &str) {
        note(text);
    }
}

fn io_error(error: serde_json::Error) -> CliError {
    CliError::Output(error.into())
}

/// Where stderr is gone nobody is left to be told.
pub(crate) fn note(text: &str) {
    drop(writeln!(
        io::stderr().lock(),
        "{}",
        text.trim_end_matches('\n')
    ));
}

pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
