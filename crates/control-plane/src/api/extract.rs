//! Reading requests: bodies, queries, path parameters, the caller. Every refusal is a [`Problem`](wire::problem::Problem).

use super::error::ApiError;
use crate::identity::caller::Caller;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::{header, request::Parts};
use serde::de::DeserializeOwned;
use std::time::Duration;
use wire::{
    api::{MAX_BODY, MAX_DEPTH},
    text::{SshKeyError, SshPublicKey},
};

/// For all of a body, which is small.
const BODY_LIMIT: Duration = Duration::from_secs(30);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(ApiError::Unauthenticated)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for super::guard::Trace {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or(ApiError::NoRoute)
    }
}

/// A parameter of the path; what cannot be one does not exist.
#[derive(Clone, Debug)]
pub(crate) struct Param<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Param<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<T>::from_request_parts(parts, state)
            .await
            .map(|Path(value)| Self(value))
            .map_err(|_| ApiError::NotFound {
                what: "resource of that name or id",
            })
    }
}

/// The query.
#[derive(Clone, Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|error| ApiError::invalid("the query", error.body_text()))
    }
}

/// The JSON body. An empty one is `{}`.
#[derive(Clone, Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                let essence = value.split(';').next().unwrap_or_default().trim();
                essence.eq_ignore_ascii_case("application/json")
            });
        let bytes = read_body(request).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !is_json {
            return Err(ApiError::ContentType);
        }
        parse(&bytes).map(Self)
    }
}

/// All of the body, which is small.
pub(crate) async fn read_body(request: Request) -> Result<bytes::Bytes, ApiError> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_BODY) {
        return Err(ApiError::BodyTooLarge);
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY);
    tokio::time::timeout(BODY_LIMIT, body)
        .await
        .map_err(|_| {
            let seconds = BODY_LIMIT.as_secs();
            ApiError::invalid("the body", format!("it did not come within {seconds} s"))
        })?
        .map_err(|error| {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                if error.is::<http_body_util::LengthLimitError>() {
                    return ApiError::BodyTooLarge;
                }
                cause = error.source();
            }
            ApiError::invalid("the body", "it ended before its end")
        })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if depth_exceeds(bytes, MAX_DEPTH) {
        return Err(ApiError::TooDeep);
    }
    let any: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid("the body", error.to_string()))?;
    check_text(&any, "")?;
    // From the bytes again: a value keeps only the last of two equal keys, and these are refused.
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner().to_string();
        if path == "." {
            ApiError::invalid("the body", why)
        } else {
            ApiError::invalid(format!("`{path}`"), why)
        }
    })
}

/// Whether brackets outside of strings nest deeper than `limit`.
fn depth_exceeds(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Nothing that this API takes needs control characters; in logs and terminals they lie about what is written.
fn check_text(value: &serde_json::Value, at: &str) -> Result<(), ApiError> {
    use serde_json::Value;
    match value {
        Value::String(text) => match text.chars().find(|c| is_deceptive(*c)) {
            // Their line breaks would be all that is said of them.
            Some(_) if SshPublicKey::parse_line(text) == Err(SshKeyError::Private) => {
                Err(ApiError::Invalid {
                    what: format!("`{at}`"),
                    why: SshKeyError::Private.to_string(),
                    hint: Some(SshKeyError::Private.hint().to_owned()),
                })
            }
            Some(found) => Err(ApiError::invalid(
                format!("`{at}`"),
                format!("it holds the control character U+{:04X}", u32::from(found)),
            )),
            None => Ok(()),
        },
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check_text(item, &format!("{at}[{index}]"))),
        Value::Object(fields) => fields.iter().try_for_each(|(key, item)| {
            if key.chars().any(is_deceptive) {
                return Err(ApiError::invalid("a key", "it holds a control character"));
            }
            let at = if at.is_empty() {
                key.clone()
            } else {
                format!("{at}.{key}")
            };
            check_text(item, &at)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Control characters, and those that turn the direction of text around.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A short text for people: a comment, a token's name.
pub(crate) fn check_label(what: &str, text: &str, max: usize) -> Result<(), ApiError> {
    let length = text.chars().count();
    if text.trim().is_empty() || text.trim() != text {
        Err(ApiError::invalid(
            format!("`{what}`"),
            "it is empty, or has white space around it",
        ))
    } else if length > max {
        Err(ApiError::invalid(
            format!("`{what}`"),
            format!("it has {length} characters, more than {max}"),
        ))
    } else {
        Ok(())
    }
}

/// A name that is used in command lines, tags and URLs.
pub(crate) fn check_name(what: &str, text: &str, max: usize) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > max {
        Err(ApiError::invalid(
            format!("`{what}`"),
            format!("it has {} bytes; 1 to {max} are taken", text.len()),
        ))
    } else if !text.chars().all(plain) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Err(ApiError::invalid(
            format!("`{what}`"),
            "letters, digits, `.`, `_` and `-` are taken, the first one a letter or digit",
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::api::{CreateGitspace, CreateUser};

    #[test]
    fn depth_counts_brackets_outside_of_strings_only() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(!depth_exceeds(nested(32).as_bytes(), 32));
        assert!(depth_exceeds(nested(33).as_bytes(), 32));
        assert!(depth_exceeds("[".repeat(1_000_000).as_bytes(), 32));
        let text = format!("\"{}\\\"{}\"", "[".repeat(99), "{".repeat(99));
        assert!(!depth_exceeds(text.as_bytes(), 32));
    }

    #[test]
    fn what_is_not_the_request_is_refused_with_its_place() {
        for body in [
            r#"{"name":"a","role":"admin","x":1}"#,
            r#"{"name":"a","name":"b","role":"admin"}"#,
            r#"{"name":"a","role":"root"}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a\u0000","role":"admin"}"#,
            r#"{"name":"a\u001b[31m","role":"admin"}"#,
            r#"{"name":"a\u202eb","role":"admin"}"#,
            r#"{"name":7,"role":"admin"}"#,
            "[]",
            "null",
            "{",
            "\u{0}",
            r#"{"name":"a","role":"admin"} x"#,
        ] {
            assert!(parse::<CreateUser>(body.as_bytes()).is_err(), "took {body}");
        }
        let error = parse::<CreateGitspace>(br#"{"repo":{"url":"ext::sh"}}"#).unwrap_err();
        assert!(error.to_string().contains("repo.url"), "{error}");
    }
}
