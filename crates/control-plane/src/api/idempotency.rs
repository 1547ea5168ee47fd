//! `Idempotency-Key`: a repeated POST gets the first answer and has no second effect.
//!
//! The claim is stored before the request is carried out, and the answer after it, sealed, because answers can hold tokens. A refused request
//! frees its key: nothing was done. An answer that shows a secret once is repeated for [`SECRET_REPEATED`] only, which is for a lost answer;
//! after that a repetition is told that it was shown. A request is finished although its client goes away. A claim whose process died is free again
//! after [`ABANDONED`]; a gitspace made under a key has an id made of that key, so that not even then a second one is made.

use super::{error::ApiError, extract::read_body};
use crate::{identity::caller::Caller, identity::seal::Label, state::AppState};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use store::{Claimed, IdempotencyClaim};
use wire::{api::IDEMPOTENCY_HEADER, ids::UserUuid};

const MAX_KEY: usize = 128;
/// No request takes as long.
const ABANDONED: Duration = Duration::from_secs(120);
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long an answer that is [`ShownOnce`] is repeated.
const SECRET_REPEATED: Duration = Duration::from_secs(5 * 60);
/// Before a kept answer that is [`ShownOnce`], and the time until which it is repeated. No JSON begins with it.
const SECRET_MARK: u8 = 1;
/// Answers to POSTs are small.
const MAX_ANSWER: usize = 1024 * 1024;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request that is carried out under one.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyKey(pub(crate) String);

/// Put on an answer with a secret that is not shown again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownOnce;

/// The answer as it is kept.
fn pack(body: &[u8], repeated_until: Option<Timestamp>) -> Vec<u8> {
    match repeated_until {
        None => body.to_vec(),
        Some(until) => {
            let mut packed = vec![SECRET_MARK];
            packed.extend(until.as_microsecond().to_be_bytes());
            packed.extend(body);
            packed
        }
    }
}

/// The answer, unless it is one that is not repeated any more.
fn unpack(packed: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, ApiError> {
    if packed.first() != Some(&SECRET_MARK) {
        return Ok(packed);
    }
    match packed.get(1..).and_then(<[u8]>::split_first_chunk) {
        Some((until, body)) if now.as_microsecond() < i64::from_be_bytes(*until) => {
            Ok(body.to_vec())
        }
        Some(_) => Err(ApiError::Refused {
            code: "shown_once",
            message: "what this request made exists, and its secret was shown".to_owned(),
            why: Some(format!(
                "an answer with a secret is repeated for {} minutes only",
                SECRET_REPEATED.as_secs() / 60
            )),
            hint: Some(
                "if its secret is lost, revoke it and make another, with a fresh idempotency key"
                    .to_owned(),
            ),
        }),
        None => Err(ApiError::internal(
            "reading a kept answer",
            "it is cut short",
        )),
    }
}

fn label<'a>(owner: &'a str, key: &'a str) -> Label<'a> {
    Label {
        what: "a kept answer",
        owner,
        name: key,
    }
}

/// Runs behind [`super::guard::authenticated`].
pub(crate) async fn idempotent(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    match run(&state, caller.user.id, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn run(
    state: &AppState,
    user: UserUuid,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if *request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let Some(key) = key_of(&request)? else {
        return Ok(next.run(request).await);
    };
    let (parts, body) = request.into_parts();
    let bytes = read_body(Request::new(body)).await?;
    let mut digest = Sha256::new();
    let target = parts.uri.to_string();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), &bytes] {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    let wanted: [u8; 32] = digest.finalize().into();
    let now = state.now();
    let claimed = state
        .store
        .claim_idempotency(&IdempotencyClaim {
            user,
            key: key.clone(),
            request: wanted,
            now,
            abandoned_before: now.checked_sub(ABANDONED).unwrap_or(now),
            exp: now.checked_add(KEPT).unwrap_or(now),
        })
        .await?;
    match claimed {
        Claimed::InProgress { request } | Claimed::Done { request, .. } if request != wanted => {
            Err(ApiError::KeyReused)
        }
        Claimed::InProgress { .. } => Err(ApiError::KeyInProgress),
        Claimed::Done { status, body, .. } => replay(state, user, &key, status, &body),
        Claimed::Fresh => {
            let mut request = Request::from_parts(parts, Body::from(bytes));
            request.extensions_mut().insert(IdempotencyKey(key.clone()));
            let job = carry_out(state.clone(), user, key.clone(), request, next);
            let span = tracing::Span::current();
            let job = state.jobs.spawn(tracing::Instrument::instrument(job, span));
            match job.await {
                Ok(answer) => answer,
                Err(error) => Err(ApiError::internal("carrying out the request", error)),
            }
        }
    }
}

fn key_of(request: &Request) -> Result<Option<String>, ApiError> {
    let mut values = request.headers().get_all(IDEMPOTENCY_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let plain = !text.is_empty()
        && text.len() <= MAX_KEY
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && values.next().is_none();
    if plain {
        Ok(Some(text.to_owned()))
    } else {
        Err(ApiError::invalid(
            "the idempotency key",
            format!("one of 1 to {MAX_KEY} visible ASCII characters is taken"),
        ))
    }
}

async fn carry_out(
    state: AppState,
    user: UserUuid,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let response = next.run(request).await;
    if !response.status().is_success() {
        // Only a refusal is known to have done nothing. After a fault the key stays claimed until it counts as abandoned.
        if response.status().is_client_error() {
            release(&state, user, &key).await;
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_ANSWER)
        .await
        .map_err(|error| ApiError::internal("keeping an answer", error))?;
    let owner = user.to_string();
    let until = parts
        .extensions
        .get::<ShownOnce>()
        .map(|ShownOnce| state.now() + SECRET_REPEATED);
    let kept = match state.seal.seal(label(&owner, &key), &pack(&bytes, until)) {
        Ok(sealed) => state
            .store
            .complete_idempotency(user, &key, parts.status.as_u16(), &sealed)
            .await
            .map_err(|error| ApiError::internal("keeping an answer", error)),
        Err(error) => Err(ApiError::internal("sealing an answer", error)),
    };
    if let Err(error) = kept {
        // The effect is there and so is its answer; only a repetition will be told to wait.
        tracing::error!(error = %daemon::ErrorChain(&error), "Cannot keep the answer of a request");
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

async fn release(state: &AppState, user: UserUuid, key: &str) {
    if let Err(error) = state.store.release_idempotency(user, key).await {
        tracing::warn!(error = %daemon::ErrorChain(&error), "Cannot free an idempotency key");
    }
}

fn replay(
    state: &AppState,
    user: UserUuid,
    key: &str,
    status: u16,
    sealed: &[u8],
) -> Result<Response, ApiError> {
    let owner = user.to_string();
    let body = state
        .seal
        .open(label(&owner, key), sealed)
        .map_err(|error| ApiError::internal("opening a kept answer", error))?;
    let body = unpack(body, state.now())?;
    let status = StatusCode::from_u16(status)
        .map_err(|error| ApiError::internal("reading a kept answer", error))?;
    let has_body = !body.is_empty();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if has_body {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    Ok(response)
}
