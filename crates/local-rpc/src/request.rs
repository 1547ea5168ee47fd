//! Reading a request within limits.

use crate::respond::{Body, problem};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;
use wire::problem::Problem;

/// How long a client may take to send a body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// What is wrong with a request, in words for its sender.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the request body did not arrive within {} s", limit.as_secs())]
    Slow { limit: Duration },
    #[error("the request body cannot be read")]
    Aborted {
        #[source]
        source: crate::BoxError,
    },
    #[error("the request body is not what this call takes: {}{message}", at(path))]
    Json { path: String, message: String },
    #[error("the query is not what this call takes: {}{message}", at(path))]
    Query { path: String, message: String },
    #[error("this call needs an upgrade to `{protocol}`")]
    UpgradeRequired { protocol: &'static str },
}

fn at(path: &str) -> String {
    if path.is_empty() || path == "." {
        String::new()
    } else {
        format!("at `{path}`: ")
    }
}

impl RequestError {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Aborted { .. } | Self::Json { .. } | Self::Query { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::UpgradeRequired { .. } => StatusCode::UPGRADE_REQUIRED,
        }
    }

    #[must_use]
    pub fn problem(&self) -> Problem {
        let (code, cause) = match self {
            Self::TooLarge { .. } => ("body_too_large", None),
            Self::Slow { .. } => ("body_too_slow", None),
            Self::Aborted { source } => ("body_aborted", Some(source.to_string())),
            Self::Json { .. } => ("invalid_body", None),
            Self::Query { .. } => ("invalid_query", None),
            Self::UpgradeRequired { .. } => ("upgrade_required", None),
        };
        let problem = Problem::new(code, self.to_string());
        match cause {
            Some(cause) => problem.cause(cause),
            None => problem,
        }
    }

    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = problem(self.status(), &self.problem());
        if let Self::UpgradeRequired { protocol } = self {
            response
                .headers_mut()
                .insert(header::UPGRADE, http::HeaderValue::from_static(protocol));
        }
        response
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// `413` over the limit, `408` after [`BODY_DEADLINE`], `400` where it breaks off.
pub async fn read_bytes<B>(body: B, limit: usize) -> Result<Bytes, RequestError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<crate::BoxError>,
{
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, limit).collect())
        .await
        .map_err(|_| RequestError::Slow {
            limit: BODY_DEADLINE,
        })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestError::TooLarge { limit }),
        Err(source) => Err(RequestError::Aborted { source }),
    }
}

/// Reads a JSON body of at most `limit` bytes; an empty body reads as `null`. The content type is not looked at, so
/// that `curl -d` is enough.
///
/// # Errors
/// As [`read_bytes`], and `400` with the path of the offending key.
pub async fn read_json<T, B>(request: Request<B>, limit: usize) -> Result<T, RequestError>
where
    T: DeserializeOwned,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<crate::BoxError>,
{
    let declared = content_length(request.headers());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(RequestError::TooLarge { limit });
    }
    let bytes = read_bytes(request.into_body(), limit).await?;
    decode_json(&bytes).map_err(|(path, message)| RequestError::Json { path, message })
}

/// The path and the words of what is wrong.
pub(crate) fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (String, String)> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))?;
    deserializer
        .end()
        .map_err(|error| (String::new(), error.to_string()))?;
    Ok(value)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The segments of a path, for a match by the caller: `["v1", "tasks", id]`.
///
/// They are not percent-decoded: the paths of local APIs hold ids and fixed words only.
#[must_use]
pub fn segments(uri: &Uri) -> Vec<&str> {
    uri.path().trim_start_matches('/').split('/').collect()
}

/// The value of a key of the query, decoded; the first where there are more.
#[must_use]
pub fn query_param(uri: &Uri, name: &str) -> Option<String> {
    url::form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The value of a key of the query as a number or whatever else `T` parses from.
///
/// # Errors
/// `400` where it does not parse.
pub fn query_value<T>(uri: &Uri, name: &str) -> Result<Option<T>, RequestError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    query_param(uri, name)
        .map(|value| {
            value.parse().map_err(|error: T::Err| RequestError::Query {
                path: name.to_owned(),
                message: error.to_string(),
            })
        })
        .transpose()
}
