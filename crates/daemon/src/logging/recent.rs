//! The newest log lines, in a bounded piece of memory.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::fmt::MakeWriter;

/// Some hundreds of lines; a daemon is meant to be small.
const MAX_BYTES: usize = 96 * 1024;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<u8>>>);

impl Recent {
    /// Whole lines, oldest first.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (head, tail) = lines.as_slices();
        String::from_utf8_lossy(&[head, tail].concat()).into_owned()
    }

    fn add(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(line);
        if lines.len() <= MAX_BYTES {
            return;
        }
        // From the front, up to the end of a line.
        let over = lines.len() - MAX_BYTES;
        let end = lines
            .iter()
            .skip(over)
            .position(|byte| *byte == b'\n')
            .map_or(lines.len(), |rest| over + rest + 1);
        lines.drain(..end);
    }
}

/// One event is written by one call.
impl io::Write for Recent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Recent {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_stay_whole_within_the_bound() {
        let recent = Recent::default();
        for number in 0..10_000 {
            recent.add(format!("line {number} of a log\n").as_bytes());
        }
        let text = recent.text();
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        assert!(text.starts_with("line ") && text.ends_with("line 9999 of a log\n"));
        recent.add(&vec![b'x'; 2 * MAX_BYTES]);
        assert!(recent.text().len() <= MAX_BYTES);
    }
}
