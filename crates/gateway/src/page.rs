//! The gateway's own answers: a small page for a person, [`Problem`] as JSON for a program.

use crate::{answer::write_status, request::line};
use std::io::Write as _;
use wire::problem::Problem;

/// A year, and for each host apart: what else is below the domain is not ours to say.
const STRICT_TRANSPORT: &[u8] = b"max-age=31536000";

/// One answer of our own.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) status: u16,
    pub(crate) problem: Problem,
    /// Seconds after which it is worth another try; a page reloads itself then.
    pub(crate) retry_after: Option<u32>,
    pub(crate) location: Option<String>,
    pub(crate) cookie: Option<String>,
    /// A button for a person.
    pub(crate) button: Option<Button>,
}

/// Sends an empty form to a path of the same site.
#[derive(Debug)]
pub(crate) struct Button {
    pub(crate) label: &'static str,
    pub(crate) action: String,
}

impl Notice {
    pub(crate) fn new(status: u16, problem: Problem) -> Self {
        Self {
            status,
            problem,
            retry_after: None,
            location: None,
            cookie: None,
            button: None,
        }
    }

    pub(crate) fn redirect(status: u16, location: String) -> Self {
        Self {
            location: Some(location),
            ..Self::new(
                status,
                Problem::new("redirect", "go on at the location given"),
            )
        }
    }
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) html: bool,
    pub(crate) is_head: bool,
    pub(crate) close: bool,
    /// Browsers are told to come back by https alone.
    pub(crate) https: bool,
}

pub(crate) fn write(out: &mut Vec<u8>, notice: &Notice, form: Form) {
    let body = if form.html {
        html(notice)
    } else {
        // Strings alone: this cannot fail.
        serde_json::to_string(&notice.problem).unwrap_or_default()
    };
    out.clear();
    write_status(out, notice.status, reason(notice.status));
    line(
        out,
        "content-type",
        if form.html {
            b"text/html; charset=utf-8"
        } else {
            b"application/json"
        },
    );
    drop(write!(out, "content-length: {}\r\n", body.len()));
    // Without a referrer, browsers send a form with the origin `null`, as they do for another site's.
    // And some hold `form-action` against what the app redirects to in the end.
    let (referrer, forms) = match notice.button {
        Some(_) => ("same-origin", ""),
        None => ("no-referrer", "; form-action 'none'"),
    };
    drop(write!(
        out,
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: {referrer}\r\n\
         content-security-policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'{forms}\r\n\
         vary: accept, cookie\r\n",
    ));
    if form.https {
        line(out, "strict-transport-security", STRICT_TRANSPORT);
    }
    if let Some(seconds) = notice.retry_after {
        drop(write!(out, "retry-after: {seconds}\r\n"));
        if form.html {
            drop(write!(out, "refresh: {seconds}\r\n"));
        }
    }
    if notice.status == 401 {
        line(out, "www-authenticate", b"Gitspaces-Grant");
    }
    if notice.status == 405 {
        line(
            out,
            "allow",
            b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        );
    }
    if let Some(location) = &notice.location {
        line(out, "location", location.as_bytes());
    }
    if let Some(cookie) = &notice.cookie {
        line(out, "set-cookie", cookie.as_bytes());
    }
    if form.close {
        line(out, "connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    if !form.is_head {
        out.extend_from_slice(body.as_bytes());
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

fn html(notice: &Notice) -> String {
    let problem = &notice.problem;
    let paragraph = |class: &str, text: &Option<String>| {
        text.as_ref()
            .map(|text| format!("<p class=\"{class}\">{}</p>", marked(text)))
            .unwrap_or_default()
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;\
         margin:15vh auto;padding:0 1.5rem}}h1{{font-size:1.4rem}}.cause{{white-space:pre-wrap;font-family:ui-monospace,monospace;\
         font-size:.9rem}}button{{font:inherit;padding:.4rem 1.2rem}}.code{{opacity:.6;font-size:.85rem}}</style><h1>{heading}</h1>{cause}{hint}{button}<p class=\"code\">{code}</p></html>",
        title = escape(&capitalised(&problem.message).replace('`', "")),
        heading = marked(&capitalised(&problem.message)),
        cause = paragraph("cause", &problem.cause),
        hint = paragraph("hint", &problem.hint.as_deref().map(capitalised)),
        button = notice.button.as_ref().map(form).unwrap_or_default(),
        code = escape(&problem.code),
    )
}

fn form(button: &Button) -> String {
    format!(
        "<form method=\"post\" action=\"{}\"><button autofocus>{}</button></form>",
        escape(&button.action),
        escape(button.label)
    )
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// What stands between two backticks is a name or a command.
fn marked(text: &str) -> String {
    let escaped = escape(text);
    let parts: Vec<&str> = escaped.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped;
    }
    let mut marked = String::with_capacity(escaped.len() + 13 * (parts.len() / 2));
    for (index, part) in parts.into_iter().enumerate() {
        if index.is_multiple_of(2) {
            marked.push_str(part);
        } else {
            marked.push_str(&format!("<code>{part}</code>"));
        }
    }
    marked
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_page_is_taken_for_markup() {
        let notice = Notice::new(
            502,
            Problem::new("x", "it broke").cause("<script>alert('1')</script> & \"more\""),
        );
        let mut out = Vec::new();
        let form = Form {
            https: false,
            html: true,
            is_head: false,
            close: false,
        };
        write(&mut out, &notice, form);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("<script>"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(&#39;1&#39;)"), "{text}");
        assert!(text.contains("<h1>It broke</h1>"), "{text}");
    }

    #[test]
    fn names_are_set_apart_and_a_lone_backtick_is_one() {
        let page = |message: &str| html(&Notice::new(503, Problem::new("x", message)));
        let named = page("the gitspace `a<b` is starting");
        assert!(
            named.contains("<title>The gitspace a&lt;b is starting</title>"),
            "{named}"
        );
        assert!(
            named.contains("<h1>The gitspace <code>a&lt;b</code> is starting</h1>"),
            "{named}"
        );
        assert!(page("it`s odd").contains("<h1>It`s odd</h1>"));
    }
}
