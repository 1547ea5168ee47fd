//! This terminal: raw mode, size.

use crate::error::CliError;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Write as _};
use wire::workspace::Size;

/// Where there is no terminal to ask.
const DEFAULT_SIZE: Size = Size { rows: 24, cols: 80 };

/// What programs may have left on: mouse reports, focus reports, bracketed paste, application keys, colours, a hidden cursor.
pub(super) const RESET: &str = "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[m\x1b[?25h";
pub(super) const LEAVE_ALTERNATE: &str = "\x1b[?1049l";

pub(super) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

pub(super) fn size() -> Size {
    [
        terminal_size::terminal_size_of(io::stdout()),
        terminal_size::terminal_size_of(io::stdin()),
        terminal_size::terminal_size_of(io::stderr()),
    ]
    .into_iter()
    .flatten()
    .map(|(width, height)| Size {
        rows: height.0,
        cols: width.0,
    })
    // A serial line knows no size.
    .find(|size| size.rows > 0 && size.cols > 0)
    .unwrap_or(DEFAULT_SIZE)
}

/// Raw mode until dropped: also by a panic.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(super) fn enter() -> Result<Self, CliError> {
        let failed = |step| {
            move |error: nix::Error| CliError::Terminal {
                step,
                source: error.into(),
            }
        };
        let before = tcgetattr(io::stdin()).map_err(failed("read the settings of"))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // TCSADRAIN: what was typed ahead is for the shell.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).map_err(failed("set up"))?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).ok();
    }
}

/// Said by us in the middle of a session, where a line break needs its carriage return.
pub(crate) fn aside(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(
        write!(stderr, "\r\n[gitspace: {}]\r\n", crate::text::line(text))
            .and_then(|()| stderr.flush()),
    );
}
