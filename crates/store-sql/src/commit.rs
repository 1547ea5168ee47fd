//! Commits of gitspaces: all of a batch in one transaction, in few statements.
//!
//! Each statement is a way to the database's thread and back, which costs more than what SQLite does in it. Rows of one table are therefore
//! written by one statement, in pieces whose lengths are powers of two: so there are few different statements, and all stay prepared.

use crate::{
    SqlStore,
    error::{store_error, violates},
    gitspaces::state_word,
    open::done,
    row::{Columns, json, micros, opt_json, opt_micros, opt_word, signed, word},
};
use sqlx::{
    AssertSqlSafe, Connection as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments,
};
use std::collections::{HashMap, HashSet};
use store::{
    GitspaceCommit, GitspaceRecord, MAX_LOG_ENTRIES, MAX_TIMELINE_EVENTS, NewLogEntry,
    NewTimelineEvent, StoreError, TaskRecord,
};
use wire::ids::GitspaceUuid;

/// Rows of one statement, at most.
const MOST_ROWS: usize = 64;

type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// See [`store::GitspaceStore::commit`].
pub(crate) async fn write(
    store: &SqlStore,
    commits: &[GitspaceCommit],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let ids: HashSet<_> = commits.iter().map(|commit| commit.gitspace.id).collect();
    // Else the later of two rests on the earlier.
    if ids.len() == commits.len() {
        let mut transaction = store.write().await?;
        match together(&mut transaction, commits).await {
            Ok(results) => {
                done(transaction).await?;
                return Ok(results);
            }
            // It concerns one of them, and which one the statement does not say.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        transaction
            .rollback()
            .await
            .map_err(store_error("undoing a transaction", "transaction"))?;
    }
    let mut transaction = store.write().await?;
    let mut results = Vec::with_capacity(commits.len());
    for commit in commits {
        results.push(apart(&mut transaction, commit).await?);
    }
    done(transaction).await?;
    Ok(results)
}

/// In their order. One that is made is written by itself: another may have given up its name just before.
async fn together(
    connection: &mut SqliteConnection,
    commits: &[GitspaceCommit],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut results = Vec::with_capacity(commits.len());
    for run in commits.chunk_by(|one, next| !one.made && !next.made) {
        match run {
            [made] if made.made => results.push(apart(connection, made).await?),
            changed => results.extend(change(connection, changed).await?),
        }
    }
    Ok(results)
}

/// One commit, whole or not at all. The outer error is one that concerns all.
async fn apart(
    connection: &mut SqliteConnection,
    commit: &GitspaceCommit,
) -> Result<Result<(), StoreError>, StoreError> {
    let failed = store_error("setting a savepoint", "savepoint");
    let mut part = connection.begin().await.map_err(&failed)?;
    let one = std::slice::from_ref(commit);
    let result = if commit.made {
        make(&mut part, commit).await
    } else {
        change(&mut part, one)
            .await
            .and_then(|results| results.into_iter().collect())
    };
    match &result {
        Ok(()) => part.commit().await.map_err(&failed)?,
        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
            part.rollback().await.map_err(&failed)?;
        }
        // Dropping the transaction rolls all of it back.
        Err(error) => return Err(error.clone()),
    }
    Ok(result)
}

/// How many timeline and log entries a gitspace has had.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    events: i64,
    entries: i64,
}

async fn make(
    connection: &mut SqliteConnection,
    commit: &GitspaceCommit,
) -> Result<(), StoreError> {
    insert(connection, commit).await?;
    let counters = Counters {
        events: signed(commit.timeline.len() as u64),
        entries: signed(commit.log.len() as u64),
    };
    add(connection, &[(commit, counters)]).await
}

/// Gitspaces that are there, each once. A conflict of one is that one's answer; another error is of all.
async fn change(
    connection: &mut SqliteConnection,
    commits: &[GitspaceCommit],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut counters = HashMap::with_capacity(commits.len());
    for piece in pieces(commits) {
        update(connection, piece, &mut counters).await?;
    }
    let mut results = Vec::with_capacity(commits.len());
    let mut changed = Vec::with_capacity(commits.len());
    for commit in commits {
        match counters.remove(&commit.gitspace.id) {
            Some(counters) => {
                changed.push((commit, counters));
                results.push(Ok(()));
            }
            None => results.push(Err(StoreError::Conflict { what: "gitspace" })),
        }
    }
    add(connection, &changed).await?;
    Ok(results)
}

/// Tasks, timeline and log of gitspaces whose counters already count them.
async fn add(
    connection: &mut SqliteConnection,
    commits: &[(&GitspaceCommit, Counters)],
) -> Result<(), StoreError> {
    let tasks: Vec<&TaskRecord> = commits.iter().flat_map(|(c, _)| &c.tasks).collect();
    for piece in pieces(&tasks) {
        put_tasks(connection, piece).await?;
    }
    let mut events = Vec::new();
    let mut entries = Vec::new();
    for (commit, counters) in commits {
        let id = commit.gitspace.id;
        let first = counters.events - signed(commit.timeline.len() as u64) + 1;
        events.extend(
            (first..)
                .zip(&commit.timeline)
                .map(|(n, event)| (id, n, event)),
        );
        let first = counters.entries - signed(commit.log.len() as u64) + 1;
        entries.extend((first..).zip(&commit.log).map(|(n, entry)| (id, n, entry)));
    }
    for piece in pieces(&events) {
        insert_events(connection, piece).await?;
    }
    for piece in pieces(&entries) {
        insert_entries(connection, piece).await?;
    }
    for (commit, counters) in commits {
        trim(connection, commit, *counters).await?;
    }
    Ok(())
}

/// Cut into pieces whose lengths are powers of two.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = MOST_ROWS.min(1 << rows.len().checked_ilog2()?);
        let (piece, rest) = rows.split_at(length);
        rows = rest;
        Some(piece)
    })
}

/// `before`, so many rows of so many parameters, `after`. Parameters have no numbers: SQLite looks a number up in a list of all of them.
fn statement(before: &str, rows: usize, columns: usize, after: &str) -> AssertSqlSafe<String> {
    let row = format!("({})", vec!["?"; columns].join(","));
    let rows = vec![row.as_str(); rows].join(",");
    // Nothing but parameters was added to what callers wrote.
    AssertSqlSafe(format!("{before}{rows}{after}"))
}

/// What commits change: 16 parameters. `version` is the one from here on.
fn bind_changed<'q>(
    query: Bound<'q>,
    record: &GitspaceRecord,
    version: u64,
) -> Result<Bound<'q>, StoreError> {
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
    commit: &GitspaceCommit,
) -> Result<(), StoreError> {
    let made = &commit.gitspace;
    let query = sqlx::query(
        "INSERT INTO gitspaces (id, version, desired, generation, trace, observed, delegate_id, task_id, phase, attempts,
           retry_at, exits, error, waiting, updated, deleted, owner_id, name, slug, repo, machine, resources,
           infra_provider_id, created, last_event, last_log)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
           $23, $24, $25, $26)",
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
        .bind(signed(commit.timeline.len() as u64))
        .bind(signed(commit.log.len() as u64))
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

/// Adds the counters of those that had the version which was read.
async fn update(
    connection: &mut SqliteConnection,
    commits: &[GitspaceCommit],
    counters: &mut HashMap<GitspaceUuid, Counters>,
) -> Result<(), StoreError> {
    let sql = statement(
        "WITH v (id, version, desired, generation, trace, observed, delegate_id, task_id, phase, attempts, retry_at, exits, error,
           waiting, updated, deleted, read_version, events, entries) AS (VALUES ",
        commits.len(),
        19,
        ") UPDATE gitspaces SET version = v.version, desired = v.desired, generation = v.generation, trace = v.trace,
           observed = v.observed, delegate_id = v.delegate_id, task_id = v.task_id, phase = v.phase, attempts = v.attempts,
           retry_at = v.retry_at, exits = v.exits, error = v.error, waiting = v.waiting, updated = v.updated,
           deleted = v.deleted, last_event = last_event + v.events, last_log = last_log + v.entries
         FROM v WHERE gitspaces.id = v.id AND gitspaces.version = v.read_version
         RETURNING gitspaces.id, last_event, last_log",
    );
    let mut query = sqlx::query(sql);
    for commit in commits {
        let record = &commit.gitspace;
        query = bind_changed(query, record, record.version.saturating_add(1))?
            .bind(signed(record.version))
            .bind(signed(commit.timeline.len() as u64))
            .bind(signed(commit.log.len() as u64));
    }
    let rows = query
        .fetch_all(connection)
        .await
        .map_err(store_error("changing gitspaces", "gitspace"))?;
    for row in &rows {
        let columns = Columns::new(row, "gitspace");
        let after = Counters {
            events: columns.number("last_event")?,
            entries: columns.number("last_log")?,
        };
        counters.insert(columns.id("id")?, after);
    }
    Ok(())
}

async fn put_tasks(
    connection: &mut SqliteConnection,
    tasks: &[&TaskRecord],
) -> Result<(), StoreError> {
    let sql = statement(
        "INSERT INTO tasks (id, gitspace_id, delegate_id, kind, generation, attempt, deadline, trace, state, stored_seq,
           created, finished) VALUES ",
        tasks.len(),
        12,
        " ON CONFLICT (id) DO UPDATE SET deadline = excluded.deadline, state = excluded.state,
           stored_seq = excluded.stored_seq, finished = excluded.finished",
    );
    let mut query = sqlx::query(sql);
    for task in tasks {
        query = query
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
            .bind(opt_micros(task.finished));
    }
    run(query, connection, "keeping tasks", "task").await
}

async fn insert_events(
    connection: &mut SqliteConnection,
    events: &[(GitspaceUuid, i64, &NewTimelineEvent)],
) -> Result<(), StoreError> {
    let sql = statement(
        "INSERT INTO timeline (gitspace_id, id, at, kind, message, phase, duration_ms, failure, generation, task_id, trace,
           state) VALUES ",
        events.len(),
        12,
        "",
    );
    let mut query = sqlx::query(sql);
    for (gitspace, id, event) in events {
        query = query
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
            .bind(word(&event.state)?);
    }
    run(query, connection, "keeping a timeline", "timeline event").await
}

async fn insert_entries(
    connection: &mut SqliteConnection,
    entries: &[(GitspaceUuid, i64, &NewLogEntry)],
) -> Result<(), StoreError> {
    let sql = statement(
        "INSERT INTO log_entries (gitspace_id, id, at, phase, stream, text) VALUES ",
        entries.len(),
        6,
        "",
    );
    let mut query = sqlx::query(sql);
    for (gitspace, id, entry) in entries {
        query = query
            .bind(gitspace.to_string())
            .bind(id)
            .bind(micros(entry.at))
            .bind(word(&entry.phase)?)
            .bind(word(&entry.stream)?)
            .bind(entry.text.as_str());
    }
    run(query, connection, "keeping a log", "log entry").await
}

async fn run(
    query: Bound<'_>,
    connection: &mut SqliteConnection,
    doing: &'static str,
    what: &'static str,
) -> Result<(), StoreError> {
    query
        .execute(connection)
        .await
        .map(drop)
        .map_err(store_error(doing, what))
}

/// Drops what is older than is kept.
async fn trim(
    connection: &mut SqliteConnection,
    commit: &GitspaceCommit,
    counters: Counters,
) -> Result<(), StoreError> {
    for (added, sql, kept, last) in [
        (
            commit.timeline.len(),
            "DELETE FROM timeline WHERE gitspace_id = $1 AND id <= $2",
            MAX_TIMELINE_EVENTS,
            counters.events,
        ),
        (
            commit.log.len(),
            "DELETE FROM log_entries WHERE gitspace_id = $1 AND id <= $2",
            MAX_LOG_ENTRIES,
            counters.entries,
        ),
    ] {
        let dropped = last - i64::from(kept);
        if added > 0 && dropped > 0 {
            let query = sqlx::query(sql)
                .bind(commit.gitspace.id.to_string())
                .bind(dropped);
            run(query, &mut *connection, "dropping what is old", "entry").await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_powers_of_two_and_all_there_is() {
        let rows: Vec<usize> = (0..203).collect();
        let lengths: Vec<_> = pieces(&rows).map(<[_]>::len).collect();
        assert_eq!(lengths, [64, 64, 64, 8, 2, 1]);
        assert_eq!(pieces(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        assert_eq!(pieces::<usize>(&[]).count(), 0);
    }

    #[test]
    fn a_statement_has_a_parameter_for_each_value() {
        let sql = statement("INSERT INTO t (a, b) VALUES ", 2, 2, " RETURNING a");
        assert_eq!(sql.0, "INSERT INTO t (a, b) VALUES (?,?),(?,?) RETURNING a");
    }
}
