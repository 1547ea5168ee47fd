//! Gitspaces, their tasks, timeline and logs.

use crate::{
    SqlStore,
    error::{store_error, violates},
    open::done,
    row::{Columns, json, micros, opt_json, opt_micros, opt_word, signed, word},
    users::after,
};
use sqlx::{
    Connection as _, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use std::sync::Arc;
use store::{
    Answer, GitspaceCommit, GitspaceFilter, GitspaceRecord, GitspaceStore, MAX_LOG_ENTRIES,
    MAX_TIMELINE_EVENTS, MachineSnapshot, NewLogEntry, NewTimelineEvent, PageRequest,
    RemovalRecord, StoreError, TaskRecord, TaskState,
};
use wire::{
    api::{LogEntry, TimelineEvent},
    gitspace::Generation,
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, UserUuid},
    text::{GitspaceName, Slug},
};

fn gitspace(row: &SqliteRow) -> Result<GitspaceRecord, StoreError> {
    let columns = Columns::new(row, "gitspace");
    Ok(GitspaceRecord {
        id: columns.id("id")?,
        owner: columns.id("owner_id")?,
        owner_name: columns.text("owner_name")?,
        name: columns.word("name")?,
        slug: columns.word("slug")?,
        repo: columns.json("repo")?,
        machine: MachineSnapshot {
            name: columns.text("machine")?,
            resources: columns.json("resources")?,
            infra_provider: columns.id("infra_provider_id")?,
        },
        created: columns.time("created")?,
        version: columns.number("version")?,
        desired: columns.word("desired")?,
        generation: Generation(columns.number("generation")?),
        trace: columns.id("trace")?,
        observed: columns.opt_json("observed")?,
        delegate: columns.opt_id("delegate_id")?,
        task: columns.opt_id("task_id")?,
        phase: columns.opt_word("phase")?,
        attempts: columns.number("attempts")?,
        retry_at: columns.opt_time("retry_at")?,
        exits: columns.json("exits")?,
        error: columns.opt_json("error")?,
        waiting: columns.opt_json("waiting")?,
        updated: columns.time("updated")?,
        deleted: columns.opt_time("deleted")?,
    })
}

const fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Assigned => "assigned",
        TaskState::Cancelling => "cancelling",
        TaskState::Finished => "finished",
    }
}

fn task(row: &SqliteRow) -> Result<TaskRecord, StoreError> {
    let columns = Columns::new(row, "task");
    let state = match columns.text("state")?.as_str() {
        "queued" => TaskState::Queued,
        "assigned" => TaskState::Assigned,
        "cancelling" => TaskState::Cancelling,
        "finished" => TaskState::Finished,
        other => {
            return Err(StoreError::Corrupt {
                what: "task",
                source: Arc::from(Box::from(format!("{other} is no state of a task"))),
            });
        }
    };
    Ok(TaskRecord {
        id: columns.id("id")?,
        gitspace: columns.id("gitspace_id")?,
        delegate: columns.id("delegate_id")?,
        kind: columns.word("kind")?,
        generation: Generation(columns.number("generation")?),
        attempt: columns.number("attempt")?,
        deadline: columns.time("deadline")?,
        trace: columns.id("trace")?,
        state,
        stored_seq: columns.number("stored_seq")?,
        created: columns.time("created")?,
        finished: columns.opt_time("finished")?,
    })
}

fn timeline_event(row: &SqliteRow) -> Result<TimelineEvent, StoreError> {
    let columns = Columns::new(row, "timeline event");
    Ok(TimelineEvent {
        id: columns.number("id")?,
        at: columns.time("at")?,
        kind: columns.word("kind")?,
        message: columns.text("message")?,
        phase: columns.opt_word("phase")?,
        duration_ms: columns.opt_number("duration_ms")?,
        failure: columns.opt_json("failure")?,
        generation: Generation(columns.number("generation")?),
        task: columns.opt_id("task_id")?,
        trace: columns.id("trace")?,
        state: columns.word("state")?,
    })
}

fn log_entry(row: &SqliteRow) -> Result<LogEntry, StoreError> {
    let columns = Columns::new(row, "log entry");
    Ok(LogEntry {
        id: columns.number("id")?,
        at: columns.time("at")?,
        phase: columns.word("phase")?,
        stream: columns.word("stream")?,
        text: columns.text("text")?,
    })
}

/// The gitspace's counters after `events` and `entries` more: ids are given from them.
async fn add_entries(
    connection: &mut SqliteConnection,
    gitspace: GitspaceUuid,
    timeline: &[NewTimelineEvent],
    log: &[NewLogEntry],
) -> Result<(), StoreError> {
    if timeline.is_empty() && log.is_empty() {
        return Ok(());
    }
    let failed = store_error("keeping timeline and log", "timeline");
    let (events, entries) = (signed(timeline.len() as u64), signed(log.len() as u64));
    let row = sqlx::query(
        "UPDATE gitspaces SET last_event = last_event + $2, last_log = last_log + $3 WHERE id = $1
         RETURNING last_event, last_log",
    )
    .bind(gitspace.to_string())
    .bind(events)
    .bind(entries)
    .fetch_one(&mut *connection)
    .await
    .map_err(&failed)?;
    let columns = Columns::new(&row, "gitspace");
    let last_event: i64 = columns.number("last_event")?;
    let last_entry: i64 = columns.number("last_log")?;
    for (id, event) in (last_event - events + 1..).zip(timeline) {
        sqlx::query(
            "INSERT INTO timeline (gitspace_id, id, at, kind, message, phase, duration_ms, failure, generation, task_id,
               trace, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(gitspace.to_string())
        .bind(id)
        .bind(micros(event.at))
        .bind(word(&event.kind)?)
        .bind(event.message.as_str())
        .bind(opt_word(event.phase.as_ref())?)
        .bind(event.duration_ms.map(signed))
        .bind(opt_json(event.failure.as_ref())?)
        .bind(signed(event.generation.0))
        .bind(event.task.map(|task| task.to_string()))
        .bind(event.trace.to_string())
        .bind(word(&event.state)?)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    }
    for (id, entry) in (last_entry - entries + 1..).zip(log) {
        sqlx::query(
            "INSERT INTO log_entries (gitspace_id, id, at, phase, stream, text) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(gitspace.to_string())
        .bind(id)
        .bind(micros(entry.at))
        .bind(word(&entry.phase)?)
        .bind(word(&entry.stream)?)
        .bind(entry.text.as_str())
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    }
    for (sql, limit, last) in [
        (
            "DELETE FROM timeline WHERE gitspace_id = $1 AND id <= $2",
            MAX_TIMELINE_EVENTS,
            last_event,
        ),
        (
            "DELETE FROM log_entries WHERE gitspace_id = $1 AND id <= $2",
            MAX_LOG_ENTRIES,
            last_entry,
        ),
    ] {
        let dropped = last - i64::from(limit);
        if dropped > 0 {
            sqlx::query(sql)
                .bind(gitspace.to_string())
                .bind(dropped)
                .execute(&mut *connection)
                .await
                .map_err(&failed)?;
        }
    }
    Ok(())
}

async fn put_task(connection: &mut SqliteConnection, task: &TaskRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tasks (id, gitspace_id, delegate_id, kind, generation, attempt, deadline, trace, state, stored_seq,
           created, finished) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE SET deadline = excluded.deadline, state = excluded.state,
           stored_seq = excluded.stored_seq, finished = excluded.finished",
    )
    .bind(task.id.to_string())
    .bind(task.gitspace.to_string())
    .bind(task.delegate.to_string())
    .bind(word(&task.kind)?)
    .bind(signed(task.generation.0))
    .bind(i64::from(task.attempt))
    .bind(micros(task.deadline))
    .bind(task.trace.to_string())
    .bind(state_word(task.state))
    .bind(signed(task.stored_seq))
    .bind(micros(task.created))
    .bind(opt_micros(task.finished))
    .execute(&mut *connection)
    .await
    .map(drop)
    .map_err(store_error("keeping a task", "task"))
}

/// What commits change, as `$1` (the id) to `$16`. `version` is the one from here on.
fn bind_changed<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    record: &GitspaceRecord,
    version: u64,
) -> Result<Query<'q, Sqlite, SqliteArguments>, StoreError> {
    Ok(query
        .bind(record.id.to_string())
        .bind(signed(version))
        .bind(word(&record.desired)?)
        .bind(signed(record.generation.0))
        .bind(record.trace.to_string())
        .bind(opt_json(record.observed.as_ref())?)
        .bind(record.delegate.map(|id| id.to_string()))
        .bind(record.task.map(|id| id.to_string()))
        .bind(opt_word(record.phase.as_ref())?)
        .bind(i64::from(record.attempts))
        .bind(opt_micros(record.retry_at))
        .bind(json(&record.exits)?)
        .bind(opt_json(record.error.as_ref())?)
        .bind(opt_json(record.waiting.as_ref())?)
        .bind(micros(record.updated))
        .bind(opt_micros(record.deleted)))
}

async fn insert(
    connection: &mut SqliteConnection,
    made: &GitspaceRecord,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO gitspaces (id, version, desired, generation, trace, observed, delegate_id, task_id, phase, attempts,
           retry_at, exits, error, waiting, updated, deleted, owner_id, name, slug, repo, machine, resources,
           infra_provider_id, created, last_event, last_log)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
           $23, $24, 0, 0)",
    );
    bind_changed(query, made, made.version)?
        .bind(made.owner.to_string())
        .bind(made.name.as_str())
        .bind(made.slug.as_str())
        .bind(json(&made.repo)?)
        .bind(made.machine.name.as_str())
        .bind(json(&made.machine.resources)?)
        .bind(made.machine.infra_provider.to_string())
        .bind(micros(made.created))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| {
            if violates(&error, "slug") {
                return StoreError::Conflict { what: "slug" };
            }
            if violates(&error, "gitspaces.id") {
                return StoreError::Conflict {
                    what: "gitspace id",
                };
            }
            match store_error("creating a gitspace", "gitspace name")(error) {
                StoreError::NotFound { .. } => StoreError::NotFound {
                    what: "owner or infra provider",
                },
                other => other,
            }
        })
}

async fn update(
    connection: &mut SqliteConnection,
    changed: &GitspaceRecord,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE gitspaces SET version = $2, desired = $3, generation = $4, trace = $5, observed = $6, delegate_id = $7,
           task_id = $8, phase = $9, attempts = $10, retry_at = $11, exits = $12, error = $13, waiting = $14,
           updated = $15, deleted = $16 WHERE id = $1 AND version = $17",
    );
    let result = bind_changed(query, changed, changed.version.saturating_add(1))?
        .bind(signed(changed.version))
        .execute(connection)
        .await
        .map_err(store_error("changing a gitspace", "gitspace"))?;
    if result.rows_affected() == 0 {
        return Err(StoreError::Conflict { what: "gitspace" });
    }
    Ok(())
}

async fn write(
    connection: &mut SqliteConnection,
    commit: &GitspaceCommit,
) -> Result<(), StoreError> {
    let record = &commit.gitspace;
    if commit.made {
        insert(connection, record).await?;
    } else {
        update(connection, record).await?;
    }
    for task in &commit.tasks {
        put_task(connection, task).await?;
    }
    add_entries(connection, record.id, &commit.timeline, &commit.log).await
}

/// A column of a SELECT over `gitspaces g`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT g.*, u.name AS owner_name FROM gitspaces g JOIN users u ON u.id = g.owner_id ",
            $rest
        )
    };
}

impl GitspaceStore for SqlStore {
    fn commit<'a>(
        &'a self,
        commits: &'a [GitspaceCommit],
    ) -> Answer<'a, Vec<Result<(), StoreError>>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let mut results = Vec::with_capacity(commits.len());
            for commit in commits {
                let failed = store_error("setting a savepoint", "savepoint");
                let mut part = transaction.begin().await.map_err(&failed)?;
                let result = write(&mut part, commit).await;
                match &result {
                    Ok(()) => part.commit().await.map_err(&failed)?,
                    // It concerns this one alone.
                    Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                        part.rollback().await.map_err(&failed)?;
                    }
                    // Dropping the transaction rolls all of it back.
                    Err(error) => return Err(error.clone()),
                }
                results.push(result);
            }
            done(transaction).await?;
            Ok(results)
        })
    }

    fn gitspace(&self, id: GitspaceUuid) -> Answer<'_, Option<GitspaceRecord>> {
        Box::pin(async move {
            sqlx::query(select!("WHERE g.id = $1"))
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a gitspace", "gitspace"))?
                .map(|row| gitspace(&row))
                .transpose()
        })
    }

    fn gitspace_by_slug<'a>(&'a self, slug: &'a Slug) -> Answer<'a, Option<GitspaceRecord>> {
        Box::pin(async move {
            sqlx::query(select!("WHERE g.slug = $1 AND g.deleted IS NULL"))
                .bind(slug.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a gitspace", "gitspace"))?
                .map(|row| gitspace(&row))
                .transpose()
        })
    }

    fn gitspace_by_name<'a>(
        &'a self,
        owner: UserUuid,
        name: &'a GitspaceName,
    ) -> Answer<'a, Option<GitspaceRecord>> {
        Box::pin(async move {
            sqlx::query(select!(
                "WHERE g.owner_id = $1 AND g.name = $2 AND g.deleted IS NULL"
            ))
            .bind(owner.to_string())
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error("reading a gitspace", "gitspace"))?
            .map(|row| gitspace(&row))
            .transpose()
        })
    }

    fn gitspaces(
        &self,
        filter: GitspaceFilter,
        page: PageRequest,
    ) -> Answer<'_, Vec<GitspaceRecord>> {
        Box::pin(async move {
            let (created, id) = after(&page);
            sqlx::query(select!(
                "WHERE g.deleted IS NULL AND (g.created > $1 OR (g.created = $1 AND g.id > $2))
                 AND ($3 IS NULL OR g.owner_id = $3) ORDER BY g.created, g.id LIMIT $4"
            ))
            .bind(created)
            .bind(id)
            .bind(filter.owner.map(|owner| owner.to_string()))
            .bind(i64::from(page.limit))
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("listing gitspaces", "gitspace"))?
            .iter()
            .map(gitspace)
            .collect()
        })
    }

    fn live_gitspaces(&self) -> Answer<'_, Vec<GitspaceRecord>> {
        Box::pin(async move {
            sqlx::query(select!("WHERE g.deleted IS NULL ORDER BY g.created, g.id"))
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing gitspaces", "gitspace"))?
                .iter()
                .map(gitspace)
                .collect()
        })
    }

    fn order_removal<'a>(&'a self, order: &'a RemovalRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            sqlx::query(
                "INSERT INTO removals (gitspace_id, delegate_id, user_id, created) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (gitspace_id, delegate_id) DO NOTHING",
            )
            .bind(order.gitspace.to_string())
            .bind(order.delegate.to_string())
            .bind(order.user.to_string())
            .bind(micros(order.created))
            .execute(&mut *transaction)
            .await
            .map_err(store_error("ordering a removal", "delegate or user"))?;
            done(transaction).await
        })
    }

    fn removal(
        &self,
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
    ) -> Answer<'_, Option<RemovalRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM removals WHERE gitspace_id = $1 AND delegate_id = $2")
                .bind(gitspace.to_string())
                .bind(delegate.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a removal", "removal"))?
                .map(|row| {
                    let columns = Columns::new(&row, "removal");
                    Ok(RemovalRecord {
                        gitspace: columns.id("gitspace_id")?,
                        delegate: columns.id("delegate_id")?,
                        user: columns.id("user_id")?,
                        created: columns.time("created")?,
                    })
                })
                .transpose()
        })
    }

    fn task(&self, id: TaskUuid) -> Answer<'_, Option<TaskRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM tasks WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await
                .map_err(store_error("reading a task", "task"))?
                .map(|row| task(&row))
                .transpose()
        })
    }

    fn open_tasks(&self) -> Answer<'_, Vec<TaskRecord>> {
        Box::pin(async move {
            sqlx::query("SELECT * FROM tasks WHERE state <> 'finished' ORDER BY created, id")
                .fetch_all(&self.readers)
                .await
                .map_err(store_error("listing tasks", "task"))?
                .iter()
                .map(task)
                .collect()
        })
    }

    fn timeline(
        &self,
        gitspace: GitspaceUuid,
        after: u64,
        limit: u32,
    ) -> Answer<'_, Vec<TimelineEvent>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT * FROM timeline WHERE gitspace_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(gitspace.to_string())
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("reading a timeline", "timeline event"))?
            .iter()
            .map(timeline_event)
            .collect()
        })
    }

    fn log(&self, gitspace: GitspaceUuid, after: u64, limit: u32) -> Answer<'_, Vec<LogEntry>> {
        Box::pin(async move {
            sqlx::query(
                "SELECT * FROM log_entries WHERE gitspace_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(gitspace.to_string())
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(store_error("reading a log", "log entry"))?
            .iter()
            .map(log_entry)
            .collect()
        })
    }
}
