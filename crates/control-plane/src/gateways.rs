//! Gateways: what they hear over their link, and the exchange of one-time codes for grants.

pub(crate) mod connect;
pub(crate) mod exchange;
pub(crate) mod feed;

use crate::{
    api::error::ApiError,
    identity::caller::{bearer, refuse},
    state::AppState,
};
use http::HeaderMap;
use std::net::IpAddr;
use store::GatewayRecord;
use token::{OpaqueToken, TokenHash, TokenKind};

/// The gateway whose token the request has.
async fn authenticate(
    state: &AppState,
    headers: &HeaderMap,
    from: IpAddr,
) -> Result<GatewayRecord, ApiError> {
    let token = bearer(headers).and_then(|text| OpaqueToken::parse(text, TokenKind::Gateway).ok());
    let Some(token) = token else {
        return Err(refuse(state, from));
    };
    let hash = token.hash();
    let found = state.store.gateway_by_hash(hash.as_bytes()).await?;
    found
        .filter(|gateway| TokenHash::from_bytes(gateway.token_hash) == hash)
        .ok_or_else(|| refuse(state, from))
}
