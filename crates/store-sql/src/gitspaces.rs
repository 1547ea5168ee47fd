//! Gitspaces, their tasks, timeline and logs.

use crate::{
    SqlStore, commit,
    error::store_error,
    open::done,
    row::{Columns, micros, signed},
    users::after,
};
use sqlx::sqlite::SqliteRow;
use std::sync::Arc;
use store::{
    Answer, GitspaceCommit, GitspaceFilter, GitspaceRecord, GitspaceStore, MachineSnapshot,
    PageRequest, RemovalRecord, StoreError, TaskRecord, TaskState,
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

pub(crate) const fn state_word(state: TaskState) -> &'static str {
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
        Box::pin(commit::write(self, commits))
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
