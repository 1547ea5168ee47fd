//! What can go wrong with storage.

use std::{error::Error, sync::Arc};

/// A cause from the database. Shared: everybody whose change was to be written in one transaction is told why it was not.
pub type Cause = Arc<dyn Error + Send + Sync>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The row that was to be changed does not exist.
    #[error("no such {what}")]
    NotFound { what: &'static str },
    /// Something else has this name, or the row changed since it was read.
    #[error("{what} is taken, or changed meanwhile")]
    Conflict { what: &'static str },
    /// The database does not answer, or is locked for too long.
    #[error("the database does not answer")]
    Unavailable {
        #[source]
        source: Cause,
    },
    /// No space is left where the database lies.
    #[error("the database's disk is full")]
    Full {
        #[source]
        source: Cause,
    },
    /// A row cannot be read: written by a later version, or damaged.
    #[error("cannot read {what} from the database")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Cause,
    },
    #[error("the database failed while {doing}")]
    Other {
        doing: &'static str,
        #[source]
        source: Cause,
    },
}

impl StoreError {
    /// Whether the same call can work later without anybody changing anything in what is asked.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Full { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Corrupt { .. }
            | Self::Other { .. } => false,
        }
    }
}
