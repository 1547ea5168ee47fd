//! The gateway: what stands between a user's browser or tool and one gitspace.
//!
//! Responsible for: which site a request names ([`site`]), whether its grant reaches it ([`authorize`]), HTTP/1.1 and
//! WebSocket forwarding ([`connection`], [`exchange`]), pages for what cannot be reached ([`page`]), and the link to the
//! control plane ([`control`]), over which it learns keys, routes and revocations ([`known`]).
//!
//! Tasks: *listener* (accepts, owns every connection's task), *sweeper* (cuts connections whose grant no longer holds or
//! whose time is over), *control link*. A request runs from its first to its last byte in its connection's own task; the
//! upstream connection has no task of its own.
//!
//! Invariants:
//! - No byte of a request reaches a gitspace before its grant was checked: [`Dial::dial`] takes an [`Authorized`]
//!   target, which only [`authorize`] can make.
//! - Neither grant nor cookie of ours reaches an app; nothing under `/.gitspaces/` is forwarded in any spelling.
//! - What is forwarded was parsed strictly and written anew: the app cannot read another message than the gateway did.
//! - No body is held: at most one buffer of each direction.
//!
//! It knows nothing of delegates and runners: how a gitspace is reached is behind [`Dial`]. It does not speak HTTP/2 and
//! does not end TLS.

mod authorize;
mod config;
mod dial;

pub use authorize::Authorized;
pub use config::{GatewayConfig, GatewayError, Listen};
pub use dial::{Dial, DialError, Stream, Target, Upstream};
