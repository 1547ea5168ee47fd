//! Exit codes, after `sysexits.h`.

use std::process::ExitCode;

/// What `--help` and the man page say.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    it failed: the gitspace ended in state `error`, or something without a code of its own
  64   the command line is wrong
  65   the server does not take what was asked (a bad URL, name, branch)
  66   there is no such gitspace, token, …
  69   the server cannot be reached
  75   busy or in conflict with its state: try again
  77   refused: not logged in, or not allowed
  78   the configuration is wrong
  127  exec: the command cannot be started
  130  interrupted while waiting; what was asked for goes on
  N    exec, shell: the exit code of the command; 128 + n after signal n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Failure = 1,
    Usage = 64,
    Data = 65,
    NotFound = 66,
    Unavailable = 69,
    TryAgain = 75,
    Refused = 77,
    Config = 78,
    CannotStart = 127,
    Interrupted = 130,
    /// Nobody reads the output: what a shell shows for SIGPIPE.
    Pipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
