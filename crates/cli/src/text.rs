//! Text from elsewhere, made fit for a terminal. Pure.
//!
//! Invariant: nothing that a server, a repository or a command inside a gitspace wrote reaches the terminal through here
//! with a character that moves the cursor, changes the terminal or hides other text.

use jiff::{SignedDuration, Timestamp};
pub(crate) use wire::shown::{json, line};

/// Output of a command: line breaks and tabs are kept, colours (SGR) are dropped, all else is shown. A lone CR, as
/// progress bars write it, breaks the line.
pub(crate) fn output(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    loop {
        if let Some(after) = after_colour(rest.as_str()) {
            rest = after.chars();
            continue;
        }
        match rest.next() {
            None => return out,
            Some('\n') => out.push('\n'),
            Some('\t') => out.push('\t'),
            Some('\r') => {
                if !rest.as_str().starts_with(['\n', '\r']) {
                    out.push('\n');
                }
            }
            Some(c) => wire::shown::push(&mut out, c),
        }
    }
}

/// What follows `ESC [ digits ; … m` at the start of `text`.
fn after_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    parameters
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == ':')
        .strip_prefix('m')
}

/// Columns under headings, two spaces apart. Cells are shown as [`line`]; an empty one as `-`.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let shown: Vec<Vec<String>> =
        std::iter::once(headings.iter().map(|h| (*h).to_owned()).collect())
            .chain(rows.iter().map(|row| {
                row.iter()
                    .map(|cell| match cell.as_str() {
                        "" => "-".to_owned(),
                        cell => line(cell).into_owned(),
                    })
                    .collect()
            }))
            .collect();
    let mut widths = vec![0; headings.len()];
    for row in &shown {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in &shown {
        let start = out.len();
        for (width, cell) in widths.iter().zip(row) {
            out.push_str(&format!("{cell:width$}  "));
        }
        let end = out.trim_end_matches(' ').len();
        out.truncate(end.max(start));
        out.push('\n');
    }
    out
}

/// `name: value` lines with the values aligned. Lines without a value are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut out = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("{:width$}  {}\n", format!("{name}:"), line(value)));
    }
    out
}

/// `12 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// `5 s ago`, `in 3 h`: the largest unit alone.
pub(crate) fn relative(time: Timestamp, now: Timestamp) -> String {
    let distance: SignedDuration = now.duration_since(time);
    let seconds = distance.unsigned_abs().as_secs();
    let amount = match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    if distance.is_negative() {
        format!("in {amount}")
    } else {
        format!("{amount} ago")
    }
}

/// `512 MiB`, `3.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    const GIB: u64 = 1024 * MIB;
    if count >= GIB {
        let tenths = count % GIB * 10 / GIB;
        if tenths == 0 {
            format!("{} GiB", count / GIB)
        } else {
            format!("{}.{tenths} GiB", count / GIB)
        }
    } else {
        format!("{} MiB", count / MIB)
    }
}

/// `2`, `0.5`.
pub(crate) fn cpus(millis: u32) -> String {
    let fraction = format!("{:03}", millis % 1000);
    match fraction.trim_end_matches('0') {
        "" => format!("{}", millis / 1000),
        fraction => format!("{}.{fraction}", millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_its_lines_and_loses_only_colours() {
        assert_eq!(
            output("\x1b[1;31mred\x1b[0m\r\n10%\r20%\n\tx"),
            "red\n10%\n20%\n\tx"
        );
        assert_eq!(output("\x1b[2J\x1b[31"), "\\x1b[2J\\x1b[31");
        assert_eq!(output("\x1b]52;c;eA==\x07"), "\\x1b]52;c;eA==\\x07");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_shown() {
        let rows = vec![
            vec!["a".to_owned(), "\x1b[2J".to_owned()],
            vec!["longer".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "X"], &rows),
            "NAME    X\na       \\x1b[2J\nlonger  -\n"
        );
    }

    #[test]
    fn amounts_read_well() {
        assert_eq!(milliseconds(120), "120 ms");
        assert_eq!(milliseconds(3_450), "3.4 s");
        assert_eq!(milliseconds(125_000), "2 min 5 s");
        assert_eq!(bytes(3_758_096_384), "3.5 GiB");
        assert_eq!((cpus(2000), cpus(500)), ("2".to_owned(), "0.5".to_owned()));
        let now = Timestamp::constant(1_000_000, 0);
        assert_eq!(relative(Timestamp::constant(999_990, 0), now), "10 s ago");
        assert_eq!(relative(Timestamp::constant(1_007_200, 0), now), "in 2 h");
    }
}
