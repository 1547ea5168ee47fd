//! Browser sessions: an opaque token in a host-only, `HttpOnly`, `SameSite=Lax` cookie.

use crate::{api::error::ApiError, state::AppState};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use std::time::Duration;
use store::{SessionRecord, UserRecord};
use token::{OpaqueToken, TokenHash, TokenKind};

/// A working day; then the browser logs in again.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// `__Host-` makes browsers refuse the cookie from other hosts, but they take it over https alone.
fn cookie_name(state: &AppState) -> &'static str {
    if state.public.is_https() {
        "__Host-gitspaces-session"
    } else {
        "gitspaces-session"
    }
}

/// The session's token of a request, where there is exactly one of the form.
pub(crate) fn cookie(state: &AppState, headers: &HeaderMap) -> Option<OpaqueToken> {
    let name = cookie_name(state);
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    OpaqueToken::parse(value, TokenKind::Session).ok()
}

/// Session and user, where both hold.
pub(crate) async fn find(
    state: &AppState,
    hash: TokenHash,
    now: Timestamp,
) -> Result<Option<(SessionRecord, UserRecord)>, ApiError> {
    let found = state.store.session_by_hash(hash.as_bytes()).await?;
    Ok(found.filter(|(session, user)| session.exp > now && !user.disabled))
}

/// Begins a session of `user`; answers with the `Set-Cookie` value.
pub(crate) async fn begin(state: &AppState, user: &UserRecord) -> Result<HeaderValue, ApiError> {
    let token = OpaqueToken::generate(TokenKind::Session)
        .map_err(|error| ApiError::internal("making a session", error))?;
    let mut csrf = [0; 24];
    getrandom::fill(&mut csrf).map_err(|error| ApiError::internal("making a session", error))?;
    let now = state.now();
    state
        .store
        .create_session(&SessionRecord {
            hash: *token.hash().as_bytes(),
            user: user.id,
            csrf: BASE64URL_NOPAD.encode(&csrf),
            exp: now.checked_add(SESSION_LIFE).unwrap_or(Timestamp::MAX),
            created: now,
        })
        .await?;
    set_cookie(state, token.expose(), SESSION_LIFE.as_secs())
}

/// The `Set-Cookie` value that makes the browser forget.
pub(crate) fn forget(state: &AppState) -> Result<HeaderValue, ApiError> {
    set_cookie(state, "", 0)
}

fn set_cookie(state: &AppState, value: &str, max_age: u64) -> Result<HeaderValue, ApiError> {
    let name = cookie_name(state);
    let secure = if state.public.is_https() {
        "; Secure"
    } else {
        ""
    };
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}");
    let mut value = HeaderValue::try_from(text)
        .map_err(|error| ApiError::internal("making a cookie", error))?;
    value.set_sensitive(true);
    Ok(value)
}
