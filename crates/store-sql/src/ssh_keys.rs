//! SSH public keys.

use crate::{
    SqlStore,
    error::store_error,
    open::done,
    row::{Columns, micros, opt_micros},
    users::user,
};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use store::{Answer, Hash, SshKeyRecord, SshKeyStore, StoreError, UserRecord};
use wire::ids::{SshKeyUuid, UserUuid};

fn ssh_key(row: &SqliteRow) -> Result<SshKeyRecord, StoreError> {
    let columns = Columns::new(row, "SSH key");
    Ok(SshKeyRecord {
        id: columns.id("id")?,
        user: columns.id("user_id")?,
        name: columns.text("name")?,
        key: columns.word("key")?,
        fingerprint: columns.hash("fingerprint")?,
        last_used: columns.opt_time("last_used")?,
        created: columns.time("created")?,
    })
}

impl SshKeyStore for SqlStore {
    fn create_ssh_key<'a>(&'a self, key: &'a SshKeyRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO ssh_keys (id, user_id, name, key, fingerprint, last_used, created)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(key.id.to_string())
            .bind(key.user.to_string())
            .bind(key.name.as_str())
            .bind(key.key.as_str())
            .bind(key.fingerprint.as_slice())
            .bind(opt_micros(key.last_used))
            .bind(micros(key.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating an SSH key", "SSH key"))?;
            done(transaction).await
        })
    }

    fn ssh_key_by_fingerprint<'a>(
        &'a self,
        fingerprint: &'a Hash,
    ) -> Answer<'a, Option<(SshKeyRecord, UserRecord)>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT k.*, u.name AS user_name, u.email AS user_email, u.role AS user_role,
                   u.disabled AS user_disabled, u.created AS user_created
                 FROM ssh_keys k JOIN users u ON u.id = k.user_id WHERE k.fingerprint = $1",
            )
            .bind(fingerprint.as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading an SSH key", "SSH key"))?
            .map(|row| Ok((ssh_key(&row)?, user(&row, "user_")?)))
            .transpose()
        })
    }

    fn ssh_keys(&self, user: UserUuid) -> Answer<'_, Vec<SshKeyRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM ssh_keys WHERE user_id = $1 ORDER BY created DESC, id")
                .bind(user.to_string())
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing SSH keys", "SSH key"))?
                .iter()
                .map(ssh_key)
                .collect()
        })
    }

    fn ssh_key_owner(&self, id: SshKeyUuid) -> Answer<'_, Option<UserUuid>> {
        Box::pin(async move {
            sqlx::query("SELECT user_id FROM ssh_keys WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading an SSH key", "SSH key"))?
                .map(|row| Columns::new(&row, "SSH key").id("user_id"))
                .transpose()
        })
    }

    fn delete_ssh_key(&self, id: SshKeyUuid, user: UserUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("DELETE FROM ssh_keys WHERE id = $1 AND user_id = $2")
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting an SSH key", "SSH key"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn touch_ssh_key(&self, id: SshKeyUuid, at: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "UPDATE ssh_keys SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)",
            )
            .bind(id.to_string())
            .bind(micros(at))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("noting the use of an SSH key", "SSH key"))?;
            done(transaction).await
        })
    }
}
