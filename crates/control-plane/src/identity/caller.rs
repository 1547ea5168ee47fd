//! From a request's credentials to the user behind it.

use super::sessions;
use crate::{api::error::ApiError, state::AppState};
use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};
use std::net::IpAddr;
use store::UserRecord;
use token::{OpaqueToken, TokenHash, TokenKind};
use wire::{api::Role, ids::AccessTokenUuid};

/// How old `last_used` may be before it is written again: a write for each request would cost more than the request.
pub(crate) const TOUCH_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// Header in which a browser's script repeats its session's CSRF token.
pub(crate) const CSRF_HEADER: &str = "gitspaces-csrf";

/// An authenticated user. Made by [`authenticate`] alone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: UserRecord,
    pub(crate) via: Via,
}

#[derive(Clone, Debug)]
pub(crate) enum Via {
    Token { hash: TokenHash },
    Session { hash: TokenHash, csrf: String },
}

impl Caller {
    pub(crate) fn of_session(user: UserRecord, hash: TokenHash, csrf: String) -> Self {
        Self {
            user,
            via: Via::Session { hash, csrf },
        }
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.user.role == Role::Admin
    }

    pub(crate) fn require_admin(&self) -> Result<(), ApiError> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(ApiError::AdminOnly)
        }
    }

    /// Whether the credentials still hold: for answers that stay open.
    pub(crate) async fn still_valid(&self, state: &AppState) -> Result<bool, ApiError> {
        let now = state.now();
        let user = match &self.via {
            Via::Token { hash } => token_user(state, *hash, now).await?.map(|found| found.0),
            Via::Session { hash, .. } => sessions::find(state, *hash, now)
                .await?
                .map(|found| found.1),
        };
        Ok(user.is_some_and(|user| user.id == self.user.id))
    }
}

/// Who `headers` speak for. Every reason against gives the same answer.
pub(crate) async fn authenticate(
    state: &AppState,
    headers: &HeaderMap,
    from: IpAddr,
) -> Result<Caller, ApiError> {
    match credentials(state, headers).await? {
        Some(caller) => Ok(caller),
        None => Err(refuse(state, from)),
    }
}

/// Notes a failed authentication.
pub(crate) fn refuse(state: &AppState, from: IpAddr) -> ApiError {
    match state.failures.failed(from, state.clock.instant()) {
        Ok(()) => ApiError::Unauthenticated,
        Err(wait) => ApiError::TooManyFailures { wait },
    }
}

async fn credentials(state: &AppState, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    let now = state.now();
    if headers.contains_key(header::AUTHORIZATION) {
        // A token that does not hold is not made good by a cookie.
        let Some(text) = bearer(headers) else {
            return Ok(None);
        };
        return by_token(state, text, now).await;
    }
    let Some(token) = sessions::cookie(state, headers) else {
        return Ok(None);
    };
    let hash = token.hash();
    Ok(sessions::find(state, hash, now)
        .await?
        .map(|(session, user)| Caller {
            user,
            via: Via::Session {
                hash,
                csrf: session.csrf,
            },
        }))
}

/// The bearer token, where there is exactly one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// The user of a personal access token, or of the bootstrap token, that holds.
pub(crate) async fn by_token(
    state: &AppState,
    text: &str,
    now: Timestamp,
) -> Result<Option<Caller>, ApiError> {
    let parsed = OpaqueToken::parse(text, TokenKind::PersonalAccess)
        .or_else(|_| OpaqueToken::parse(text, TokenKind::Bootstrap));
    let Ok(token) = parsed else {
        return Ok(None);
    };
    let hash = token.hash();
    let Some((user, id, last_used)) = token_user(state, hash, now).await? else {
        return Ok(None);
    };
    if last_used.is_none() && token.kind() == TokenKind::PersonalAccess {
        state.bootstrap.first_use_of_another(&user).await;
    }
    if last_used.is_none_or(|used| now.duration_since(used) >= TOUCH_EVERY) {
        // Nobody should be kept out because a statistic cannot be written.
        if let Err(error) = state.store.touch_access_token(id, now).await {
            tracing::warn!(error = %daemon::ErrorChain(&error), "Cannot note the use of a token");
        }
    }
    Ok(Some(Caller {
        user,
        via: Via::Token { hash },
    }))
}

async fn token_user(
    state: &AppState,
    hash: TokenHash,
    now: Timestamp,
) -> Result<Option<(UserRecord, AccessTokenUuid, Option<Timestamp>)>, ApiError> {
    let Some((record, user)) = state.store.access_token_by_hash(hash.as_bytes()).await? else {
        return Ok(None);
    };
    let holds = TokenHash::from_bytes(record.hash) == hash
        && !record.revoked
        && record.exp > now
        && !user.disabled;
    Ok(holds.then_some((user, record.id, record.last_used)))
}
