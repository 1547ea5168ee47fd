//! Opening the database, and what concerns all of it.

use crate::{error::store_error, row::micros};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use sqlx::{
    Connection as _, SqlSafeStr as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{borrow::Cow, time::Duration};
use store::{Answer, Store, StoreError};

/// Readers do not wait for the writer (WAL), only for each other when there are more than this.
const READERS: u32 = 4;
/// How long a locked database is waited for: another process may hold it (a backup).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection of the pool is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);
/// Join tokens are listed for a while after they expired, so that an operator sees why an enrolment failed.
const KEEP_JOIN_TOKENS: Duration = Duration::from_hours(30 * 24);

/// In order; a file that was released is never changed.
const MIGRATIONS: [(i64, &str, &str); 8] = [
    (
        1,
        "initial",
        include_str!("../migrations/sqlite/0001_initial.sql"),
    ),
    (
        2,
        "git credential scheme",
        include_str!("../migrations/sqlite/0002_git_credential_scheme.sql"),
    ),
    (
        3,
        "removals",
        include_str!("../migrations/sqlite/0003_removals.sql"),
    ),
    (
        4,
        "disconnect code",
        include_str!("../migrations/sqlite/0004_disconnect_code.sql"),
    ),
    (
        5,
        "delegate keys",
        include_str!("../migrations/sqlite/0005_delegate_keys.sql"),
    ),
    (
        6,
        "join token delegate",
        include_str!("../migrations/sqlite/0006_join_token_delegate.sql"),
    ),
    (
        7,
        "ssh keys",
        include_str!("../migrations/sqlite/0007_ssh_keys.sql"),
    ),
    (
        8,
        "shared ports",
        include_str!("../migrations/sqlite/0008_shared_ports.sql"),
    ),
];

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the database {path}")]
    Open {
        path: Utf8PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot bring the database {path} to this version's form")]
    Migrate {
        path: Utf8PathBuf,
        #[source]
        source: MigrateError,
    },
}

/// The store on one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlStore {
    pub(crate) readers: SqlitePool,
    writer: SqlitePool,
}

impl SqlStore {
    /// Opens the file, or makes it, and brings it to this version's form.
    ///
    /// # Errors
    /// The file cannot be opened, or was written by a later version.
    pub async fn open_sqlite(path: &Utf8Path) -> Result<Self, OpenError> {
        let open_error = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        // Nothing lies between this process and the file that a test of a connection could find broken, and each test is a way to its thread.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|connection, _| Box::pin(is_out_of_transaction(connection)))
            .connect_with(options.clone())
            .await
            .map_err(open_error)?;
        let migrations = MIGRATIONS
            .iter()
            .map(|(version, name, sql)| {
                Migration::new(
                    *version,
                    Cow::Borrowed(*name),
                    MigrationType::Simple,
                    (*sql).into_sql_str(),
                    false,
                )
            })
            .collect();
        Migrator::with_migrations(migrations)
            .run(&writer)
            .await
            .map_err(|source| OpenError::Migrate {
                path: path.to_owned(),
                source,
            })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(open_error)?;
        Ok(Self { readers, writer })
    }

    /// Waits for what is under way and closes the files.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that holds the write lock from its start.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(store_error("starting a transaction", "transaction"))
    }
}

/// Whether a connection can begin another transaction. SQLite itself rolls back what a full or failing disk broke off; the driver's own
/// rollback then fails, and it would take the connection to be in a transaction for ever. One like that is closed, and the next made anew.
async fn is_out_of_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback of what was dropped may be under way: this waits for its turn.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

pub(crate) async fn done(transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    transaction
        .commit()
        .await
        .map_err(store_error("committing a transaction", "transaction"))
}

impl Store for SqlStore {
    fn drop_expired(&self, now: Timestamp) -> Answer<'_, u64> {
        Box::pin(async move {
            let failed = store_error("dropping what has expired", "expired row");
            let mut transaction = self.write().await?;
            let mut dropped = 0;
            for sql in [
                "DELETE FROM sessions WHERE exp <= $1",
                "DELETE FROM one_time_codes WHERE exp <= $1",
                "DELETE FROM idempotency_keys WHERE exp <= $1",
                "DELETE FROM revocations WHERE exp <= $1",
            ] {
                let result = sqlx::query(sql)
                    .bind(micros(now))
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
                dropped += result.rows_affected();
            }
            let before = now.checked_sub(KEEP_JOIN_TOKENS).unwrap_or(Timestamp::MIN);
            let result = sqlx::query("DELETE FROM join_tokens WHERE exp <= $1")
                .bind(micros(before))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            dropped += result.rows_affected();
            done(transaction).await?;
            Ok(dropped)
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            sqlx::query("SELECT 1")
                .execute(&self.readers)
                .await
                .map(drop)
                .map_err(store_error("asking it for a sign of life", "ping"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;
    use store::DelegateStore as _;
    use wire::control::{Disconnect, DisconnectCode};

    /// A database of the first form with these rows in it, as this version opens it.
    async fn first_form(rows: &[&'static str]) -> (tempfile::TempDir, SqlStore) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let old = SqlitePoolOptions::new()
            .connect_with(options)
            .await
            .unwrap();
        let (version, name, sql) = MIGRATIONS[0];
        let first = Migration::new(
            version,
            Cow::Borrowed(name),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        );
        Migrator::with_migrations(vec![first])
            .run(&old)
            .await
            .unwrap();
        for sql in rows {
            sqlx::query(*sql).execute(&old).await.unwrap();
        }
        old.close().await;
        let store = SqlStore::open_sqlite(&path).await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn what_a_full_disk_broke_off_does_not_keep_later_writes_from_their_turn() {
        let (_dir, store) = first_form(&[]).await;
        for whole in [true, false] {
            // SQLite's own bound, of this connection alone: the same error and the same rollback as of a full disk.
            sqlx::query("PRAGMA max_page_count = 1")
                .execute(&store.writer)
                .await
                .unwrap();
            let mut transaction = store.write().await.unwrap();
            let fill = "INSERT INTO settings (key, value) VALUES ('x', zeroblob(1000000))";
            let result = if whole {
                sqlx::query(fill).execute(&mut *transaction).await
            } else {
                let mut part = transaction.begin().await.unwrap();
                sqlx::query(fill).execute(&mut *part).await
            };
            let error = store_error("filling it", "row")(result.unwrap_err());
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
            drop(transaction);
            let after = store.write().await.unwrap();
            done(after).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_git_credential_of_the_first_form_is_kept_and_goes_over_https() {
        let (_dir, store) = first_form(&[
            "INSERT INTO users (id, name, role, disabled, created) VALUES ('u', 'ann', 'developer', 0, 1)",
            "INSERT INTO git_credentials (id, user_id, host, username, sealed, created) VALUES ('c', 'u', 'git.lan', 'ann', x'0102', 7)",
        ])
        .await;
        let row = sqlx::query("SELECT * FROM git_credentials")
            .fetch_one(&store.readers)
            .await
            .unwrap();
        let kept = (
            row.get::<String, _>("id"),
            row.get::<String, _>("scheme"),
            row.get::<String, _>("host"),
            row.get::<Vec<u8>, _>("sealed"),
            row.get::<i64, _>("created"),
        );
        let expected = ("c".into(), "https".into(), "git.lan".into(), vec![1, 2], 7);
        assert_eq!(kept, expected);
    }

    #[tokio::test]
    async fn a_disconnect_of_the_first_form_is_kept_with_the_code_other() {
        let (_dir, store) = first_form(&[
            "INSERT INTO delegates (id, name, tags, public_key, revoked, last_disconnect, epoch, created)
             VALUES ('0198c0de-0000-7000-8000-000000000001', 'd', '[]', zeroblob(32), 0, 'the \"line\" was cut', 0, 0)",
        ])
        .await;
        let known = store.delegate_by_name("d").await.unwrap().unwrap();
        assert_eq!(
            known.last_disconnect,
            Some(Disconnect {
                code: DisconnectCode::Other,
                reason: "the \"line\" was cut".to_owned(),
            })
        );
    }
}
