//! Who answers HTTP where a control plane should.

use crate::ask::IS_TLS;
use http::{Response, StatusCode, header};
use std::fmt;
use wire::{problem::Problem, shown};

/// Of an answer that is not ours.
const MAX_QUOTE: usize = 120;
/// What a gateway says of a host that is no gitspace's.
const UNKNOWN_HOST: &str = "unknown_host";
/// What a gateway asks of whoever comes to a gitspace without a grant.
const GRANT: &str = "Gitspaces-Grant";

/// Known by its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// One of ours: the two are easily mistaken for each other.
    Gateway,
    /// A server that speaks TLS there, and says so to whoever does not.
    Tls,
    Redirect {
        status: StatusCode,
        location: String,
    },
    Other {
        status: StatusCode,
        quote: String,
    },
}

impl Stranger {
    pub(crate) fn is_gateway<B: AsRef<[u8]>>(answer: &Response<B>) -> bool {
        let asks_for_grant = answer
            .headers()
            .get(header::WWW_AUTHENTICATE)
            .is_some_and(|scheme| scheme == GRANT);
        asks_for_grant
            || serde_json::from_slice::<Problem>(answer.body().as_ref())
                .is_ok_and(|problem| problem.code == UNKNOWN_HOST)
    }

    pub(crate) fn of<B: AsRef<[u8]>>(answer: &Response<B>) -> Self {
        if Self::is_gateway(answer) {
            return Self::Gateway;
        }
        let status = answer.status();
        let location = answer
            .headers()
            .get(header::LOCATION)
            .filter(|_| status.is_redirection())
            .and_then(|location| location.to_str().ok());
        match location {
            Some(location) => Self::Redirect {
                status,
                location: cut(location),
            },
            None => Self::Other {
                status,
                quote: cut(String::from_utf8_lossy(answer.body().as_ref()).trim()),
            },
        }
    }

    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Gateway => "give the control plane's URL: it is where `gitspace login` goes, and by default its port is 7070".to_owned(),
            Self::Tls => IS_TLS.to_owned(),
            Self::Redirect { .. } => {
                "give the URL that it leads to in the end, without a path".to_owned()
            }
            Self::Other { .. } => "check the URL: host and port of the control plane, without a path; `curl URL/api/v1/version` shows whether it is one".to_owned(),
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("a gateway answers there"),
            Self::Tls => f.write_str("that port speaks TLS"),
            Self::Redirect { status, location } => {
                write!(f, "it answers {status} and sends on to `{location}`")
            }
            Self::Other { status, quote } if quote.is_empty() => {
                write!(f, "it answers {status} and says nothing")
            }
            Self::Other { status, quote } => write!(f, "it answers {status}: {quote}"),
        }
    }
}

/// On one line, hidden characters shown.
fn cut(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTE).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", shown::line(&short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: Option<(&str, &str)>, body: &str) -> Response<Vec<u8>> {
        let mut builder = Response::builder().status(status);
        if let Some((name, value)) = header {
            builder = builder.header(name, value);
        }
        builder.body(body.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_gateway_is_known_by_either_of_its_answers() {
        for gateway in [
            answer(404, None, r#"{"code":"unknown_host","message":"x"}"#),
            answer(401, Some(("www-authenticate", "Gitspaces-Grant")), "<p>"),
        ] {
            assert_eq!(Stranger::of(&gateway), Stranger::Gateway);
        }
        let other = answer(404, None, r#"{"code":"no_route","message":"x"}"#);
        assert!(!Stranger::is_gateway(&other));
    }

    #[test]
    fn another_server_is_quoted_on_one_short_line_and_a_redirect_by_its_end() {
        let page = format!("<html>\n\u{1b}[2J{}", "x".repeat(5_000));
        let said = Stranger::of(&answer(501, None, &page)).to_string();
        assert!(
            said.starts_with("it answers 501 Not Implemented: <html>")
                && said.len() < 250
                && !said.contains(['\n', '\u{1b}']),
            "{said}"
        );
        let moved = answer(301, Some(("location", "https://there.example/")), "");
        let said = Stranger::of(&moved).to_string();
        assert!(
            said.ends_with("sends on to `https://there.example/`"),
            "{said}"
        );
    }
}
