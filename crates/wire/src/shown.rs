//! Text from elsewhere, made fit for a terminal and a log.
//!
//! Invariant: what comes out of here has no character that moves the cursor, changes the terminal, or hides and reorders other text.

use std::borrow::Cow;

/// Control characters, and those that reorder or hide the text around them.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line: every hidden character is shown as `\n`, `\x1b` or `\u{202e}`.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(&mut out, c);
    }
    Cow::Owned(out)
}

/// One character as [`line`] shows it.
pub fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_hidden(c) && c.is_ascii() => {
            out.push_str(&format!("\\x{:02x}", u32::from(c)));
        }
        c if is_hidden(c) => {
            out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
        c => out.push(c),
    }
}

/// JSON text with every hidden character as `\uXXXX`: the same JSON, fit for a terminal.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Line breaks between values are ours; inside strings serde_json has escaped them.
    let hidden = |c: char| is_hidden(c) && c != '\n';
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// At most `max` bytes of it, with a space for each hidden character: it is never longer for that, in JSON neither.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let c = if is_hidden(c) { ' ' } else { c };
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

/// How two clocks stand to each other, the direction in words: `whose` is `behind_ms` behind `other`, or ahead where that is negative.
#[must_use]
pub fn clocks(whose: &str, other: &str, behind_ms: i64) -> String {
    let apart = match behind_ms.unsigned_abs() {
        0 => return format!("{whose} clock agrees with {other}"),
        ms @ ..1_000 => format!("{ms} ms"),
        ms @ ..120_000 => format!("{} s", ms / 1_000),
        ms @ ..7_200_000 => format!("{} min", ms / 60_000),
        ms @ ..172_800_000 => format!("{} h", ms / 3_600_000),
        ms => format!("{} days", ms / 86_400_000),
    };
    let side = if behind_ms < 0 { "ahead of" } else { "behind" };
    format!("{whose} clock is {apart} {side} {other}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_with_the_side_on_which_it_is_wrong() {
        for (behind_ms, words) in [
            (
                42_999,
                "this host's clock is 42 s behind the control plane's",
            ),
            (
                -42_999,
                "this host's clock is 42 s ahead of the control plane's",
            ),
            (0, "this host's clock agrees with the control plane's"),
            (-3, "this host's clock is 3 ms ahead of the control plane's"),
            (
                3_600_000,
                "this host's clock is 60 min behind the control plane's",
            ),
            (
                i64::MIN,
                "this host's clock is 106751991167 days ahead of the control plane's",
            ),
        ] {
            assert_eq!(
                clocks("this host's", "the control plane's", behind_ms),
                words
            );
        }
    }

    #[test]
    fn nothing_on_one_line_reaches_the_terminal_unseen() {
        assert_eq!(line("plain é 漢"), "plain é 漢");
        assert_eq!(
            line("a\x1b]0;owned\x07\r\n\tb\u{9b}2J\u{202e}c\u{200b}\x7f"),
            "a\\x1b]0;owned\\x07\\r\\n\\tb\\u{9b}2J\\u{202e}c\\u{200b}\\x7f"
        );
    }

    #[test]
    fn json_stays_the_same_value_without_a_hidden_character() {
        let value = serde_json::json!({"a": "x\u{9b}\u{202e}\u{7f}\x1b\n\u{e0001}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(!shown.replace('\n', "").contains(is_hidden), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }

    #[test]
    fn bounded_text_has_no_hidden_character_and_ends_between_two() {
        assert_eq!(bounded("a\x1b[2J\u{1}b\nc\u{202e}d", 99), "a [2J b c d");
        assert_eq!(bounded("ééé", 5), "éé");
        assert_eq!(bounded("", 5), "");
    }
}
