//! The gateway: what stands between a user's browser or tool and one gitspace.
//!
//! Responsible for: which site a request names (`site`), whether its grant reaches it (`authorize`), what becomes of it
//! (`judge`), reading heads strictly and writing them anew (`request`, `answer`, `headers`, `cookies`, `framing`), moving bytes
//! (`connection`, `exchange`, `pool`), pages for what cannot be reached and for what somebody shares (`page`, `state_page`, `buttons`), one-time codes (`codes`), and the link to
//! the control plane (`control`), over which it learns keys, routes and revocations (`known`), and tells what it finds of its way into gitspaces (`probe`).
//!
//! Tasks: *listener* (accepts, owns every connection's task, cuts those whose grant no longer holds or whose time is
//! over: `live`), *control*, and *gateway-probe* (goes the way of requests now and then; *control* watches what it finds), *gateway-renewal* (has the next grant for what is open longer than one lasts), and *gateway-tunnels* (owns the lines of tunnels). A request runs from its first to its last byte in its connection's own task; the
//! connection to the app has no task of its own. There is no other channel between them.
//!
//! Invariants:
//! - No byte of a request reaches a gitspace before its grant was checked, or its port was found to be shared with everybody: [`Dial::dial`]
//!   takes an [`Authorized`] target, which only [`authorize`] can make.
//! - Neither grant nor cookie of ours reaches an app, and no app's answer sets or clears one; nothing under `/.gitspaces/` is forwarded in any spelling.
//! - What is forwarded was parsed strictly and written anew: the app cannot read another message than the gateway did.
//! - No body is held: at most one buffer of each direction.
//!
//! How a gitspace of this host is reached is behind [`Dial`]; to those of other hosts lead the tunnels that their delegates open (`tunnels`; `ways`
//! chooses). It does not speak HTTP/2. Certificates and
//! handshakes are the crate `tls-server`'s; what comes out of them is a connection like any other.

mod access_log;
mod answer;
mod ask;
mod authorize;
mod buffer;
mod buttons;
mod codes;
mod config;
mod connection;
mod control;
mod cookies;
mod dial;
mod endpoint;
mod exchange;
mod framing;
mod gateway;
mod headers;
mod judge;
mod known;
mod link_board;
mod live;
mod page;
mod path;
mod pool;
mod probe;
mod renewal;
mod request;
mod site;
mod ssh;
mod state_page;
mod tunnels;
mod wake;
mod ways;

pub use authorize::Authorized;
pub use config::{GatewayConfig, GatewayError, Listen, SshConfig, SshListen};
pub use dial::{Dial, DialError, Stream, Target, Upstream};
pub use gateway::{Gateway, GatewayView};
pub use link_board::LinkView;
pub use ssh::{SshView, look_at_ssh_host_key};
pub use tunnels::TunnelsView;
