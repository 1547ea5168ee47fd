//! Every error answer of the API: one enum, a stable code and a status for each.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use daemon::ErrorChain;
use http::{HeaderValue, StatusCode, header};
use std::time::Duration;
use store::StoreError;
use wire::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the request is not authenticated")]
    Unauthenticated,
    #[error("too many failed authentications from this address")]
    TooManyFailures { wait: Duration },
    #[error("only an administrator may do this")]
    AdminOnly,
    #[error("the request does not come from a page of this control plane")]
    CrossSite,
    #[error("no such {what}")]
    NotFound { what: &'static str },
    #[error("no such path")]
    NoRoute,
    #[error("the path does not take this method")]
    Method,
    #[error("{what} is not taken")]
    Invalid {
        what: String,
        why: String,
        hint: Option<String>,
    },
    #[error("the body is larger than {} bytes", wire::api::MAX_BODY)]
    BodyTooLarge,
    #[error("the body is not declared as application/json")]
    ContentType,
    #[error("the body is JSON deeper than {} levels", wire::api::MAX_DEPTH)]
    TooDeep,
    #[error("{what} is taken")]
    Taken { what: String, hint: Option<String> },
    #[error("{what} is in use")]
    InUse { what: String, why: String },
    /// A gitspace does not take an action from where it is.
    #[error("{message}")]
    Refused {
        code: &'static str,
        message: String,
        why: Option<String>,
        hint: Option<String>,
    },
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("the request with this idempotency key is still being carried out")]
    KeyInProgress,
    #[error("the host `{host}` is not served here")]
    Misdirected { host: String },
    #[error("the delegate is not enrolled")]
    EnrolmentDenied {
        code: &'static str,
        why: String,
        hint: &'static str,
    },
    #[error("the delegate's key is not taken: {why}")]
    DelegateKey {
        code: &'static str,
        why: String,
        hint: Option<String>,
    },
    #[error("the one-time code is not taken")]
    CodeRefused,
    #[error("the SSH credential is not taken")]
    SshRefused,
    #[error("the grant is not taken")]
    GrantRefused,
    #[error("the gitspace is not started")]
    NotWoken { why: String },
    #[error("{what} is not available")]
    Unavailable {
        what: &'static str,
        why: String,
        hint: Option<String>,
    },
    #[error("too many {what} are open")]
    TooMany { what: &'static str },
    #[error("the database does not do this")]
    Store(#[source] StoreError),
    #[error("internal error: {doing} failed")]
    Internal {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<StoreError> for ApiError {
    fn from(source: StoreError) -> Self {
        Self::Store(source)
    }
}

impl ApiError {
    pub(crate) fn internal(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal {
            doing,
            source: source.into(),
        }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
            hint: None,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::TooManyFailures { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::AdminOnly
            | Self::CrossSite
            | Self::EnrolmentDenied { .. }
            | Self::DelegateKey { .. } => StatusCode::FORBIDDEN,
            Self::NotFound { .. }
            | Self::NoRoute
            | Self::CodeRefused
            | Self::SshRefused
            | Self::GrantRefused => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Invalid { .. } | Self::TooDeep => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Taken { .. }
            | Self::InUse { .. }
            | Self::Refused { .. }
            | Self::NotWoken { .. }
            | Self::KeyInProgress => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable { .. } | Self::TooMany { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) => match error {
                StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
                StoreError::Conflict { .. } => StatusCode::CONFLICT,
                StoreError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
                StoreError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
                StoreError::Corrupt { .. } | StoreError::Other { .. } => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::AdminOnly => "admin_only",
            Self::CrossSite => "cross_site",
            Self::NotFound { .. } => "not_found",
            Self::NoRoute => "no_route",
            Self::Method => "method_not_allowed",
            Self::Invalid { .. } => "invalid",
            Self::BodyTooLarge => "body_too_large",
            Self::ContentType => "content_type",
            Self::TooDeep => "json_too_deep",
            Self::Taken { .. } => "taken",
            Self::InUse { .. } => "in_use",
            Self::Refused { code, .. }
            | Self::EnrolmentDenied { code, .. }
            | Self::DelegateKey { code, .. } => code,
            Self::KeyReused => "idempotency_key_reused",
            Self::KeyInProgress => "idempotency_key_in_progress",
            Self::Misdirected { .. } => "misdirected",
            Self::CodeRefused => "code_refused",
            Self::SshRefused => "ssh_refused",
            Self::GrantRefused => "grant_refused",
            Self::NotWoken { .. } => "not_woken",
            Self::Unavailable { .. } => "unavailable",
            Self::TooMany { .. } => "too_many",
            Self::Store(error) => match error {
                StoreError::NotFound { .. } => "not_found",
                StoreError::Conflict { .. } => "conflict",
                StoreError::Unavailable { .. } => "database_unavailable",
                StoreError::Full { .. } => "disk_full",
                StoreError::Corrupt { .. } | StoreError::Other { .. } => "internal",
            },
            Self::Internal { .. } => "internal",
        }
    }

    fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::Unauthenticated => problem
                .cause("there is no valid personal access token or session with it")
                .hint("send `Authorization: Bearer <personal access token>`; `gitspace login` keeps one, and where no administrator has one that holds, `gitspaces-control-plane admin-token` on the control plane's host makes one (`delegate-agent admin-token` where it is embedded)"),
            Self::TooManyFailures { wait } => {
                problem.hint(format!("try again in {} s", wait.as_secs().saturating_add(1)))
            }
            Self::AdminOnly => problem.hint("ask an administrator"),
            Self::CrossSite => problem.hint("a browser has to send this control plane's own Origin and the session's CSRF token"),
            Self::Invalid { why, hint, .. } => with_hint(problem.cause(why), hint.as_ref()),
            Self::Taken { hint, .. } => with_hint(problem, hint.as_ref()),
            Self::InUse { why, .. } => problem.cause(why),
            Self::Refused { why, hint, .. } => {
                let problem = match why {
                    Some(why) => problem.cause(why),
                    None => problem,
                };
                with_hint(problem, hint.as_ref())
            }
            Self::KeyReused => problem.hint("use a fresh key for each request that is not a repetition"),
            Self::KeyInProgress => problem.hint("send it again in a moment"),
            Self::Misdirected { .. } => problem.hint("set `public_url` to the name that users reach this control plane by"),
            Self::EnrolmentDenied { why, hint, .. } => problem.cause(why).hint(*hint),
            Self::DelegateKey { hint, .. } => with_hint(problem, hint.as_ref()),
            Self::CodeRefused => problem
                .cause("it is unknown, used, expired, or for another origin")
                .hint("open the gitspace again from the control plane"),
            Self::SshRefused => problem.cause("it is nobody's, or its user is disabled"),
            Self::GrantRefused => problem
                .cause("it is not one of this gateway's, has expired, or its user may not enter any more"),
            Self::NotWoken { why } => problem.cause(why).hint("start it with `gitspace start NAME`"),
            Self::Unavailable { why, hint, .. } => with_hint(problem.cause(why), hint.as_ref()),
            Self::TooMany { .. } => problem.hint("close some, or try again later"),
            Self::Store(error) => match error {
                StoreError::NotFound { .. } | StoreError::Conflict { .. } => {
                    Problem::new(self.code(), error.to_string())
                }
                StoreError::Unavailable { .. } => problem.cause(error.to_string()).hint("try again in a moment"),
                StoreError::Full { .. } => problem.cause(error.to_string()).hint("free space on the control plane's disk; then it works again by itself"),
                // What the database says can hold what users stored.
                StoreError::Corrupt { .. } | StoreError::Other { .. } => {
                    problem.hint("the control plane's log has the cause, under this answer's trace id")
                }
            },
            Self::Internal { .. } => problem.hint("the control plane's log has the cause, under this answer's trace id"),
            Self::NotFound { .. }
            | Self::NoRoute
            | Self::Method
            | Self::BodyTooLarge
            | Self::ContentType
            | Self::TooDeep => problem,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures { wait } => Some(wait.as_secs().saturating_add(1)),
            Self::KeyInProgress | Self::TooMany { .. } => Some(1),
            _ => None,
        }
    }
}

fn with_hint(problem: Problem, hint: Option<&String>) -> Problem {
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %ErrorChain(&self), %status, "Request failed");
        }
        let mut response = (status, Json(self.problem())).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"gitspaces\""),
            );
        }
        if let Some(seconds) = self.retry_after() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
