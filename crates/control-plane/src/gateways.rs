//! Gateways: what they hear over their link, the exchange of one-time codes for grants, and of SSH credentials, the next grant of what is still
//! open, and the start of what somebody came to.

pub(crate) mod connect;
pub(crate) mod exchange;
pub(crate) mod feed;
mod held;
pub(crate) mod offers;
pub(crate) mod renew;
pub(crate) mod ssh;
pub(crate) mod wake;

use crate::{
    api::{error::ApiError, guard::PeerAddress},
    identity::caller::{bearer, refuse},
    state::AppState,
};
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::net::{IpAddr, Ipv4Addr};
use store::GatewayRecord;
use token::{OpaqueToken, TokenHash, TokenKind};

/// The gateway whose token the request has. Nothing else of the request is read before.
#[derive(Clone, Debug)]
pub(crate) struct Gateway(GatewayRecord);

impl FromRequestParts<AppState> for Gateway {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<PeerAddress>();
        let from = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        let token = bearer(&parts.headers)
            .and_then(|text| OpaqueToken::parse(text, TokenKind::Gateway).ok());
        let Some(token) = token else {
            return Err(refuse(state, from));
        };
        let hash = token.hash();
        let found = state.store.gateway_by_hash(hash.as_bytes()).await?;
        found
            .filter(|gateway| TokenHash::from_bytes(gateway.token_hash) == hash)
            .map(Self)
            .ok_or_else(|| refuse(state, from))
    }
}
