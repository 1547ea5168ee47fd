//! The last words of a process: an error, a hint, a documented exit code.

use crate::ErrorChain;
use std::{error::Error, io::Write as _, process::ExitCode};

/// Exit codes, after `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 64,
    /// Something that this process needs is not there: a socket, a server, Docker.
    Unavailable = 69,
    /// The same may succeed later.
    TryAgain = 75,
    /// The caller may not do this.
    Refused = 77,
    /// The configuration is wrong: restarting does not help.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a process.
pub trait Hint: Error + 'static {
    /// What the reader can do about it.
    fn hint(&self) -> Option<String> {
        None
    }

    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// Prints `error: ..` and, where there is one, `hint: ..` to stderr; the result is for `main` to return.
pub fn report<E: Hint>(error: &E) -> ExitCode {
    // Where stderr is gone, the exit code is all that is left to say.
    drop(std::io::stderr().write_all(words(error).as_bytes()));
    error.exit().into()
}

fn words<E: Hint>(error: &E) -> String {
    let mut words = format!("error: {}\n", ErrorChain(error));
    if let Some(hint) = error.hint() {
        words.push_str(&format!("hint: {hint}\n"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot bind /run/x.sock")]
    struct Bind(#[source] std::io::Error);

    impl Hint for Bind {
        fn hint(&self) -> Option<String> {
            Some("is another one running?".to_owned())
        }

        fn exit(&self) -> Exit {
            Exit::Unavailable
        }
    }

    #[test]
    fn an_error_is_told_with_its_cause_and_a_hint_on_its_own_line() {
        let error = Bind(std::io::Error::other("address in use"));
        assert_eq!(
            words(&error),
            "error: cannot bind /run/x.sock: address in use\nhint: is another one running?\n"
        );
        assert_eq!(
            format!("{:?}", report(&error)),
            format!("{:?}", ExitCode::from(69))
        );
    }
}
