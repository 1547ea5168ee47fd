//! Pages of lists.

use super::error::ApiError;
use serde::Deserialize;
use store::{Cursor, PageRequest};
use wire::api::{MAX_PAGE, Page};

/// Query of every list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 100; 100 where missing.
    #[serde(default)]
    limit: Option<u32>,
}

pub(crate) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked {
        None => Ok(MAX_PAGE),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(limit) => Err(ApiError::invalid(
            "`limit`",
            format!("it is {limit}; 1 to {MAX_PAGE} are taken"),
        )),
    }
}

impl PageQuery {
    pub(crate) fn request(&self) -> Result<PageRequest, ApiError> {
        let after = match &self.cursor {
            None => None,
            Some(text) => Some(
                text.parse::<Cursor>()
                    .map_err(|error| ApiError::invalid("`cursor`", error.to_string()))?,
            ),
        };
        Ok(PageRequest {
            after,
            limit: limit(self.limit)?,
        })
    }
}

/// Asks the store for one more than the page has, to see whether there is a next one.
pub(crate) const fn probe(page: PageRequest) -> PageRequest {
    PageRequest {
        after: page.after,
        limit: page.limit + 1,
    }
}

/// The page of what [`probe`] found.
pub(crate) fn page_of<R, T>(
    page: PageRequest,
    mut rows: Vec<R>,
    cursor: impl Fn(&R) -> Cursor,
    show: impl FnMut(R) -> T,
) -> Page<T> {
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| cursor(row).to_string());
    Page {
        items: rows.into_iter().map(show).collect(),
        next,
    }
}

/// The page of a list that the store gives whole, oldest first.
pub(crate) fn page_of_all<R, T>(
    page: PageRequest,
    mut rows: Vec<R>,
    cursor: impl Fn(&R) -> Cursor,
    show: impl FnMut(R) -> T,
) -> Page<T> {
    let key = |row: &R| {
        let cursor = cursor(row);
        (cursor.created.as_microsecond(), cursor.id)
    };
    rows.sort_by_key(&key);
    if let Some(after) = page.after {
        rows.retain(|row| key(row) > (after.created.as_microsecond(), after.id));
    }
    page_of(page, rows, cursor, show)
}
