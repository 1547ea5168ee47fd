//! What every request goes through before its handler: trace id, host, credentials.

use super::error::ApiError;
use crate::{
    identity::caller::{CSRF_HEADER, Caller, Via, authenticate},
    state::AppState,
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use daemon::IdsExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use std::net::{IpAddr, Ipv4Addr};
use subtle::ConstantTimeEq as _;
use tracing::Instrument as _;
use wire::{api::TRACE_HEADER, ids::TraceUuid};

/// The trace id of this request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace(pub(crate) TraceUuid);

/// Where the request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

impl PeerAddress {
    /// The server puts it there; a router driven in the same process has none.
    pub(crate) fn of(request: &Request) -> IpAddr {
        request
            .extensions()
            .get::<Self>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
    }
}

/// Takes or makes the trace id, answers it, and puts it into the span of all that is logged meanwhile.
pub(crate) async fn trace(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let trace: TraceUuid = request
        .headers()
        .get(TRACE_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| state.ids.typed());
    request.extensions_mut().insert(Trace(trace));
    // The path as it was routed: the one that was asked for can hold anything.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("request", method = %request.method(), route, %trace);
    let mut response = next.run(request).instrument(span.clone()).await;
    tracing::debug!(parent: &span, status = response.status().as_u16(), "Request answered");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        headers.insert(HeaderName::from_static(TRACE_HEADER), value);
    }
    if state.public.is_strict() {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Refuses requests for hosts that are not ours: a page of somebody else's whose name was made to point here would send one.
pub(crate) async fn host(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut values = request.headers().get_all(header::HOST).iter();
    let named = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    let of_target = request.uri().authority().map(http::uri::Authority::as_str);
    let fine = named.is_some_and(|host| state.public.answers_to(host))
        && of_target.is_none_or(|host| state.public.answers_to(host));
    if fine {
        return next.run(request).await;
    }
    let host: String = named
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_graphic)
        .take(255)
        .collect();
    ApiError::Misdirected { host }.into_response()
}

/// Lets only authenticated callers through, and puts the [`Caller`] into the request.
pub(crate) async fn authenticated(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let from = PeerAddress::of(&request);
    let caller = match authenticate(&state, request.headers(), from).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    if let Err(error) = check_origin(&state, request.method(), request.headers(), &caller) {
        return error.into_response();
    }
    tracing::debug!(user = %caller.user.id, "Request authenticated");
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// A browser sends its cookie for any page: what changes something has to come from one of ours.
pub(crate) fn check_origin(
    state: &AppState,
    method: &Method,
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<(), ApiError> {
    let Via::Session { csrf, .. } = &caller.via else {
        return Ok(());
    };
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let sent = headers
        .get(CSRF_HEADER)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if is_own_origin(state, headers) && bool::from(sent.ct_eq(csrf.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::CrossSite)
    }
}

/// Whether the request says that it comes from a page of this control plane.
pub(crate) fn is_own_origin(state: &AppState, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(header::ORIGIN).is_some_and(|origin| state.public.is_same(origin, text(header::HOST)))
}
