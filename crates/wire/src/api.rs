//! The public REST API, `/api/v1`: what users and the CLI send and get. Times are RFC 3339.

mod access;
mod delegates;
mod gateways;
mod gitspaces;

pub use access::*;
pub use delegates::*;
pub use gateways::*;
pub use gitspaces::*;

use serde::{Deserialize, Serialize};

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// Deepest JSON taken.
pub const MAX_DEPTH: usize = 32;
/// Largest page.
pub const MAX_PAGE: u32 = 100;
/// Header that makes a POST safe to repeat: the same key and body within a day get the first answer again.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// How the token of a control plane's first administrator begins. It is not for keeping: whoever logs in with it makes a token of the own.
pub const BOOTSTRAP_PREFIX: &str = "gsb_";
/// Answer header with the trace id of the action; also taken from a request.
pub const TRACE_HEADER: &str = "gitspaces-trace";

/// A page of a list, in a stable order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it as `?cursor=` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
