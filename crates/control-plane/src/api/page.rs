//! Pages of lists.

use super::error::ApiError;
use axum::Json;
use serde::Deserialize;
use store::{
    AccessTokenRecord, Cursor, DelegateRecord, GatewayRecord, GitCredentialRecord, GitspaceRecord,
    InfraProviderRecord, JoinTokenRecord, MachineRecord, PageRequest, SshKeyRecord, UserRecord,
};
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

/// The page that a query asks for.
pub(crate) fn page_request(
    cursor: Option<&str>,
    asked: Option<u32>,
) -> Result<PageRequest, ApiError> {
    let after = cursor
        .map(str::parse::<Cursor>)
        .transpose()
        .map_err(|error| ApiError::invalid("`cursor`", error.to_string()))?;
    Ok(PageRequest {
        after,
        limit: limit(asked)?,
    })
}

impl PageQuery {
    pub(crate) fn request(&self) -> Result<PageRequest, ApiError> {
        page_request(self.cursor.as_deref(), self.limit)
    }

    /// The page of a list that the store gives whole.
    pub(crate) fn page_of_all<R: Listed, T>(
        &self,
        mut rows: Vec<R>,
        show: impl FnMut(R) -> T,
    ) -> Result<Json<Page<T>>, ApiError> {
        let page = self.request()?;
        let key = |row: &R| {
            let cursor = row.cursor();
            (cursor.created.as_microsecond(), cursor.id)
        };
        rows.sort_by_key(key);
        if let Some(after) = page.after {
            rows.retain(|row| key(row) > (after.created.as_microsecond(), after.id));
        }
        Ok(Json(page_of(page, rows, show)))
    }
}

/// Asks the store for one more than the page has, to see whether there is a next one.
pub(crate) const fn probe(page: PageRequest) -> PageRequest {
    PageRequest {
        after: page.after,
        limit: page.limit + 1,
    }
}

/// A record that lists hold, oldest first.
pub(crate) trait Listed {
    /// Where a page that ends with it goes on.
    fn cursor(&self) -> Cursor;
}

macro_rules! listed {
    ($($record:ty),+ $(,)?) => {$(
        impl Listed for $record {
            fn cursor(&self) -> Cursor {
                Cursor::new(self.created, self.id)
            }
        }
    )+};
}
listed!(
    AccessTokenRecord,
    DelegateRecord,
    GatewayRecord,
    GitCredentialRecord,
    GitspaceRecord,
    InfraProviderRecord,
    JoinTokenRecord,
    MachineRecord,
    SshKeyRecord,
    UserRecord,
);

/// The page of what [`probe`] found.
pub(crate) fn page_of<R: Listed, T>(
    page: PageRequest,
    mut rows: Vec<R>,
    show: impl FnMut(R) -> T,
) -> Page<T> {
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| row.cursor().to_string());
    Page {
        items: rows.into_iter().map(show).collect(),
        next,
    }
}
