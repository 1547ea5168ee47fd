//! Users.

use crate::{
    SqlStore,
    error::store_error,
    open::done,
    row::{Columns, micros, opt_word, word},
};
use sqlx::sqlite::SqliteRow;
use store::{Answer, PageRequest, StoreError, UserRecord, UserStore};
use wire::{api::Role, ids::UserUuid};

/// In joins a user's columns come with the prefix.
pub(crate) fn user(row: &SqliteRow, prefix: &str) -> Result<UserRecord, StoreError> {
    let columns = Columns::new(row, "user");
    let name = |column: &str| format!("{prefix}{column}");
    Ok(UserRecord {
        id: columns.id(&name("id"))?,
        name: columns.text(&name("name"))?,
        email: columns.opt_text(&name("email"))?,
        role: columns.word(&name("role"))?,
        disabled: columns.flag(&name("disabled"))?,
        created: columns.time(&name("created"))?,
    })
}

impl UserStore for SqlStore {
    fn create_user<'a>(&'a self, user: &'a UserRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO users (id, name, email, role, disabled, created) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(user.id.to_string())
            .bind(user.name.as_str())
            .bind(user.email.as_deref())
            .bind(word(&user.role)?)
            .bind(i64::from(user.disabled))
            .bind(micros(user.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating a user", "user name"))?;
            done(transaction).await
        })
    }

    fn user(&self, id: UserUuid) -> Answer<'_, Option<UserRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM users WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a user", "user"))?
                .map(|row| user(&row, ""))
                .transpose()
        })
    }

    fn user_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<UserRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM users WHERE name = $1")
                .bind(name)
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a user", "user"))?
                .map(|row| user(&row, ""))
                .transpose()
        })
    }

    fn users(&self, page: PageRequest) -> Answer<'_, Vec<UserRecord>> {
        Box::pin(async move {
            let (created, id) = after(&page);
            sqlx::query(
                "SELECT * FROM users WHERE created > $1 OR (created = $1 AND id > $2) ORDER BY created, id LIMIT $3",
            )
            .bind(created)
            .bind(id)
            .bind(i64::from(page.limit))
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("listing users", "user"))?
            .iter()
            .map(|row| user(row, ""))
            .collect()
        })
    }

    fn count_users(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let row = sqlx::query("SELECT COUNT(*) AS count FROM users")
                .fetch_one(&self.readers)
                .await
                .map_err(store_error("counting users", "user"))?;
            Columns::new(&row, "count").number("count")
        })
    }

    fn update_user(
        &self,
        id: UserUuid,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Answer<'_, UserRecord> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let row = sqlx::query(
                "UPDATE users SET role = COALESCE($2, role), disabled = COALESCE($3, disabled) WHERE id = $1 RETURNING *",
            )
            .bind(id.to_string())
            .bind(opt_word(role.as_ref())?)
            .bind(disabled.map(i64::from))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(store_error("updating a user", "user"))?
            .ok_or(StoreError::NotFound { what: "user" })?;
            done(transaction).await?;
            user(&row, "")
        })
    }
}

/// Where a page starts, as columns: before everything where there is no cursor.
pub(crate) fn after(page: &PageRequest) -> (i64, String) {
    page.after.map_or((i64::MIN, String::new()), |cursor| {
        (micros(cursor.created), cursor.id.to_string())
    })
}
