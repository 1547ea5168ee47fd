//! Reading a task's journal at start: whatever a crash left of it.

use super::{FORMAT, Head, Inner, MAX_FILE, TaskJournal};
use camino::Utf8Path;
use daemon::Clock;
use std::{
    fs::OpenOptions,
    io,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;
use wire::task::{TaskEvent, TaskEventKind};

/// The journal without a torn end, which is cut off the file too. A file that cannot be read says why.
pub(super) fn load(path: &Utf8Path, clock: &Arc<dyn Clock>) -> Result<TaskJournal, String> {
    let words = |error: io::Error| error.to_string();
    let length = std::fs::metadata(path).map_err(words)?.len();
    if length > MAX_FILE {
        return Err(format!("it has {length} bytes, more than {MAX_FILE}"));
    }
    let bytes = std::fs::read(path).map_err(words)?;
    let mut head: Option<Head> = None;
    let mut events: Vec<TaskEvent> = Vec::new();
    let mut good = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line.last() != Some(&b'\n') {
            break;
        }
        if head.is_none() {
            let read: Head = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            if read.format != FORMAT {
                return Err(format!(
                    "it has format {}, and this version reads {FORMAT}",
                    read.format
                ));
            }
            head = Some(read);
        } else {
            let Ok(event) = serde_json::from_slice::<TaskEvent>(line) else {
                break;
            };
            if events.last().is_some_and(|last| event.seq <= last.seq) {
                break;
            }
            events.push(event);
        }
        good += line.len();
    }
    let head = head.ok_or_else(|| "its first line is not whole".to_owned())?;
    let file = OpenOptions::new().append(true).open(path).map_err(words)?;
    if good < bytes.len() {
        tracing::warn!(file = %path, dropped = bytes.len() - good, "The torn end of a task journal is dropped");
        file.set_len(good as u64).map_err(words)?;
    }
    let last_seq = events.last().map_or(0, |event| event.seq);
    let finished = events
        .last()
        .is_some_and(|event| matches!(event.event, TaskEventKind::Finished { .. }));
    let log_bytes = events
        .iter()
        .map(|event| match &event.event {
            TaskEventKind::Log { text, .. } => text.len(),
            _ => 0,
        })
        .sum();
    Ok(TaskJournal {
        task: head.task,
        had_secrets: head.had_secrets,
        path: path.to_owned(),
        inner: Mutex::new(Inner {
            file,
            length: good as u64,
            written: events.len(),
            events,
            last_seq,
            finished,
            log_bytes,
        }),
        changed: watch::Sender::new(last_seq),
        clock: Arc::clone(clock),
    })
}
