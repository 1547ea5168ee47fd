//! Who may open a tunnel, and what is asked for it.

use crate::{gateway::Shared, judge::Verdict, page::Notice, request::Request};
use std::sync::Arc;
use token::TokenError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::{
    problem::Problem,
    tunnel::{SUBPROTOCOL, TICKET_PURPOSE, TunnelClaims},
};

/// A delegate that is let in.
#[derive(Debug)]
pub(crate) struct Entering {
    pub(crate) claims: Arc<TunnelClaims>,
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
}

impl Entering {
    /// The head that the WebSocket begins with.
    pub(crate) fn head(&self) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\
             sec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n",
            self.accept
        )
    }
}

pub(crate) fn enter(shared: &Shared, request: &Request<'_, '_>) -> Verdict {
    match check(shared, request) {
        Ok(entering) => Verdict::Enter(Box::new(entering)),
        Err(notice) => notice.into(),
    }
}

fn check(shared: &Shared, request: &Request<'_, '_>) -> Result<Entering, Notice> {
    if shared.tunnels.is_none() {
        let problem = Problem::new("no_tunnels", "this gateway takes no tunnels")
            .hint("set `tunnels = true` in its configuration");
        return Err(Notice::new(404, problem));
    }
    if shared.is_draining() {
        let problem = Problem::new("stopping", "the gateway is stopping");
        return Err(Notice::new(503, problem));
    }
    let refused = |code: &str, why: String| {
        let problem = Problem::new(code, why)
            .hint("the control plane gives each delegate new tickets; see its link");
        Notice::new(401, problem)
    };
    let ticket = request
        .only("authorization")
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| refused("ticket_required", "a tunnel needs a ticket".to_owned()))?;
    let now = shared.clock.now();
    let known = shared.known.read();
    if known.gateway.is_none() {
        let problem = Problem::new(
            "gateway_not_connected",
            "the gateway has not heard from its control plane yet",
        );
        return Err(Notice::new(503, problem));
    }
    let claims: TunnelClaims =
        token::verify(ticket, &known.keys, TICKET_PURPOSE, now).map_err(|error| match error {
            TokenError::Expired { .. } => refused("ticket_expired", error.to_string()),
            error => refused("ticket_invalid", error.to_string()),
        })?;
    if known.gateway != Some(claims.gateway) {
        return Err(refused(
            "ticket_other_gateway",
            "the ticket is for another gateway".to_owned(),
        ));
    }
    if now >= claims.exp {
        return Err(refused(
            "ticket_expired",
            "the ticket has expired".to_owned(),
        ));
    }
    if known.is_revoked(&claims) {
        return Err(refused(
            "delegate_revoked",
            "the delegate was revoked".to_owned(),
        ));
    }
    let asks = |name, wanted: &str| {
        request
            .only(name)
            .is_some_and(|value| value.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let is_websocket = request
        .upgrade
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && asks("sec-websocket-version", "13")
        && asks("sec-websocket-protocol", SUBPROTOCOL);
    let key = request
        .only("sec-websocket-key")
        .filter(|key| is_websocket && key.len() == 24);
    let Some(key) = key else {
        let problem = Problem::new(
            "websocket_required",
            format!("a tunnel is a WebSocket that speaks `{SUBPROTOCOL}`"),
        )
        .hint("upgrade whichever of delegate and gateway is older");
        return Err(Notice::new(400, problem));
    };
    Ok(Entering {
        claims: Arc::new(claims),
        accept: derive_accept_key(key),
    })
}
