//! The task journal: each task and its events, one file a task, until the task is acknowledged.
//!
//! The first line is the task without its secrets; each further line is a [`TaskEvent`]. Events are kept in memory too, which the size
//! limit bounds.
//!
//! Invariants:
//! - The task is on the disk before anybody hears that it was taken, and `finished` before anybody hears of it.
//! - A line that a crash tore off is dropped at the next start; everything before it stays.
//! - Numbers only grow: who has seen N never sees another event N.

mod load;

use camino::{Utf8Path, Utf8PathBuf};
use daemon::Clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use wire::{
    control::TaskStatus,
    ids::TaskUuid,
    task::{LogStream, MAX_LOG_TEXT, Phase, Task, TaskEvent, TaskEventKind},
};

const FORMAT: u32 = 1;
/// Log text kept of one task; what comes later is counted and said once.
const MAX_LOG: usize = 8 * 1024 * 1024;
/// Larger than the log limit with all that JSON adds to it.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Events given to a reader at once.
const BATCH: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot read the task journal's folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the task journal")]
    Create {
        #[source]
        source: daemon::WriteError,
    },
    #[error("cannot open the task journal `{path}`")]
    Open {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write a task as JSON")]
    Json {
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot remove the task journal `{path}`")]
    Remove {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Whether the task came with secrets, which are not in this file.
    had_secrets: bool,
    task: Task,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Bytes of the file that are whole lines.
    length: u64,
    events: Vec<TaskEvent>,
    /// How many of `events` the file holds; the rest is written with the next one, once the disk takes it.
    written: usize,
    last_seq: u64,
    finished: bool,
    log_bytes: usize,
}

/// One task and what has come of it.
#[derive(Debug)]
pub(crate) struct TaskJournal {
    task: Task,
    had_secrets: bool,
    path: Utf8PathBuf,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

impl TaskJournal {
    pub(crate) fn task(&self) -> &Task {
        &self.task
    }

    pub(crate) fn had_secrets(&self) -> bool {
        self.had_secrets
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> TaskStatus {
        let inner = self.lock();
        TaskStatus {
            task: self.task.id,
            gitspace: self.task.gitspace,
            generation: self.task.generation,
            kind: self.task.verb.kind(),
            finished: inner.finished,
            last_seq: inner.last_seq,
        }
    }

    pub(crate) fn finished(&self) -> bool {
        self.lock().finished
    }

    /// Changes with each event.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Events above `after`, a batch at a time, and whether the last of them is the end.
    pub(crate) fn events(&self, after: u64) -> (Vec<TaskEvent>, bool) {
        let inner = self.lock();
        let from = inner.events.partition_point(|event| event.seq <= after);
        let events: Vec<TaskEvent> = inner
            .events
            .iter()
            .skip(from)
            .take(BATCH)
            .cloned()
            .collect();
        let whole = from + events.len() == inner.events.len();
        (events, whole && inner.finished)
    }

    /// The end, for a reader that has seen as many events and does not know of it: what it has seen was lost here since, and its numbers
    /// were given again. A reader that has seen the end asks no more.
    pub(crate) fn end_after(&self, seen: u64) -> Option<TaskEvent> {
        let inner = self.lock();
        let end = inner.events.last().filter(|_| inner.finished)?;
        (seen >= end.seq && seen < u64::from(u32::MAX)).then(|| TaskEvent {
            seq: seen + 1,
            ..end.clone()
        })
    }

    /// A reader that has seen up to `seen` proves that a power cut took events from us: their numbers are not used again.
    pub(crate) fn skip_to(&self, seen: u64) {
        let mut inner = self.lock();
        if !inner.finished && seen > inner.last_seq && seen < u64::from(u32::MAX) {
            tracing::warn!(task = %self.task.id, seen, last = inner.last_seq, "A reader has seen later events than the journal holds");
            inner.last_seq = seen;
        }
    }

    /// Adds an event. A failing disk is logged and does not stop the task: what matters can be found again in Docker.
    pub(crate) fn add(&self, event: TaskEventKind) {
        let finished = matches!(event, TaskEventKind::Finished { .. });
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            if inner.finished {
                return;
            }
            let event = TaskEvent {
                seq: inner.last_seq + 1,
                at: self.clock.now(),
                event,
            };
            inner.last_seq = event.seq;
            inner.finished = finished;
            inner.events.push(event);
            if finished {
                daemon::fail_point("runner.journal.finish.before");
            } else {
                daemon::fail_point("runner.journal.append.before");
            }
            if let Err(error) = inner.catch_up(finished) {
                tracing::error!(task = %self.task.id, %error, "Cannot write to the task journal");
            }
            if finished {
                daemon::fail_point("runner.journal.finish.after");
            } else {
                daemon::fail_point("runner.journal.append.after");
            }
            let last = inner.last_seq;
            drop(inner);
            self.changed.send_replace(last);
        });
    }

    /// Adds output, cut to events of the largest size, up to the limit of one task.
    pub(crate) fn log(&self, phase: Phase, stream: LogStream, text: &str) {
        for piece in pieces(text) {
            let before = {
                let mut inner = self.lock();
                let before = inner.log_bytes;
                inner.log_bytes = before.saturating_add(piece.len());
                before
            };
            if before >= MAX_LOG {
                return;
            }
            let event = |stream, text: &str| TaskEventKind::Log {
                phase,
                stream,
                text: text.to_owned(),
            };
            self.add(event(stream, piece));
            if before + piece.len() >= MAX_LOG {
                self.add(event(
                    LogStream::System,
                    "the output is longer than the runner keeps; the rest of it is left out\n",
                ));
            }
        }
    }
}

/// Cuts at character boundaries.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(MAX_LOG_TEXT);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

impl Inner {
    /// Writes what the file lacks, all of it or none: a line torn by a full disk would hide what comes after it.
    fn catch_up(&mut self, sync: bool) -> io::Result<()> {
        let mut lines = Vec::new();
        for event in self.events.iter().skip(self.written) {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let done = self.file.write_all(&lines).and_then(|()| {
            if sync {
                self.file.sync_data()?;
            }
            Ok(())
        });
        if let Err(error) = done {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.written = self.events.len();
        Ok(())
    }
}

/// All tasks that are not acknowledged.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: Utf8PathBuf,
    clock: Arc<dyn Clock>,
    tasks: Mutex<HashMap<TaskUuid, Arc<TaskJournal>>>,
    damaged: usize,
}

impl Journal {
    pub(crate) fn open(state_dir: &Utf8Path, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let dir = state_dir.join("tasks");
        let folder = |source| JournalError::Folder {
            path: dir.clone(),
            source,
        };
        std::fs::create_dir_all(&dir).map_err(folder)?;
        let mut tasks = HashMap::new();
        let mut damaged = 0;
        for entry in dir.read_dir_utf8().map_err(folder)? {
            let path = entry.map_err(folder)?.into_path();
            if path.extension() != Some("jsonl")
                || path.file_name().is_some_and(|name| name.starts_with('.'))
            {
                continue;
            }
            match load::load(&path, &clock) {
                Ok(task) => {
                    tasks.insert(task.task.id, Arc::new(task));
                }
                Err(cause) => {
                    tracing::error!(file = %path, cause, "A damaged task journal is put aside");
                    if let Err(error) = std::fs::rename(&path, format!("{path}.damaged")) {
                        tracing::error!(file = %path, %error, "Cannot put a damaged task journal aside");
                    }
                    damaged += 1;
                }
            }
        }
        Ok(Self {
            dir,
            clock,
            tasks: Mutex::new(tasks),
            damaged,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskUuid, Arc<TaskJournal>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damaged(&self) -> usize {
        self.damaged
    }

    pub(crate) fn get(&self, task: TaskUuid) -> Option<Arc<TaskJournal>> {
        self.lock().get(&task).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<TaskJournal>> {
        self.lock().values().cloned().collect()
    }

    /// Writes a task down; it is on the disk when this returns.
    pub(crate) fn create(&self, task: &Task) -> Result<Arc<TaskJournal>, JournalError> {
        tokio::task::block_in_place(|| {
            let head = Head {
                format: FORMAT,
                had_secrets: task
                    .verb
                    .spec()
                    .is_some_and(|spec| !spec.git_credentials.is_empty()),
                task: task.without_secrets(),
            };
            let mut line =
                serde_json::to_vec(&head).map_err(|source| JournalError::Json { source })?;
            line.push(b'\n');
            let path = self.dir.join(format!("{}.jsonl", task.id));
            daemon::fail_point("runner.journal.create.before");
            daemon::write_atomic(&path, &line, 0o600)
                .map_err(|source| JournalError::Create { source })?;
            daemon::fail_point("runner.journal.create.after");
            let file = OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(|source| JournalError::Open {
                    path: path.clone(),
                    source,
                })?;
            let journal = Arc::new(TaskJournal {
                task: head.task,
                had_secrets: head.had_secrets,
                path,
                inner: Mutex::new(Inner {
                    file,
                    length: line.len() as u64,
                    events: Vec::new(),
                    written: 0,
                    last_seq: 0,
                    finished: false,
                    log_bytes: 0,
                }),
                changed: watch::Sender::new(0),
                clock: Arc::clone(&self.clock),
            });
            self.lock().insert(task.id, Arc::clone(&journal));
            Ok(journal)
        })
    }

    /// Forgets an acknowledged task.
    pub(crate) fn remove(&self, task: TaskUuid) -> Result<(), JournalError> {
        tokio::task::block_in_place(|| {
            let Some(journal) = self.get(task) else {
                return Ok(());
            };
            daemon::fail_point("runner.journal.remove.before");
            match std::fs::remove_file(&journal.path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError::Remove {
                        path: journal.path.clone(),
                        source,
                    });
                }
                Ok(()) | Err(_) => {}
            }
            daemon::fail_point("runner.journal.remove.after");
            self.lock().remove(&task);
            Ok(())
        })
    }
}

/// When a deadline is, from the wall clock's point of view.
pub(crate) fn time_left(now: Timestamp, deadline: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(deadline.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
