//! What is published of each tunnel.

use serde::Serialize;
use tunnel::Tunnel;

/// A tunnel, as it is published.
#[derive(Clone, Debug, Default)]
pub struct TunnelEntry {
    pub url: String,
    /// Whether it has a line.
    pub up: bool,
    /// Lines so far.
    pub lines: u64,
    pub tunnel: Option<Tunnel>,
    pub last_error: Option<String>,
}

/// A tunnel, for `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TunnelStatus {
    pub url: String,
    pub up: bool,
    pub lines: u64,
    /// Open through it.
    pub streams: usize,
    /// To the gateway and back, when that was last measured.
    pub trip_ms: Option<u64>,
    /// Why there was no line last.
    pub last_error: Option<String>,
}

impl TunnelEntry {
    #[must_use]
    pub fn status(&self) -> TunnelStatus {
        let trip = self.tunnel.as_ref().and_then(Tunnel::trip);
        TunnelStatus {
            url: self.url.clone(),
            up: self.up,
            lines: self.lines,
            streams: self.tunnel.as_ref().map_or(0, Tunnel::streams),
            trip_ms: trip.map(|trip| u64::try_from(trip.as_millis()).unwrap_or(u64::MAX)),
            last_error: self.last_error.clone(),
        }
    }
}
