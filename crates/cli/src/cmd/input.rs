//! Secrets from stdin: piped, or typed without an echo.

use crate::error::CliError;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use wire::secret::Secret;

const MAX_SECRET: u64 = 16 * 1024;

/// One line of stdin without its line break.
pub(super) fn secret(what: &str) -> Result<Secret, CliError> {
    let failed = |source| CliError::Input {
        what: format!("the {what} from stdin"),
        source,
    };
    let stdin = io::stdin();
    let mut text = String::new();
    if stdin.is_terminal() {
        let mut stderr = io::stderr().lock();
        drop(write!(stderr, "{what}: ").and_then(|()| stderr.flush()));
        let quiet = Quiet::new().map_err(|error| failed(error.into()))?;
        let read = stdin.lock().take(MAX_SECRET).read_line(&mut text);
        drop(quiet);
        drop(writeln!(stderr));
        read.map_err(failed)?;
    } else {
        stdin
            .lock()
            .take(MAX_SECRET)
            .read_to_string(&mut text)
            .map_err(failed)?;
    }
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(CliError::usage(
            format!("there is no {what} on stdin"),
            "give it as `… < FILE`, so that it is in no list of processes",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(CliError::usage(
            format!("the {what} on stdin is more than one line"),
            "give it alone",
        ));
    }
    Ok(Secret::new(text))
}

/// The terminal without an echo, until dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn new() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.before).ok();
    }
}
