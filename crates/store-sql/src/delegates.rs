//! Join tokens and delegates.

use crate::{
    SqlStore,
    error::{store_error, violates},
    open::done,
    row::{Columns, json, micros, opt_json, opt_micros, signed},
};
use jiff::Timestamp;
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};
use store::{
    Answer, DelegateNote, DelegateRecord, DelegateStore, EndedKey, Enrolment, EnrolmentDenied,
    Hash, JoinTokenRecord, KeyProposed, MAX_ENDED_KEYS, StoreError,
};
use wire::{
    control::{Epoch, Inventory},
    ids::{DelegateUuid, JoinTokenUuid},
};

fn join_token(row: &SqliteRow) -> Result<JoinTokenRecord, StoreError> {
    let columns = Columns::new(row, "join token");
    Ok(JoinTokenRecord {
        id: columns.id("id")?,
        comment: columns.opt_text("comment")?,
        delegate: columns.opt_id("delegate_id")?,
        hash: columns.hash("hash")?,
        uses_left: columns.number("uses_left")?,
        exp: columns.time("exp")?,
        revoked: columns.flag("revoked")?,
        created: columns.time("created")?,
    })
}

fn delegate(row: &SqliteRow) -> Result<DelegateRecord, StoreError> {
    let columns = Columns::new(row, "delegate");
    Ok(DelegateRecord {
        id: columns.id("id")?,
        name: columns.text("name")?,
        tags: columns.json("tags")?,
        public_key: columns.hash("public_key")?,
        key_since: columns.time("key_since")?,
        next_key: columns.opt_hash("next_key")?,
        revoked: columns.flag("revoked")?,
        version: columns.opt_text("version")?,
        inventory: columns.opt_json("inventory")?,
        last_seen: columns.opt_time("last_seen")?,
        last_disconnect: columns.opt_json("last_disconnect")?,
        epoch: Epoch(columns.number("epoch")?),
        created: columns.time("created")?,
    })
}

/// The token's part of an enrolment under the name of `known`: counted down, or why not.
async fn use_join_token(
    transaction: &mut Transaction<'static, Sqlite>,
    hash: &Hash,
    known: Option<&DelegateRecord>,
    now: Timestamp,
) -> Result<Result<(), EnrolmentDenied>, StoreError> {
    let failed = store_error("using a join token", "join token");
    let row = sqlx::query("SELECT * FROM join_tokens WHERE hash = $1")
        .bind(hash.as_slice())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(&failed)?;
    let Some(row) = row else {
        return Ok(Err(EnrolmentDenied::UnknownToken));
    };
    let token = join_token(&row)?;
    if token.revoked {
        return Ok(Err(EnrolmentDenied::Revoked));
    }
    if token.exp <= now {
        return Ok(Err(EnrolmentDenied::Expired));
    }
    // With a delegate's id come its gitspaces and their secrets: whoever holds a token for a host of his own gets none of another's.
    if token.delegate.is_some() && token.delegate != known.map(|known| known.id) {
        return Ok(Err(EnrolmentDenied::OtherDelegate));
    }
    if token.delegate.is_none() && known.is_some_and(|known| known.revoked) {
        return Ok(Err(EnrolmentDenied::NotForReturn));
    }
    if token.uses_left == 0 {
        return Ok(Err(EnrolmentDenied::UsedUp));
    }
    sqlx::query("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = $1")
        .bind(token.id.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    Ok(Ok(()))
}

/// Whether any delegate has, had or will have this key.
async fn is_known_key(
    transaction: &mut Transaction<'static, Sqlite>,
    key: &Hash,
) -> Result<bool, StoreError> {
    sqlx::query(
        "SELECT 1 FROM delegates WHERE public_key = $1 OR next_key = $1
         UNION ALL SELECT 1 FROM ended_keys WHERE public_key = $1 LIMIT 1",
    )
    .bind(key.as_slice())
    .fetch_optional(&mut **transaction)
    .await
    .map(|row| row.is_some())
    .map_err(store_error("looking for a key", "delegate"))
}

async fn end_key(
    transaction: &mut Transaction<'static, Sqlite>,
    delegate: DelegateUuid,
    key: &Hash,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO ended_keys (public_key, delegate_id, ended) VALUES ($1, $2, $3)")
        .bind(key.as_slice())
        .bind(delegate.to_string())
        .bind(micros(now))
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(store_error("ending a delegate's key", "delegate"))
}

async fn keep(
    transaction: &mut Transaction<'static, Sqlite>,
    note: &DelegateNote,
) -> Result<(), StoreError> {
    match note {
        DelegateNote::Seen { id, seen } => {
            sqlx::query(
                "UPDATE delegates SET version = $2, tags = $3, inventory = $4, last_seen = $5 WHERE id = $1",
            )
            .bind(id.to_string())
            .bind(seen.version.as_str())
            .bind(json(&seen.tags)?)
            .bind(json(&seen.inventory)?)
            .bind(micros(seen.at))
            .execute(&mut **transaction)
            .await
            .map_err(store_error("keeping a delegate's hello", "delegate"))?;
        }
        DelegateNote::Disconnected { id, disconnect, at } => {
            sqlx::query("UPDATE delegates SET last_disconnect = $2, last_seen = $3 WHERE id = $1")
                .bind(id.to_string())
                .bind(json(disconnect)?)
                .bind(micros(*at))
                .execute(&mut **transaction)
                .await
                .map_err(store_error("keeping why a delegate is gone", "delegate"))?;
        }
    }
    Ok(())
}

impl DelegateStore for SqlStore {
    fn create_join_token<'a>(&'a self, token: &'a JoinTokenRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO join_tokens (id, comment, hash, uses_left, exp, revoked, created, delegate_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(token.id.to_string())
            .bind(token.comment.as_deref())
            .bind(token.hash.as_slice())
            .bind(i64::from(token.uses_left))
            .bind(micros(token.exp))
            .bind(i64::from(token.revoked))
            .bind(micros(token.created))
            .bind(token.delegate.map(|id| id.to_string()))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating a join token", "join token"))?;
            done(transaction).await
        })
    }

    fn join_tokens(&self) -> Answer<'_, Vec<JoinTokenRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM join_tokens ORDER BY created DESC, id")
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing join tokens", "join token"))?
                .iter()
                .map(join_token)
                .collect()
        })
    }

    fn revoke_join_token(&self, id: JoinTokenUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("UPDATE join_tokens SET revoked = 1 WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("revoking a join token", "join token"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn enrol_delegate<'a>(
        &'a self,
        join_token: &'a Hash,
        asked: &'a DelegateRecord,
        now: Timestamp,
    ) -> Answer<'a, Enrolment> {
        Box::pin(async move {
            let failed = store_error("enrolling a delegate", "delegate");
            let mut transaction = self.write().await?;
            let known = sqlx::query("SELECT * FROM delegates WHERE name = $1")
                .bind(asked.name.as_str())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(&failed)?
                .map(|row| delegate(&row))
                .transpose()?;
            // A transaction that is dropped is rolled back: a denied enrolment uses no token.
            match &known {
                Some(known) if !known.revoked && known.public_key == asked.public_key => {
                    // Only who knows the join token hears that.
                    return Ok(
                        match use_join_token(&mut transaction, join_token, Some(known), now).await?
                        {
                            Ok(()) | Err(EnrolmentDenied::UsedUp) => Enrolment::Already(known.id),
                            Err(denied) => Enrolment::Denied(denied),
                        },
                    );
                }
                Some(_) | None => {
                    if let Err(denied) =
                        use_join_token(&mut transaction, join_token, known.as_ref(), now).await?
                    {
                        return Ok(Enrolment::Denied(denied));
                    }
                }
            }
            let written = match &known {
                Some(known) if !known.revoked => {
                    return Ok(Enrolment::Denied(EnrolmentDenied::NameTaken));
                }
                // Revocation is of a key: the same one never comes back.
                Some(_) | None if is_known_key(&mut transaction, &asked.public_key).await? => {
                    return Ok(Enrolment::Denied(EnrolmentDenied::KeyTaken));
                }
                Some(known) => {
                    for key in [Some(&known.public_key), known.next_key.as_ref()]
                        .into_iter()
                        .flatten()
                    {
                        end_key(&mut transaction, known.id, key, now).await?;
                    }
                    sqlx::query(
                        "UPDATE delegates SET public_key = $2, key_since = $4, next_key = NULL, tags = $3, revoked = 0
                         WHERE id = $1",
                    )
                    .bind(known.id.to_string())
                    .bind(asked.public_key.as_slice())
                    .bind(json(&asked.tags)?)
                    .bind(micros(now))
                    .execute(&mut *transaction)
                    .await
                    .map(|_| Enrolment::Renewed(known.id))
                }
                None => sqlx::query(
                    "INSERT INTO delegates (id, name, tags, public_key, revoked, version, inventory, last_seen,
                       last_disconnect, epoch, created, key_since, next_key)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL)",
                )
                .bind(asked.id.to_string())
                .bind(asked.name.as_str())
                .bind(json(&asked.tags)?)
                .bind(asked.public_key.as_slice())
                .bind(i64::from(asked.revoked))
                .bind(asked.version.as_deref())
                .bind(opt_json(asked.inventory.as_ref())?)
                .bind(opt_micros(asked.last_seen))
                .bind(opt_json(asked.last_disconnect.as_ref())?)
                .bind(signed(asked.epoch.0))
                .bind(micros(asked.created))
                .bind(micros(asked.key_since))
                .execute(&mut *transaction)
                .await
                .map(|_| Enrolment::Enrolled(asked.id)),
            };
            match written {
                Ok(enrolment) => {
                    done(transaction).await?;
                    Ok(enrolment)
                }
                Err(error) if violates(&error, "public_key") => {
                    Ok(Enrolment::Denied(EnrolmentDenied::KeyTaken))
                }
                Err(error) => Err(failed(error)),
            }
        })
    }

    fn delegate(&self, id: DelegateUuid) -> Answer<'_, Option<DelegateRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM delegates WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a delegate", "delegate"))?
                .map(|row| delegate(&row))
                .transpose()
        })
    }

    fn delegate_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<DelegateRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM delegates WHERE name = $1")
                .bind(name)
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a delegate", "delegate"))?
                .map(|row| delegate(&row))
                .transpose()
        })
    }

    fn delegates(&self) -> Answer<'_, Vec<DelegateRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM delegates ORDER BY name")
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing delegates", "delegate"))?
                .iter()
                .map(delegate)
                .collect()
        })
    }

    fn next_epochs<'a>(&'a self, ids: &'a [DelegateUuid]) -> Answer<'a, Vec<Option<Epoch>>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let mut epochs = Vec::with_capacity(ids.len());
            for id in ids {
                let row = sqlx::query(
                    "UPDATE delegates SET epoch = epoch + 1 WHERE id = $1 AND revoked = 0 RETURNING epoch",
                )
                .bind(id.to_string())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(store_error("counting a delegate's epoch up", "delegate"))?;
                let epoch = row
                    .map(|row| Columns::new(&row, "delegate").number("epoch").map(Epoch))
                    .transpose()?;
                epochs.push(epoch);
            }
            done(transaction).await?;
            Ok(epochs)
        })
    }

    fn note_delegates<'a>(&'a self, notes: &'a [DelegateNote]) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            for note in notes {
                keep(&mut transaction, note).await?;
            }
            done(transaction).await
        })
    }

    fn delegate_inventory<'a>(
        &'a self,
        id: DelegateUuid,
        inventory: &'a Inventory,
        at: Timestamp,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query("UPDATE delegates SET inventory = $2, last_seen = $3 WHERE id = $1")
                .bind(id.to_string())
                .bind(json(inventory)?)
                .bind(micros(at))
                .execute(&mut *transaction)
                .await
                .map_err(store_error("keeping a delegate's inventory", "delegate"))?;
            done(transaction).await
        })
    }

    fn propose_key<'a>(
        &'a self,
        id: DelegateUuid,
        current: &'a Hash,
        next: &'a Hash,
    ) -> Answer<'a, KeyProposed> {
        Box::pin(async move {
            let failed = store_error("keeping a delegate's next key", "delegate");
            let mut transaction = self.write().await?;
            let known = sqlx::query("SELECT * FROM delegates WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(&failed)?
                .map(|row| delegate(&row))
                .transpose()?;
            match known {
                Some(known) if known.revoked || known.public_key != *current => {
                    return Ok(KeyProposed::NotInForce);
                }
                Some(known) if known.next_key.as_ref() == Some(next) => {
                    return Ok(KeyProposed::Accepted);
                }
                Some(_) => {}
                None => return Ok(KeyProposed::NotInForce),
            }
            if is_known_key(&mut transaction, next).await? {
                return Ok(KeyProposed::Taken);
            }
            sqlx::query("UPDATE delegates SET next_key = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(next.as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            done(transaction).await?;
            Ok(KeyProposed::Accepted)
        })
    }

    fn use_key<'a>(&'a self, id: DelegateUuid, key: &'a Hash, now: Timestamp) -> Answer<'a, bool> {
        Box::pin(async move {
            let failed = store_error("putting a delegate's next key in force", "delegate");
            let mut transaction = self.write().await?;
            let known = sqlx::query(
                "SELECT * FROM delegates WHERE id = $1 AND next_key = $2 AND revoked = 0",
            )
            .bind(id.to_string())
            .bind(key.as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?
            .map(|row| delegate(&row))
            .transpose()?;
            let Some(known) = known else {
                return Ok(false);
            };
            end_key(&mut transaction, id, &known.public_key, now).await?;
            sqlx::query(
                "UPDATE delegates SET public_key = $2, key_since = $3, next_key = NULL WHERE id = $1",
            )
            .bind(id.to_string())
            .bind(key.as_slice())
            .bind(micros(now))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            done(transaction).await?;
            Ok(true)
        })
    }

    fn ended_keys(&self, id: DelegateUuid) -> Answer<'_, Vec<EndedKey>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT * FROM ended_keys WHERE delegate_id = $1 ORDER BY ended DESC LIMIT $2",
            )
            .bind(id.to_string())
            .bind(i64::from(MAX_ENDED_KEYS))
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("listing a delegate's ended keys", "delegate"))?
            .iter()
            .map(|row| {
                let columns = Columns::new(row, "ended key");
                Ok(EndedKey {
                    public_key: columns.hash("public_key")?,
                    ended: columns.time("ended")?,
                })
            })
            .collect()
        })
    }

    fn revoke_delegate(&self, id: DelegateUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("UPDATE delegates SET revoked = 1 WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("revoking a delegate", "delegate"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }
}
