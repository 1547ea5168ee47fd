//! Every bound of the link.

use std::time::Duration;

/// Numbered bodies that may be unacknowledged: the receiver's application never has more of them waiting.
pub const WINDOW_FRAMES: usize = 128;
/// The same in bytes; one body may always be under way.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Part of the window that bulk leaves free, so that control need not wait for an acknowledgement of bulk.
pub const CONTROL_RESERVE: usize = 16;

/// Control bodies that wait for a place in the window. A host has a few hundred gitspaces, each with a few states.
pub const CONTROL_FRAMES: usize = 1024;
pub const CONTROL_BYTES: usize = 4 * 1024 * 1024;
/// Bulk bodies that wait: their sender keeps the rest, so this only has to fill the window.
pub const BULK_FRAMES: usize = 128;
pub const BULK_BYTES: usize = 1024 * 1024;

/// Room that the frame around a body takes.
pub const ENVELOPE: usize = 256;
/// Largest body, encoded.
pub const MAX_SENT_BODY: usize = wire::control::MAX_FRAME - ENVELOPE;

/// From the dial to a WebSocket, in heartbeats: a dial that a cut road swallowed does not hold the next one up.
pub const DIAL_HEARTBEATS: u32 = 1;
/// Names, TCP, TLS and HTTP take so many round trips that less would lock out a distant host.
pub const MIN_DIAL_LIMIT: Duration = Duration::from_secs(3);
/// From a WebSocket to the welcome, the server's reconciliation included.
pub const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// A peer that has not proved who it is gets this long for its hello.
pub const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// What the server asks for where nothing else is configured.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// A peer that is not heard for so many quarters of a heartbeat is gone: it is marked away within two and a half.
pub const SILENCE_QUARTERS: u32 = 9;
/// The delegate speaks first; the control plane asks only where it did not, so that a link has one ping a heartbeat and not two.
pub const SERVER_PATIENCE_QUARTERS: u32 = 5;
/// What a client takes of a server's wishes.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(500);
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(120);
pub const MAX_SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// An acknowledgement waits this long for data it can ride on…
pub const ACK_DELAY: Duration = Duration::from_millis(40);
/// … or for so many bodies.
pub const ACK_EVERY: u64 = 16;

pub const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Where the control plane says that it has too much to do.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Where it is not reached, or the road breaks: tenths of a heartbeat. With the dial's limit that is less than two heartbeats from the end of
/// whatever was wrong to the next greeting. An operator who has many delegates gives them longer heartbeats.
pub const BACKOFF_CAP_TENTHS: u32 = 4;
/// Where a person has to act before another try can work.
pub const REFUSED_BACKOFF: Duration = Duration::from_secs(60);
/// Where two processes with one identity throw each other out: each of them is left in peace for about as long.
pub const CLONED_BACKOFF: Duration = Duration::from_secs(600);
/// A link that lived this long starts its back-off anew.
pub const QUIET: Duration = Duration::from_secs(60);

/// Longest reason or hint in a `bye`, in bytes.
pub const MAX_REASON: usize = 512;
