//! Access tokens, browser sessions, one-time codes, idempotency keys, Git credentials.

use crate::{
    SqlStore,
    error::store_error,
    open::done,
    row::{Columns, micros, opt_micros},
    users::user,
};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use store::{
    AccessStore, AccessTokenRecord, Answer, Claimed, CodeRecord, GitCredentialRecord, Hash,
    IdempotencyClaim, SessionRecord, StoreError, UserRecord,
};
use wire::ids::{AccessTokenUuid, GitCredentialUuid, GitspaceUuid, UserUuid};

fn access_token(row: &SqliteRow) -> Result<AccessTokenRecord, StoreError> {
    let columns = Columns::new(row, "access token");
    Ok(AccessTokenRecord {
        id: columns.id("id")?,
        user: columns.id("user_id")?,
        name: columns.text("name")?,
        hash: columns.hash("hash")?,
        exp: columns.time("exp")?,
        revoked: columns.flag("revoked")?,
        last_used: columns.opt_time("last_used")?,
        created: columns.time("created")?,
    })
}

fn session(row: &SqliteRow) -> Result<SessionRecord, StoreError> {
    let columns = Columns::new(row, "session");
    Ok(SessionRecord {
        hash: columns.hash("hash")?,
        user: columns.id("user_id")?,
        csrf: columns.text("csrf")?,
        exp: columns.time("exp")?,
        created: columns.time("created")?,
    })
}

fn code(row: &SqliteRow) -> Result<CodeRecord, StoreError> {
    let columns = Columns::new(row, "one-time code");
    Ok(CodeRecord {
        hash: columns.hash("hash")?,
        gitspace: columns.id("gitspace_id")?,
        port: columns.opt_number("port")?,
        user: columns.id("user_id")?,
        return_to: columns.text("return_to")?,
        exp: columns.time("exp")?,
        created: columns.time("created")?,
    })
}

fn git_credential(row: &SqliteRow) -> Result<GitCredentialRecord, StoreError> {
    let columns = Columns::new(row, "Git credential");
    Ok(GitCredentialRecord {
        id: columns.id("id")?,
        user: columns.id("user_id")?,
        scheme: columns.word("scheme")?,
        host: columns.text("host")?,
        username: columns.text("username")?,
        sealed: columns.bytes("sealed")?,
        created: columns.time("created")?,
    })
}

impl AccessStore for SqlStore {
    fn create_access_token<'a>(&'a self, token: &'a AccessTokenRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO access_tokens (id, user_id, name, hash, exp, revoked, last_used, created)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(token.id.to_string())
            .bind(token.user.to_string())
            .bind(token.name.as_str())
            .bind(token.hash.as_slice())
            .bind(micros(token.exp))
            .bind(i64::from(token.revoked))
            .bind(opt_micros(token.last_used))
            .bind(micros(token.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating an access token", "access token"))?;
            done(transaction).await
        })
    }

    fn access_token_by_hash<'a>(
        &'a self,
        hash: &'a Hash,
    ) -> Answer<'a, Option<(AccessTokenRecord, UserRecord)>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT t.*, u.name AS user_name, u.email AS user_email, u.role AS user_role,
                   u.disabled AS user_disabled, u.created AS user_created
                 FROM access_tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = $1",
            )
            .bind(hash.as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading an access token", "access token"))?
            .map(|row| Ok((access_token(&row)?, user(&row, "user_")?)))
            .transpose()
        })
    }

    fn access_tokens(&self, user: UserUuid) -> Answer<'_, Vec<AccessTokenRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM access_tokens WHERE user_id = $1 ORDER BY created DESC, id")
                .bind(user.to_string())
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing access tokens", "access token"))?
                .iter()
                .map(access_token)
                .collect()
        })
    }

    fn revoke_access_token(&self, id: AccessTokenUuid, user: Option<UserUuid>) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query(
                "UPDATE access_tokens SET revoked = 1 WHERE id = $1 AND ($2 IS NULL OR user_id = $2)",
            )
            .bind(id.to_string())
            .bind(user.map(|user| user.to_string()))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("revoking an access token", "access token"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn access_token_owner(&self, id: AccessTokenUuid) -> Answer<'_, Option<UserUuid>> {
        Box::pin(async move {
            sqlx::query("SELECT user_id FROM access_tokens WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading an access token", "access token"))?
                .map(|row| Columns::new(&row, "access token").id("user_id"))
                .transpose()
        })
    }

    fn touch_access_token(&self, id: AccessTokenUuid, at: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "UPDATE access_tokens SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)",
            )
            .bind(id.to_string())
            .bind(micros(at))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("marking an access token as used", "access token"))?;
            done(transaction).await
        })
    }

    fn create_session<'a>(&'a self, session: &'a SessionRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO sessions (hash, user_id, csrf, exp, created) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(session.hash.as_slice())
            .bind(session.user.to_string())
            .bind(session.csrf.as_str())
            .bind(micros(session.exp))
            .bind(micros(session.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating a session", "session"))?;
            done(transaction).await
        })
    }

    fn session_by_hash<'a>(
        &'a self,
        hash: &'a Hash,
    ) -> Answer<'a, Option<(SessionRecord, UserRecord)>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT s.*, u.name AS user_name, u.email AS user_email, u.role AS user_role,
                   u.disabled AS user_disabled, u.created AS user_created
                 FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.hash = $1",
            )
            .bind(hash.as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading a session", "session"))?
            .map(|row| Ok((session(&row)?, user(&row, "user_")?)))
            .transpose()
        })
    }

    fn delete_session<'a>(&'a self, hash: &'a Hash) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query("DELETE FROM sessions WHERE hash = $1")
                .bind(hash.as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting a session", "session"))?;
            done(transaction).await
        })
    }

    fn delete_sessions_of(&self, user: UserUuid) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query("DELETE FROM sessions WHERE user_id = $1")
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting a user's sessions", "session"))?;
            done(transaction).await
        })
    }

    fn create_code<'a>(&'a self, code: &'a CodeRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO one_time_codes (hash, gitspace_id, port, user_id, return_to, exp, created)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(code.hash.as_slice())
            .bind(code.gitspace.to_string())
            .bind(code.port.map(i64::from))
            .bind(code.user.to_string())
            .bind(code.return_to.as_str())
            .bind(micros(code.exp))
            .bind(micros(code.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating a one-time code", "one-time code"))?;
            done(transaction).await
        })
    }

    fn consume_code<'a>(
        &'a self,
        hash: &'a Hash,
        gitspace: GitspaceUuid,
        port: Option<u16>,
        now: Timestamp,
    ) -> Answer<'a, Option<CodeRecord>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            // Whatever it was presented for, it is gone: a second try cannot do better.
            let row = sqlx::query("DELETE FROM one_time_codes WHERE hash = $1 RETURNING *")
                .bind(hash.as_slice())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(store_error("consuming a one-time code", "one-time code"))?;
            done(transaction).await?;
            let Some(row) = row else { return Ok(None) };
            let code = code(&row)?;
            let fits = code.gitspace == gitspace && code.port == port && now < code.exp;
            Ok(fits.then_some(code))
        })
    }

    fn claim_idempotency<'a>(&'a self, claim: &'a IdempotencyClaim) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let failed = store_error("claiming an idempotency key", "idempotency key");
            let mut transaction = self.write().await?;
            sqlx::query(
                "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2
                 AND (exp <= $3 OR (status IS NULL AND claimed < $4))",
            )
            .bind(claim.user.to_string())
            .bind(claim.key.as_str())
            .bind(micros(claim.now))
            .bind(micros(claim.abandoned_before))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            let inserted = sqlx::query(
                "INSERT INTO idempotency_keys (user_id, key, request, claimed, exp) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (user_id, key) DO NOTHING",
            )
            .bind(claim.user.to_string())
            .bind(claim.key.as_str())
            .bind(claim.request.as_slice())
            .bind(micros(claim.now))
            .bind(micros(claim.exp))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            if inserted.rows_affected() > 0 {
                done(transaction).await?;
                return Ok(Claimed::Fresh);
            }
            let row = sqlx::query("SELECT * FROM idempotency_keys WHERE user_id = $1 AND key = $2")
                .bind(claim.user.to_string())
                .bind(claim.key.as_str())
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            done(transaction).await?;
            let columns = Columns::new(&row, "idempotency key");
            let request = columns.hash("request")?;
            Ok(match columns.opt_number("status")? {
                None => Claimed::InProgress { request },
                Some(status) => Claimed::Done {
                    request,
                    status,
                    body: columns.opt_bytes("body")?.unwrap_or_default(),
                },
            })
        })
    }

    fn complete_idempotency<'a>(
        &'a self,
        user: UserUuid,
        key: &'a str,
        status: u16,
        body: &'a [u8],
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "UPDATE idempotency_keys SET status = $3, body = $4 WHERE user_id = $1 AND key = $2",
            )
            .bind(user.to_string())
            .bind(key)
            .bind(i64::from(status))
            .bind(body)
            .execute(&mut *transaction)
            .await
            .map_err(store_error("keeping an answer", "idempotency key"))?;
            done(transaction).await
        })
    }

    fn release_idempotency<'a>(&'a self, user: UserUuid, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND status IS NULL",
            )
            .bind(user.to_string())
            .bind(key)
            .execute(&mut *transaction)
            .await
            .map_err(store_error(
                "releasing an idempotency key",
                "idempotency key",
            ))?;
            done(transaction).await
        })
    }

    fn put_git_credential<'a>(
        &'a self,
        credential: &'a GitCredentialRecord,
    ) -> Answer<'a, GitCredentialRecord> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let row = sqlx::query(
                "INSERT INTO git_credentials (id, user_id, scheme, host, username, sealed, created) VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (user_id, scheme, host) DO UPDATE
                 SET username = excluded.username, sealed = excluded.sealed, created = excluded.created RETURNING *",
            )
            .bind(credential.id.to_string())
            .bind(credential.user.to_string())
            .bind(credential.scheme.as_str())
            .bind(credential.host.as_str())
            .bind(credential.username.as_str())
            .bind(credential.sealed.as_slice())
            .bind(micros(credential.created))
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error("keeping a Git credential", "Git credential"))?;
            done(transaction).await?;
            git_credential(&row)
        })
    }

    fn git_credentials(&self, user: UserUuid) -> Answer<'_, Vec<GitCredentialRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM git_credentials WHERE user_id = $1 ORDER BY host, scheme")
                .bind(user.to_string())
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing Git credentials", "Git credential"))?
                .iter()
                .map(git_credential)
                .collect()
        })
    }

    fn delete_git_credential(&self, user: UserUuid, id: GitCredentialUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("DELETE FROM git_credentials WHERE id = $1 AND user_id = $2")
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting a Git credential", "Git credential"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }
}
