//! Answers as text for a person at a terminal.

use crate::{Check, DrainState, Severity};
use serde_json::Value;
use wire::shown;

/// A line for each check, what failed first, with cause, fix and where to read more.
pub(crate) fn checks(checks: &[Check]) -> String {
    let mut sorted: Vec<&Check> = checks.iter().collect();
    sorted.sort_by_key(|check| (check.ok, std::cmp::Reverse(check.severity)));
    let mut text = String::new();
    for check in sorted {
        let mark = match (check.ok, check.severity) {
            (true, _) => "ok",
            (false, Severity::Error) => "FAILED",
            (false, Severity::Warning) => "warning",
            (false, Severity::Info) => "note",
        };
        line(
            &mut text,
            &format!(
                "{mark:<8} {:<20} {}",
                check.code,
                shown::line(&check.summary)
            ),
        );
        if check.ok {
            continue;
        }
        if let Some(cause) = &check.cause {
            line(
                &mut text,
                &format!("         cause: {}", shown::line(cause)),
            );
        }
        match (&check.because_of, &check.fix) {
            (Some(first), _) => line(&mut text, &format!("         mend `{first}` first")),
            (None, Some(fix)) => line(&mut text, &format!("         fix:   {}", shown::line(fix))),
            (None, None) => {}
        }
        line(&mut text, &format!("         more:  {}", check.doc));
    }
    text
}

/// `key: value`, indented by depth.
pub(crate) fn value(value: &Value) -> String {
    let mut text = String::new();
    nested(&mut text, value, 0);
    text
}

pub(crate) fn drain(state: DrainState) -> String {
    if !state.draining {
        return format!("takes work; {} tasks run\n", state.left);
    }
    let since = state
        .since
        .map_or_else(String::new, |at| format!(" since {at}"));
    match (state.left, state.deadline) {
        (0, _) => format!("drained{since}\n"),
        (left, Some(deadline)) => format!("draining{since}: {left} tasks left, until {deadline}\n"),
        (left, None) => format!("draining{since}: {left} tasks left\n"),
    }
}

fn nested(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match scalar(value) {
                    Some(scalar) => line(text, &format!("{indent}{key}: {scalar}")),
                    None => {
                        line(text, &format!("{indent}{key}:"));
                        nested(text, value, depth + 1);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match scalar(item) {
                    Some(scalar) => line(text, &format!("{indent}- {scalar}")),
                    None => {
                        line(text, &format!("{indent}-"));
                        nested(text, item, depth + 1);
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            line(
                text,
                &format!("{indent}{}", scalar(value).unwrap_or_default()),
            );
        }
    }
}

/// On one line, hidden characters shown: some of it came from elsewhere.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(shown::line(value).into_owned()),
        Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        Value::Object(fields) if fields.is_empty() => Some("none".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_failed_comes_first_with_what_to_do() {
        let text = checks(&[
            Check::good("disk", Severity::Warning, "80 GB free"),
            Check::bad("docker", Severity::Error, "does not answer")
                .cause("permission denied")
                .fix("add the user to the group `docker`"),
        ]);
        assert_eq!(
            text,
            "FAILED   docker               does not answer\n         cause: permission denied\n         fix:   add the user to the group `docker`\n         more:  docs/operations.md#docker\nok       disk                 80 GB free\n"
        );
    }

    #[test]
    fn a_status_is_a_list_of_keys_and_hostile_text_stays_on_its_line() {
        let text = value(&json!({"link": {"state": "live\u{1b}[31m\nx\u{202e}"}, "tasks": []}));
        assert_eq!(
            text,
            "link:\n  state: live\\x1b[31m\\nx\\u{202e}\ntasks: none\n"
        );
    }

    #[test]
    fn what_a_hostile_agent_said_is_a_cause_and_no_command_to_the_terminal() {
        let hostile = "\u{1}\u{1b}[2Jgone\nok       all  is well";
        let check = Check::bad("agent_silent", Severity::Warning, hostile)
            .cause(hostile)
            .fix(hostile);
        let text = checks(&[check]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.replace('\n', "").contains(shown::is_hidden), "{text}");
    }
}
