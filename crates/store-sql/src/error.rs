//! What the database's errors mean.

use sqlx::error::ErrorKind;
use std::sync::Arc;
use store::StoreError;

/// SQLite's primary result codes.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_FULL: i64 = 13;

/// Turns an error of `doing` into the store's own. `what` is the row it is about.
pub(crate) fn store_error(
    doing: &'static str,
    what: &'static str,
) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| match &error {
        sqlx::Error::Database(database) => match database.kind() {
            ErrorKind::UniqueViolation => StoreError::Conflict { what },
            ErrorKind::ForeignKeyViolation => StoreError::NotFound { what },
            _ => {
                // The extended code's lowest byte is the primary one.
                let code = database.code().and_then(|code| code.parse::<i64>().ok());
                match code.map(|code| code & 0xff) {
                    Some(SQLITE_BUSY | SQLITE_LOCKED) => StoreError::Unavailable {
                        source: Arc::new(error),
                    },
                    Some(SQLITE_FULL) => StoreError::Full {
                        source: Arc::new(error),
                    },
                    _ => StoreError::Other {
                        doing,
                        source: Arc::new(error),
                    },
                }
            }
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt {
            what,
            source: Arc::new(error),
        },
        sqlx::Error::RowNotFound => StoreError::NotFound { what },
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreError::Unavailable {
                source: Arc::new(error),
            }
        }
        _ => StoreError::Other {
            doing,
            source: Arc::new(error),
        },
    }
}

/// Whether a unique constraint over `column` was violated.
pub(crate) fn violates(error: &sqlx::Error, column: &str) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation() && error.message().contains(column))
}
