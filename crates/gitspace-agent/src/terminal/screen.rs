//! What a terminal shows: an emulator beside the bytes, for those who come back too late for the bytes.

use super::ring::Ring;
use std::{fmt, num::NonZeroU16, panic::AssertUnwindSafe};
use vt100::{Parser, capture::BasicFormattedCaptureRange};
use wire::workspace::Size;

/// Lines above the screen.
const SCROLLBACK: usize = 2_000;
/// Of scroll-back in a snapshot: a line may hold an escape sequence for every cell.
const MAX_SCROLLBACK_BYTES: usize = 1024 * 1024;
const MAX_TITLE: usize = 120;

#[derive(Debug, Default)]
struct Title(Option<String>);

impl vt100::Callbacks for Title {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        let title: String = String::from_utf8_lossy(title)
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TITLE)
            .collect();
        self.0 = Some(title).filter(|title| !title.is_empty());
    }
}

pub(super) struct Screen {
    pub(super) ring: Ring,
    parser: Parser<Title>,
    size: Size,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn cells(size: Size) -> (NonZeroU16, NonZeroU16) {
    (
        NonZeroU16::new(size.rows).unwrap_or(NonZeroU16::MIN),
        NonZeroU16::new(size.cols).unwrap_or(NonZeroU16::MIN),
    )
}

fn parser(size: Size) -> Parser<Title> {
    let (rows, cols) = cells(size);
    Parser::new_with_callbacks(rows, cols, SCROLLBACK, Title::default())
}

impl Screen {
    pub(super) fn new(size: Size) -> Self {
        Self {
            ring: Ring::default(),
            parser: parser(size),
            size,
        }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    pub(super) fn title(&self) -> Option<String> {
        self.parser.callbacks().0.clone()
    }

    pub(super) fn output(&mut self, bytes: &[u8]) {
        self.ring.push(bytes);
        self.guarded(|parser| parser.process(bytes));
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.size = size;
        let (rows, cols) = cells(size);
        self.guarded(|parser| parser.set_size(rows, cols));
    }

    /// A defect of the emulator costs its picture, not the shell.
    fn guarded(&mut self, work: impl FnOnce(&mut Parser<Title>)) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| work(&mut self.parser))).is_err() {
            tracing::error!("The terminal emulator broke; it starts anew");
            self.parser = parser(self.size);
        }
    }

    /// Redraws scroll-back and screen on a terminal that was reset, or at least is at the start of a line.
    pub(super) fn snapshot(&mut self) -> Vec<u8> {
        let drawn =
            std::panic::catch_unwind(AssertUnwindSafe(|| draw(self.parser.screen(), self.size)));
        drawn.unwrap_or_else(|_| {
            tracing::error!("The terminal emulator broke; it starts anew");
            self.parser = parser(self.size);
            b"\x1b[2J\x1b[H".to_vec()
        })
    }
}

fn draw(screen: &vt100::Screen, size: Size) -> Vec<u8> {
    let mut out = String::new();
    if screen.alternate_screen() {
        // Below a full-screen program is what it covers: drawn first, so that it is there when the program ends.
        let (rows, cols) = cells(size);
        let mut below = Parser::new(rows, cols, SCROLLBACK);
        below.screen_mut().clone_from(screen);
        below.process(b"\x1b[?47l");
        draw_main(&mut out, below.screen());
        out.push_str("\x1b[?1049h");
    } else {
        draw_main(&mut out, screen);
        return out.into_bytes();
    }
    out.push_str(&screen.state_formatted());
    out.into_bytes()
}

fn draw_main(out: &mut String, screen: &vt100::Screen) {
    if screen.scrollback_len() > 0 {
        let mut all = String::new();
        let range = &mut vt100::capture::BasicFormattedCaptureState::new();
        // Writing to a `String` does not fail.
        if screen
            .write_contents_formatted_basic(&mut all, BasicFormattedCaptureRange::Full(range))
            .is_ok()
        {
            out.push_str("\x1b[m");
            for line in newest_lines(&all).split_inclusive('\n') {
                match line.strip_suffix('\n') {
                    Some(line) => {
                        out.push_str(line);
                        out.push_str("\r\n");
                    }
                    None => out.push_str(line),
                }
            }
            out.push_str("\x1b[m");
        }
    }
    // The screen's own rows are in there too, and scrolled its scroll-back up; they are drawn over, cursor and modes included.
    out.push_str(&screen.state_formatted());
}

/// The end of the text, from the start of a line.
fn newest_lines(all: &str) -> &str {
    let Some(from) = all.len().checked_sub(MAX_SCROLLBACK_BYTES) else {
        return all;
    };
    let start = all
        .bytes()
        .enumerate()
        .skip(from)
        .find(|(_, byte)| *byte == b'\n')
        .map(|(at, _)| at + 1);
    start.and_then(|start| all.get(start..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 5, cols: 20 };

    /// A client's terminal that shows the snapshot.
    fn redrawn(screen: &mut Screen) -> Parser {
        let (rows, cols) = cells(SIZE);
        let mut parser = Parser::new(rows, cols, SCROLLBACK);
        parser.process(&screen.snapshot());
        parser
    }

    fn scrolled(parser: &mut Parser, rows: usize) -> String {
        parser.screen_mut().set_scrollback(rows);
        parser.screen().contents()
    }

    #[test]
    fn a_snapshot_redraws_screen_cursor_and_scrollback() {
        let mut screen = Screen::new(SIZE);
        for line in 1..=12 {
            screen.output(format!("\x1b[31mline {line}\x1b[m\r\n").as_bytes());
        }
        screen.output(b"$ ");
        let mut client = redrawn(&mut screen);
        assert_eq!(
            client.screen().contents(),
            screen.parser.screen().contents()
        );
        assert_eq!(
            client.screen().cursor_position(),
            screen.parser.screen().cursor_position()
        );
        assert_eq!(
            client.screen().scrollback_len(),
            screen.parser.screen().scrollback_len()
        );
        assert!(scrolled(&mut client, 8).starts_with("line 1\nline 2\n"));
    }

    #[test]
    fn a_full_screen_program_covers_what_was_there_and_gives_it_back() {
        let mut screen = Screen::new(SIZE);
        screen.output(b"$ vim\r\n\x1b[?1049h\x1b[2J\x1b[Hediting");
        let mut client = redrawn(&mut screen);
        assert_eq!(client.screen().contents(), "editing");
        client.process(b"\x1b[?1049l");
        assert!(client.screen().contents().starts_with("$ vim"));
    }

    #[test]
    fn a_title_is_kept_without_control_characters() {
        let mut screen = Screen::new(SIZE);
        screen.output(b"\x1b]2;work\x07");
        assert_eq!(screen.title().as_deref(), Some("work"));
    }
}
