//! Columns and their types, one way for all tables.

use jiff::Timestamp;
use newtype_uuid::{TypedUuid, TypedUuidKind};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, sqlite::SqliteRow};
use std::sync::Arc;
use store::{Hash, StoreError};

/// A row with the name of what it is, for errors.
pub(crate) struct Columns<'r> {
    row: &'r SqliteRow,
    what: &'static str,
}

type Read<T> = Result<T, StoreError>;

impl<'r> Columns<'r> {
    pub(crate) const fn new(row: &'r SqliteRow, what: &'static str) -> Self {
        Self { row, what }
    }

    fn corrupt(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Corrupt {
            what: self.what,
            source: Arc::from(source.into()),
        }
    }

    fn get<T>(&self, column: &str) -> Read<T>
    where
        T: sqlx::Type<sqlx::Sqlite> + sqlx::Decode<'r, sqlx::Sqlite>,
    {
        self.row
            .try_get(column)
            .map_err(|error| self.corrupt(error))
    }

    pub(crate) fn text(&self, column: &str) -> Read<String> {
        self.get(column)
    }

    pub(crate) fn opt_text(&self, column: &str) -> Read<Option<String>> {
        self.get(column)
    }

    pub(crate) fn flag(&self, column: &str) -> Read<bool> {
        Ok(self.get::<i64>(column)? != 0)
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, column: &str) -> Read<T> {
        let number = self.get::<i64>(column)?;
        T::try_from(number)
            .map_err(|_| self.corrupt(format!("{number} in column {column} is out of range")))
    }

    pub(crate) fn opt_number<T: TryFrom<i64>>(&self, column: &str) -> Read<Option<T>> {
        if self.get::<Option<i64>>(column)?.is_none() {
            return Ok(None);
        }
        self.number(column).map(Some)
    }

    pub(crate) fn bytes(&self, column: &str) -> Read<Vec<u8>> {
        self.get(column)
    }

    pub(crate) fn opt_bytes(&self, column: &str) -> Read<Option<Vec<u8>>> {
        self.get(column)
    }

    pub(crate) fn hash(&self, column: &str) -> Read<Hash> {
        let bytes = self.bytes(column)?;
        Hash::try_from(bytes.as_slice()).map_err(|error| self.corrupt(error))
    }

    pub(crate) fn opt_hash(&self, column: &str) -> Read<Option<Hash>> {
        self.opt_bytes(column)?
            .map(|bytes| Hash::try_from(bytes.as_slice()).map_err(|error| self.corrupt(error)))
            .transpose()
    }

    pub(crate) fn time(&self, column: &str) -> Read<Timestamp> {
        Timestamp::from_microsecond(self.get(column)?).map_err(|error| self.corrupt(error))
    }

    pub(crate) fn opt_time(&self, column: &str) -> Read<Option<Timestamp>> {
        if self.get::<Option<i64>>(column)?.is_none() {
            return Ok(None);
        }
        self.time(column).map(Some)
    }

    pub(crate) fn id<K: TypedUuidKind>(&self, column: &str) -> Read<TypedUuid<K>> {
        self.text(column)?
            .parse()
            .map_err(|error: newtype_uuid::ParseError| self.corrupt(error))
    }

    pub(crate) fn opt_id<K: TypedUuidKind>(&self, column: &str) -> Read<Option<TypedUuid<K>>> {
        self.opt_text(column)?
            .map(|text| text.parse())
            .transpose()
            .map_err(|error: newtype_uuid::ParseError| self.corrupt(error))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &str) -> Read<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.corrupt(error))
    }

    pub(crate) fn opt_json<T: DeserializeOwned>(&self, column: &str) -> Read<Option<T>> {
        self.opt_text(column)?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| self.corrupt(error))
    }

    /// A name of an enum, as on the wire.
    pub(crate) fn word<T: DeserializeOwned>(&self, column: &str) -> Read<T> {
        serde_json::from_value(serde_json::Value::String(self.text(column)?))
            .map_err(|error| self.corrupt(error))
    }

    pub(crate) fn opt_word<T: DeserializeOwned>(&self, column: &str) -> Read<Option<T>> {
        self.opt_text(column)?
            .map(|text| serde_json::from_value(serde_json::Value::String(text)))
            .transpose()
            .map_err(|error| self.corrupt(error))
    }
}

pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(crate) fn opt_micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_microsecond)
}

/// Counters never come near the end of `i64`; one that did stays there.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn encode_error(source: serde_json::Error) -> StoreError {
    StoreError::Other {
        doing: "encoding a value",
        source: Arc::new(source),
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(encode_error)
}

pub(crate) fn opt_json<T: Serialize>(value: Option<&T>) -> Result<Option<String>, StoreError> {
    value.map(json).transpose()
}

/// The name of an enum's value, as on the wire.
pub(crate) fn word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value).map_err(encode_error)? {
        serde_json::Value::String(word) => Ok(word),
        other => Err(StoreError::Other {
            doing: "encoding a word",
            source: Arc::from(Box::from(format!("{other} is no word"))),
        }),
    }
}

pub(crate) fn opt_word<T: Serialize>(value: Option<&T>) -> Result<Option<String>, StoreError> {
    value.map(word).transpose()
}
