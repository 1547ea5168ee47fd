//! What a user's shell is, and where it starts.

use crate::account::Account;
use std::fs;
use wire::failure::{Failure, FailureCode};

/// In the order of preference, where the account names none that exists.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/sh", "/bin/ash"];

/// The first of the account's and the usual shells that exists.
pub(crate) fn of(account: &Account) -> Result<String, Failure> {
    account
        .shell
        .as_deref()
        .into_iter()
        .chain(SHELLS)
        .find(|shell| fs::metadata(shell).is_ok_and(|found| found.is_file()))
        .map(str::to_owned)
        .ok_or_else(|| {
            Failure::new(
                FailureCode::ToolMissing,
                "there is no shell in the image: neither the user's own nor /bin/sh",
            )
            .hint("use an image with a shell, or run a program of the image with `gitspace exec`")
        })
}

/// A shell has to open even where the workspace is gone, to mend it.
pub(crate) fn folder(workspace: &str, home: &str) -> String {
    [workspace, home]
        .into_iter()
        .find(|folder| fs::metadata(folder).is_ok_and(|found| found.is_dir()))
        .unwrap_or("/")
        .to_owned()
}
