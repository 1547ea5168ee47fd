//! Infra providers, machines, gateways, settings, revocations.

use crate::{
    SqlStore,
    error::store_error,
    open::done,
    row::{Columns, json, micros, word},
};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use store::{
    Answer, CatalogStore, GatewayRecord, Hash, InfraProviderRecord, MachineRecord, StoreError,
};
use wire::{
    gateway::Revocation,
    ids::{GatewayUuid, InfraProviderUuid, MachineUuid},
};

fn infra_provider(row: &SqliteRow) -> Result<InfraProviderRecord, StoreError> {
    let columns = Columns::new(row, "infra provider");
    Ok(InfraProviderRecord {
        id: columns.id("id")?,
        name: columns.text("name")?,
        kind: columns.word("kind")?,
        selectors: columns.json("selectors")?,
        created: columns.time("created")?,
    })
}

fn machine(row: &SqliteRow) -> Result<MachineRecord, StoreError> {
    let columns = Columns::new(row, "machine");
    Ok(MachineRecord {
        id: columns.id("id")?,
        name: columns.text("name")?,
        infra_provider: columns.id("infra_provider_id")?,
        infra_provider_name: columns.text("infra_provider_name")?,
        resources: columns.json("resources")?,
        is_default: columns.flag("is_default")?,
        created: columns.time("created")?,
    })
}

fn gateway(row: &SqliteRow) -> Result<GatewayRecord, StoreError> {
    let columns = Columns::new(row, "gateway");
    Ok(GatewayRecord {
        id: columns.id("id")?,
        name: columns.text("name")?,
        token_hash: columns.hash("token_hash")?,
        created: columns.time("created")?,
    })
}

impl CatalogStore for SqlStore {
    fn create_infra_provider<'a>(&'a self, provider: &'a InfraProviderRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO infra_providers (id, name, kind, selectors, created) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(provider.id.to_string())
            .bind(provider.name.as_str())
            .bind(word(&provider.kind)?)
            .bind(json(&provider.selectors)?)
            .bind(micros(provider.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating an infra provider", "infra provider name"))?;
            done(transaction).await
        })
    }

    fn infra_provider(&self, id: InfraProviderUuid) -> Answer<'_, Option<InfraProviderRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM infra_providers WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading an infra provider", "infra provider"))?
                .map(|row| infra_provider(&row))
                .transpose()
        })
    }

    fn infra_providers(&self) -> Answer<'_, Vec<InfraProviderRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM infra_providers ORDER BY name")
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing infra providers", "infra provider"))?
                .iter()
                .map(infra_provider)
                .collect()
        })
    }

    fn delete_infra_provider(&self, id: InfraProviderUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let deleted = sqlx::query("DELETE FROM infra_providers WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting an infra provider", "infra provider"));
            match deleted {
                Ok(result) => {
                    done(transaction).await?;
                    Ok(result.rows_affected() > 0)
                }
                // Something refers to it.
                Err(StoreError::NotFound { what }) => Err(StoreError::Conflict { what }),
                Err(error) => Err(error),
            }
        })
    }

    fn delete_machine(&self, id: MachineUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("DELETE FROM machines WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting a machine", "machine"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn create_machine<'a>(&'a self, machine: &'a MachineRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let failed = store_error("creating a machine", "machine name");
            let mut transaction = self.write().await?;
            if machine.is_default {
                sqlx::query("UPDATE machines SET is_default = 0 WHERE is_default = 1")
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
            }
            let inserted = sqlx::query(
                "INSERT INTO machines (id, name, infra_provider_id, resources, is_default, created)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(machine.id.to_string())
            .bind(machine.name.as_str())
            .bind(machine.infra_provider.to_string())
            .bind(json(&machine.resources)?)
            .bind(i64::from(machine.is_default))
            .bind(micros(machine.created))
            .execute(&mut *transaction)
            .await;
            match inserted.map_err(failed) {
                Ok(_) => done(transaction).await,
                Err(StoreError::NotFound { .. }) => Err(StoreError::NotFound {
                    what: "infra provider",
                }),
                Err(error) => Err(error),
            }
        })
    }

    fn machine_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<MachineRecord>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT m.*, p.name AS infra_provider_name FROM machines m
                 JOIN infra_providers p ON p.id = m.infra_provider_id WHERE m.name = $1",
            )
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading a machine", "machine"))?
            .map(|row| machine(&row))
            .transpose()
        })
    }

    fn default_machine(&self) -> Answer<'_, Option<MachineRecord>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT m.*, p.name AS infra_provider_name FROM machines m
                 JOIN infra_providers p ON p.id = m.infra_provider_id WHERE m.is_default = 1",
            )
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading the default machine", "machine"))?
            .map(|row| machine(&row))
            .transpose()
        })
    }

    fn machines(&self) -> Answer<'_, Vec<MachineRecord>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT m.*, p.name AS infra_provider_name FROM machines m
                 JOIN infra_providers p ON p.id = m.infra_provider_id ORDER BY m.name",
            )
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("listing machines", "machine"))?
            .iter()
            .map(machine)
            .collect()
        })
    }

    fn put_gateway<'a>(&'a self, asked: &'a GatewayRecord) -> Answer<'a, GatewayRecord> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let row = sqlx::query(
                "INSERT INTO gateways (id, name, token_hash, created) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO UPDATE SET token_hash = excluded.token_hash RETURNING *",
            )
            .bind(asked.id.to_string())
            .bind(asked.name.as_str())
            .bind(asked.token_hash.as_slice())
            .bind(micros(asked.created))
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error("keeping a gateway", "gateway"))?;
            done(transaction).await?;
            gateway(&row)
        })
    }

    fn create_gateway<'a>(&'a self, gateway: &'a GatewayRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO gateways (id, name, token_hash, created) VALUES ($1, $2, $3, $4)",
            )
            .bind(gateway.id.to_string())
            .bind(gateway.name.as_str())
            .bind(gateway.token_hash.as_slice())
            .bind(micros(gateway.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("creating a gateway", "gateway name"))?;
            done(transaction).await
        })
    }

    fn delete_gateway(&self, id: GatewayUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let result = sqlx::query("DELETE FROM gateways WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(store_error("deleting a gateway", "gateway"))?;
            done(transaction).await?;
            Ok(result.rows_affected() > 0)
        })
    }

    fn gateway_by_hash<'a>(&'a self, hash: &'a Hash) -> Answer<'a, Option<GatewayRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM gateways WHERE token_hash = $1")
                .bind(hash.as_slice())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a gateway", "gateway"))?
                .map(|row| gateway(&row))
                .transpose()
        })
    }

    fn gateways(&self) -> Answer<'_, Vec<GatewayRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM gateways ORDER BY name")
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing gateways", "gateway"))?
                .iter()
                .map(gateway)
                .collect()
        })
    }

    fn setting<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            sqlx::query("SELECT value FROM settings WHERE key = $1")
                .bind(key)
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a setting", "setting"))?
                .map(|row| Columns::new(&row, "setting").bytes("value"))
                .transpose()
        })
    }

    fn put_setting<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO settings (key, value) VALUES ($1, $2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )
            .bind(key)
            .bind(value)
            .execute(&mut *transaction)
            .await
            .map_err(store_error("keeping a setting", "setting"))?;
            done(transaction).await
        })
    }

    fn setting_or<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let failed = store_error("keeping a setting", "setting");
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
            )
            .bind(key)
            .bind(value)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            let row = sqlx::query("SELECT value FROM settings WHERE key = $1")
                .bind(key)
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            done(transaction).await?;
            Columns::new(&row, "setting").bytes("value")
        })
    }

    fn revoke_grants<'a>(&'a self, revocation: &'a Revocation, exp: Timestamp) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO revocations (subject, before, exp) VALUES ($1, $2, $3)
                 ON CONFLICT (subject) DO UPDATE SET before = excluded.before, exp = excluded.exp
                 WHERE revocations.before < excluded.before",
            )
            .bind(json(&revocation.subject)?)
            .bind(micros(revocation.before))
            .bind(micros(exp))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("revoking grants", "revocation"))?;
            done(transaction).await
        })
    }

    fn revocations(&self, now: Timestamp) -> Answer<'_, Vec<Revocation>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM revocations WHERE exp > $1 ORDER BY before, subject")
                .bind(micros(now))
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing revocations", "revocation"))?
                .iter()
                .map(|row| {
                    let columns = Columns::new(row, "revocation");
                    Ok(Revocation {
                        subject: columns.json("subject")?,
                        before: columns.time("before")?,
                    })
                })
                .collect()
        })
    }
}
