//! The wall clock, in one place. Waiting is tokio's.

use jiff::Timestamp;

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
