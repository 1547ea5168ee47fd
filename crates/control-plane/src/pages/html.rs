//! The frame of every page, and escaping.

use crate::{api::error::ApiError, state::AppState};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

pub(super) const STYLE_PATH: &str = "/assets/pages.css";

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;min-height:100vh}
main{width:min(32rem,90vw);padding:2rem 0}
h1{font-size:1.4rem}
label,input,button{display:block;font:inherit}
input{width:100%;box-sizing:border-box;padding:.5rem;margin:.3rem 0 1rem}
button{padding:.5rem 1.2rem}
li{margin:.4rem 0}
.error{color:#b3261e}
.hint{opacity:.75}
";

/// Text as it stands in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A whole page. `body` is HTML; `title` is text.
pub(super) fn page(state: &AppState, status: StatusCode, title: &str, body: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} · Gitspaces</title>\
         <link rel=\"stylesheet\" href=\"{STYLE_PATH}\"></head><body><main><h1>{title}</h1>\n{body}\n</main></body></html>\n"
    );
    let mut response = (
        status,
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        html,
    )
        .into_response();
    // A form's redirects count as its action, and the login's go on to gitspaces.
    let gateways = state.gateway_origins.wildcard();
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {gateways}; frame-ancestors 'none'; base-uri 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
        .headers_mut()
        .insert("x-frame-options", HeaderValue::from_static("DENY"));
    response
}

/// A page that says why it is none.
pub(super) fn problem(state: &AppState, status: StatusCode, what: &str, hint: &str) -> Response {
    let body = format!(
        "<p class=\"error\">{}</p><p class=\"hint\">{}</p><p><a href=\"/\">Your gitspaces</a></p>",
        escape(what),
        escape(hint)
    );
    page(state, status, "This did not work", &body)
}

/// The page for an error of the API's kind.
pub(super) fn error_page(state: &AppState, error: &ApiError) -> Response {
    let status = error.status();
    if status.is_server_error() {
        tracing::error!(error = %daemon::ErrorChain(error), %status, "Page failed");
        return problem(
            state,
            status,
            "The control plane could not do this",
            "Try again in a moment",
        );
    }
    problem(state, status, &error.to_string(), "Go back and try again")
}

/// To a path or URL made here.
pub(super) fn redirect(status: StatusCode, to: &str) -> Response {
    match HeaderValue::try_from(to) {
        Ok(value) => (status, [(header::LOCATION, value)]).into_response(),
        Err(error) => ApiError::internal("making a redirect", error).into_response(),
    }
}

pub(super) async fn style() -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/css; charset=utf-8"),
            (header::CACHE_CONTROL, "public, max-age=3600"),
        ],
        STYLE,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_from_an_element_or_a_quoted_attribute() {
        for text in [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "' onfocus='alert(1)",
            "</title><script>",
            "<!--",
            "\u{0}<\u{1b}",
        ] {
            let escaped = escape(text);
            assert!(
                !escaped.contains(['<', '>', '"', '\'', '\u{0}', '\u{1b}']),
                "{escaped}"
            );
        }
        assert_eq!(escape("a & b"), "a &amp; b");
    }
}
