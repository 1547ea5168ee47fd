//! An error with its causes, on one line.

use std::{error::Error, fmt};

/// Prints an error and every cause under it on one line.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the ledger `{path}`")]
    struct Read {
        path: &'static str,
        #[source]
        source: std::io::Error,
    }

    #[test]
    fn a_chain_prints_each_cause_once() {
        let error = Read {
            path: "/var/lib/x/ledger.json",
            source: std::io::Error::other("disk on fire"),
        };
        assert_eq!(
            ErrorChain(&error).to_string(),
            "cannot read the ledger `/var/lib/x/ledger.json`: disk on fire"
        );
    }
}
