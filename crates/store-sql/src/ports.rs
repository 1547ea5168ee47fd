//! Ports that gitspaces share.

use crate::{
    SqlStore,
    error::store_error,
    open::done,
    row::{Columns, micros},
};
use sqlx::sqlite::SqliteRow;
use store::{Answer, PortStore, SharedPortRecord, StoreError};
use wire::ids::GitspaceUuid;

fn shared_port(row: &SqliteRow) -> Result<SharedPortRecord, StoreError> {
    let columns = Columns::new(row, "shared port");
    Ok(SharedPortRecord {
        gitspace: columns.id("gitspace_id")?,
        port: columns.number("port")?,
        visibility: columns.word("visibility")?,
        user: columns.id("user_id")?,
        created: columns.time("created")?,
    })
}

impl PortStore for SqlStore {
    fn share_port<'a>(&'a self, port: &'a SharedPortRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO shared_ports (gitspace_id, port, visibility, user_id, created)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (gitspace_id, port) DO UPDATE
                 SET visibility = excluded.visibility, user_id = excluded.user_id, created = excluded.created",
            )
            .bind(port.gitspace.to_string())
            .bind(i64::from(port.port))
            .bind(port.visibility.as_str())
            .bind(port.user.to_string())
            .bind(micros(port.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("sharing a port", "shared port"))?;
            done(transaction).await
        })
    }

    fn unshare_port(&self, gitspace: GitspaceUuid, port: u16) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result =
                sqlx::query("DELETE FROM shared_ports WHERE gitspace_id = $1 AND port = $2")
                    .bind(gitspace.to_string())
                    .bind(i64::from(port))
                    .execute(&mut *transaction)
                    .await
                    .map_err(store_error("making a port private", "shared port"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn shared_ports(&self, gitspace: GitspaceUuid) -> Answer<'_, Vec<SharedPortRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM shared_ports WHERE gitspace_id = $1 ORDER BY port")
                .bind(gitspace.to_string())
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing shared ports", "shared port"))?
                .iter()
                .map(shared_port)
                .collect()
        })
    }

    fn all_shared_ports(&self) -> Answer<'_, Vec<SharedPortRecord>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT p.* FROM shared_ports p JOIN gitspaces g ON g.id = p.gitspace_id
                 WHERE g.deleted IS NULL ORDER BY p.port",
            )
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("listing shared ports", "shared port"))?
            .iter()
            .map(shared_port)
            .collect()
        })
    }
}
