//! Pages of lists: ordered by creation, cut by a cursor that stays valid while rows come and go.

use jiff::Timestamp;
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The last row of a page: what is after it comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub created: Timestamp,
    pub id: Uuid,
}

impl Cursor {
    pub fn new(created: Timestamp, id: impl newtype_uuid::GenericUuid) -> Self {
        Self {
            created,
            id: id.into_untyped_uuid(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this API gave")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:x}-{}",
            self.created.as_microsecond(),
            self.id.simple()
        )
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (created, id) = text.split_once('-').ok_or(CursorError)?;
        let created = i64::from_str_radix(created, 16).map_err(|_| CursorError)?;
        Ok(Self {
            created: Timestamp::from_microsecond(created).map_err(|_| CursorError)?,
            id: Uuid::try_parse(id).map_err(|_| CursorError)?,
        })
    }
}

/// Which rows of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    pub after: Option<Cursor>,
    pub limit: u32,
}

impl PageRequest {
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_what_it_shows() {
        let cursor = Cursor {
            created: Timestamp::from_microsecond(1_767_225_600_000_001).unwrap(),
            id: Uuid::from_u128(7),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "x-y",
            "1-2",
            "ffffffffffffffff-00000000000000000000000000000007",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }
}
