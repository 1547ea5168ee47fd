//! What `serve` and a holder say to each other: frames of `local_rpc`, JSON or bytes. Both are always the same binary.

use crate::spawn::Program;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wire::{
    failure::Failure,
    workspace::{Size, TerminalInfo},
};

/// Of a frame to a holder: input and small JSON.
pub(crate) const MAX_TO_HOLDER: usize = 256 * 1024;
/// Of a frame from a holder: a snapshot is one frame.
pub(crate) const MAX_FROM_HOLDER: usize = 16 * 1024 * 1024;

/// Kinds of frames to a holder.
pub(crate) mod ask {
    pub(crate) const ATTACH: u8 = 1;
    pub(crate) const INPUT: u8 = 2;
    pub(crate) const RESIZE: u8 = 3;
    pub(crate) const HANG_UP: u8 = 4;
    pub(crate) const STATUS: u8 = 5;
}

/// Kinds of frames from a holder.
pub(crate) mod tell {
    pub(crate) const ATTACHED: u8 = 1;
    pub(crate) const OUTPUT: u8 = 2;
    pub(crate) const EXITED: u8 = 3;
    pub(crate) const STATUS: u8 = 4;
}

/// On a holder's standard input, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) program: Program,
    pub(crate) size: Size,
    pub(crate) title: String,
}

/// On a holder's standard output, one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Started {
    Listening {},
    Failed { failure: Failure },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub(crate) from: Option<u64>,
    pub(crate) size: Size,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) position: u64,
    pub(crate) snapshot: bool,
    pub(crate) size: Size,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exited {
    pub(crate) exit_code: i32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) info: TerminalInfo,
    pub(crate) last_activity: Timestamp,
    pub(crate) ended: bool,
}
