//! The events of one job, bounded in memory.
//!
//! Invariant: a reader sees the numbers 1, 2, 3, … without a gap, to the end. What was dropped for want of room is read as events with
//! the same numbers, the first of which says so.

use crate::{agent::lock, clock};
use std::{collections::VecDeque, sync::Mutex};
use tokio::sync::watch;
use wire::{
    agent::{JobEvent, JobEventKind, JobOutcome},
    task::{LogStream, MAX_LOG_TEXT},
};

/// Of output kept for a reader that is behind.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// What an event costs beside its text.
const EVENT_COST: usize = 128;
/// Events handed out at once.
const BATCH: usize = 64;

#[derive(Debug)]
pub(crate) struct JobLog {
    kept: Mutex<Kept>,
    /// Number of the last event.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<JobEvent>,
    bytes: usize,
    last: u64,
    ended: bool,
}

impl Default for JobLog {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }
}

impl JobLog {
    /// Appends output, cut into events of at most [`MAX_LOG_TEXT`]. After the end it is dropped.
    pub(crate) fn output(&self, stream: LogStream, mut text: &str) {
        while !text.is_empty() {
            let (head, rest) = text.split_at(floor_char_boundary(text, MAX_LOG_TEXT));
            self.append(JobEventKind::Output {
                stream,
                text: head.to_owned(),
            });
            text = rest;
        }
    }

    /// A line of ours.
    pub(crate) fn system(&self, line: &str) {
        self.output(LogStream::System, &format!("{line}\n"));
    }

    pub(crate) fn end(&self, outcome: JobOutcome) {
        self.append(JobEventKind::Exited { outcome });
    }

    pub(crate) fn is_ended(&self) -> bool {
        lock(&self.kept).ended
    }

    fn append(&self, event: JobEventKind) {
        let mut kept = lock(&self.kept);
        if kept.ended {
            return;
        }
        kept.ended = matches!(event, JobEventKind::Exited { .. });
        kept.last += 1;
        kept.bytes += cost(&event);
        let event = JobEvent {
            seq: kept.last,
            at: clock::now(),
            event,
        };
        kept.events.push_back(event);
        while kept.bytes > MAX_BYTES && kept.events.len() > 1 {
            if let Some(dropped) = kept.events.pop_front() {
                kept.bytes -= cost(&dropped.event);
            }
        }
        self.last.send_replace(kept.last);
    }

    /// Some events after `after`, once there are any; empty at the end of the log.
    pub(crate) async fn next_after(&self, after: u64) -> Vec<JobEvent> {
        let mut changes = self.last.subscribe();
        loop {
            {
                let kept = lock(&self.kept);
                let events = kept.after(after);
                if !events.is_empty() || kept.ended {
                    return events;
                }
            }
            // The sender lives as long as we do.
            if changes.changed().await.is_err() {
                return Vec::new();
            }
        }
    }
}

impl Kept {
    fn after(&self, after: u64) -> Vec<JobEvent> {
        let Some(first) = self.events.front() else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if after + 1 < first.seq {
            let lost = first.seq - after - 1;
            for seq in (after + 1..first.seq).take(BATCH) {
                let text = if seq == after + 1 {
                    format!(
                        "[{lost} pieces of output were dropped: more came than could be read]\n"
                    )
                } else {
                    String::new()
                };
                let event = JobEventKind::Output {
                    stream: LogStream::System,
                    text,
                };
                events.push(JobEvent {
                    seq,
                    at: first.at,
                    event,
                });
            }
            return events;
        }
        let skip = usize::try_from((after + 1).saturating_sub(first.seq)).unwrap_or(usize::MAX);
        events.extend(self.events.iter().skip(skip).take(BATCH).cloned());
        events
    }
}

fn cost(event: &JobEventKind) -> usize {
    EVENT_COST
        + match event {
            JobEventKind::Output { text, .. } => text.len(),
            JobEventKind::Exited { .. } => 0,
        }
}

/// The largest cut at or below `at` that splits no character.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> JobOutcome {
        JobOutcome::Done { detail: None }
    }

    #[tokio::test]
    async fn a_reader_that_is_behind_sees_every_number_and_is_told_what_is_missing() {
        let log = JobLog::default();
        for _ in 0..600 {
            log.output(LogStream::Stdout, &"x".repeat(MAX_LOG_TEXT));
        }
        log.end(done());
        let mut seen = 0;
        let mut told = 0;
        loop {
            let events = log.next_after(seen).await;
            if events.is_empty() {
                break;
            }
            for event in events {
                assert_eq!(event.seq, seen + 1);
                seen = event.seq;
                if let JobEventKind::Output {
                    stream: LogStream::System,
                    text,
                } = event.event
                {
                    told += usize::from(text.contains("dropped") && seen == 1);
                }
            }
        }
        assert_eq!((seen, told), (601, 1));
        assert!(lock(&log.kept).bytes <= MAX_BYTES);
    }

    #[tokio::test]
    async fn output_is_cut_between_characters_and_nothing_follows_the_end() {
        let log = JobLog::default();
        log.output(LogStream::Stdout, &"é".repeat(MAX_LOG_TEXT));
        log.end(done());
        log.output(LogStream::Stdout, "late");
        let events = log.next_after(0).await;
        assert_eq!(events.len(), 3);
        assert!(matches!(events[2].event, JobEventKind::Exited { .. }));
        assert!(log.next_after(3).await.is_empty());
    }
}
