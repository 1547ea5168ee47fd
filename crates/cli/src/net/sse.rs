//! `text/event-stream`, read from pieces cut anywhere. Pure.

/// A log entry is 16 KiB of text, at most six times that in JSON; a failure carries 8 KiB.
const MAX_LINE: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("an event is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("an event is not UTF-8")]
    NotText,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Type of it; empty is `message`.
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Takes bytes, gives whole events.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    /// The last byte was a CR: a LF right after it belongs to the same line break.
    after_cr: bool,
    started: bool,
    building: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// Appends the events that end in `bytes` to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<SseEvent>) -> Result<(), SseError> {
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' => self.end_line(out)?,
                b'\r' => {
                    self.after_cr = true;
                    self.end_line(out)?;
                }
                byte => {
                    if self.line.len() >= MAX_LINE {
                        return Err(SseError::TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<SseEvent>) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        let mut line = std::str::from_utf8(&line).map_err(|_| SseError::NotText)?;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.building);
            if std::mem::take(&mut self.has_data) {
                out.push(event);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.building.data.push('\n');
                }
                if self.building.data.len() + value.len() > MAX_LINE {
                    return Err(SseError::TooLong);
                }
                self.building.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.building.event),
            // `id` is in the data of every event of this API; an empty field name is a comment that keeps the line alive.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = SseParser::default();
        let mut out = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut out).unwrap();
        }
        out
    }

    const STREAM: &[u8] = "\u{feff}: hello\r\nid: 1\r\ndata: {\"é\":\r\ndata:1}\r\n\r\nevent: log\ndata\n\nid: 3\n\ndata: x\r\rdata: cut".as_bytes();

    #[test]
    fn a_stream_is_read_the_same_wherever_it_is_cut() {
        let whole = parse(&[STREAM]);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].data, "{\"é\":\n1}");
        assert_eq!(
            (whole[1].event.as_str(), whole[1].data.as_str()),
            ("log", "")
        );
        assert_eq!((whole[2].event.as_str(), whole[2].data.as_str()), ("", "x"));
        for at in 0..STREAM.len() {
            assert_eq!(parse(&[&STREAM[..at], &STREAM[at..]]), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(parse(&bytes), whole);
    }

    #[test]
    fn an_endless_line_or_event_is_refused() {
        let mut out = Vec::new();
        let line = vec![b'x'; MAX_LINE + 1];
        assert_eq!(
            SseParser::default().push(&line, &mut out),
            Err(SseError::TooLong)
        );
        let lines = b"data: 0123456789\n".repeat(MAX_LINE / 10);
        assert_eq!(
            SseParser::default().push(&lines, &mut out),
            Err(SseError::TooLong)
        );
        assert_eq!(
            SseParser::default().push(b"data: \xff\n", &mut out),
            Err(SseError::NotText)
        );
    }
}
