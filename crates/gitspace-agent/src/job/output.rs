//! From a pipe to a log: text in whole characters, and its tail for the words of a failure.

use crate::agent::lock;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use wire::task::LogStream;

use super::Job;

const READ: usize = 16 * 1024;
/// Enough for the words of a failure.
const TAIL: usize = 8 * 1024;

/// The last output of a process, of both streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<String>>);

impl Tail {
    fn push(&self, text: &str) {
        let mut tail = lock(&self.0);
        tail.push_str(text);
        if tail.len() > 2 * TAIL {
            let from = (tail.len() - TAIL..tail.len())
                .find(|at| tail.is_char_boundary(*at))
                .unwrap_or_default();
            *tail = tail.split_off(from);
        }
    }

    /// Progress that was overwritten in place is left out.
    pub(super) fn text(&self) -> String {
        let tail = lock(&self.0);
        let lines: Vec<&str> = tail
            .lines()
            .map(|line| {
                line.rsplit('\r')
                    .find(|part| !part.is_empty())
                    .unwrap_or_default()
            })
            .collect();
        lines.join("\n").trim().to_owned()
    }
}

/// Copies to the log until the end of the pipe. A daemon left behind by the command may keep the pipe open for long: what it writes
/// after the end of the job is read and dropped, so that it neither blocks nor dies.
pub(super) async fn copy(
    mut from: impl AsyncRead + Unpin,
    stream: LogStream,
    prefix: Option<String>,
    job: Arc<Job>,
    tail: Tail,
) {
    let mut buffer = vec![0; READ];
    let mut text = Text::default();
    let mut at_line_start = true;
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let chunk = text.push(buffer.get(..read).unwrap_or_default());
        if chunk.is_empty() {
            continue;
        }
        tail.push(&chunk);
        match &prefix {
            None => job.log.output(stream, &chunk),
            Some(prefix) => {
                let mut prefixed = String::new();
                for line in chunk.split_inclusive('\n') {
                    if at_line_start {
                        prefixed.push_str(prefix);
                    }
                    prefixed.push_str(line);
                    at_line_start = line.ends_with('\n');
                }
                job.log.output(stream, &prefixed);
            }
        }
    }
    let rest = text.finish();
    if !rest.is_empty() {
        tail.push(&rest);
        job.log.output(stream, &rest);
    }
}

/// Bytes to text, a character that is split between two reads kept whole.
#[derive(Debug, Default)]
struct Text {
    rest: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let incomplete = match std::str::from_utf8(&self.rest) {
            // At most three bytes of a character whose end is to come.
            Err(error) if error.error_len().is_none() => self.rest.len() - error.valid_up_to(),
            // There may be a split character behind a broken one; it is rare enough to be shown as broken too.
            Ok(_) | Err(_) => 0,
        };
        let rest = self.rest.split_off(self.rest.len() - incomplete);
        let whole = std::mem::replace(&mut self.rest, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }

    fn finish(self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_split_between_two_reads_stays_whole() {
        let mut text = Text::default();
        let bytes = "a€b".as_bytes();
        assert_eq!(text.push(&bytes[..2]), "a");
        assert_eq!(text.push(&bytes[2..]), "€b");
        assert_eq!(text.push(b"\xff!"), "\u{fffd}!");
        assert_eq!(text.finish(), "");
    }

    #[test]
    fn the_tail_leaves_out_overwritten_progress() {
        let tail = Tail::default();
        tail.push("Receiving: 1%\rReceiving: 100%\rdone\nfatal: no\n");
        assert_eq!(tail.text(), "done\nfatal: no");
    }
}
