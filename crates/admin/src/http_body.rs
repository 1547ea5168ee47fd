//! The largest things that are sent to and by an admin socket.

/// Bodies of requests are a few fields.
pub(crate) const MAX_REQUEST: usize = 16 * 1024;
/// Answers that a command reads: a few hundred tasks, or a support bundle.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;
