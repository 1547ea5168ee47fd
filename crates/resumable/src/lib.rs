//! A stream of bytes whose line may be cut and replaced: nothing of it is lost or said twice.
//!
//! Both ends have an [`Endpoint`] each, which is read from and written to like a socket. It lies on a line, a connection of whatever kind;
//! when that breaks, reading and writing wait until the endpoint is given another one.
//!
//! On a line, each end first says how many bytes it has taken so far, in 8 bytes, big-endian. Frames follow, each behind 4 bytes, big-endian:
//!
//! | header | what follows |
//! |---|---|
//! | 1 to [`MAX_DATA`] | that many bytes of the stream |
//! | 0 | nothing: the stream ends here |
//! | high bit set | nothing: the sender has taken as many bytes more as the rest of the header says |
//!
//! One that says it has taken no more is a sign of life. The end that was called ([`Side::Called`]) gives one for one.
//!
//! Responsible for: the frames ([`frame`]), one line with what of them is half read or written ([`line`]), what was sent and not acknowledged
//! ([`replay`]), and all of it under the face of a socket ([`endpoint`]). Not responsible for: making lines, and saying which stream one belongs to.
//!
//! Invariants:
//! - What was not acknowledged is kept: at most [`WINDOW`] bytes, and whoever writes more waits.
//! - Bytes are acknowledged when the reader has them. So no end ever has to keep more than a window of what it read, however slow its reader is.
//! - An end that says impossible things ends the stream: its bytes cannot be the ones that were sent.

mod endpoint;
mod frame;
mod line;
mod replay;

pub use endpoint::{Endpoint, Lines, Side};
pub use line::Line;

/// Not acknowledged, of each direction: what a line of 1 Gbit/s and 30 ms holds.
pub const WINDOW: usize = 4 * 1024 * 1024;
/// Of one frame.
pub const MAX_DATA: usize = 64 * 1024;
/// Taken and not told, at which it is told without anything else to say.
const TELL_EVERY: u64 = (WINDOW / 16) as u64;
