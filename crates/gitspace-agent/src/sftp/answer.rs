//! What is said to a client.

use nix::errno::Errno;
use std::io;

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// `SSH_FX_…`
const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// How a request went, where the answer is nothing more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    code: u32,
    words: String,
}

impl Status {
    pub(super) fn ok() -> Self {
        Self {
            code: OK,
            words: String::new(),
        }
    }

    pub(super) fn end() -> Self {
        Self {
            code: EOF,
            words: "there is no more".to_owned(),
        }
    }

    pub(super) fn failure(words: impl Into<String>) -> Self {
        Self {
            code: FAILURE,
            words: words.into(),
        }
    }

    pub(super) fn bad_message(words: impl Into<String>) -> Self {
        Self {
            code: BAD_MESSAGE,
            words: words.into(),
        }
    }

    pub(super) fn unsupported(words: impl Into<String>) -> Self {
        Self {
            code: UNSUPPORTED,
            words: words.into(),
        }
    }
}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NO_SUCH_FILE,
            io::ErrorKind::PermissionDenied => PERMISSION_DENIED,
            io::ErrorKind::UnexpectedEof => EOF,
            _ => FAILURE,
        };
        Self {
            code,
            words: error.to_string(),
        }
    }
}

impl From<Errno> for Status {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// A packet in the making.
#[derive(Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    pub(super) fn new(kind: u8) -> Self {
        // The length is put in front at the end.
        Self(vec![0, 0, 0, 0, kind])
    }

    fn to(kind: u8, id: u32) -> Self {
        let mut answer = Self::new(kind);
        answer.number(id);
        answer
    }

    pub(super) fn status(id: u32, status: &Status) -> Self {
        let mut answer = Self::to(STATUS, id);
        answer.number(status.code);
        answer.bytes(status.words.as_bytes());
        answer.bytes(b"en");
        answer
    }

    pub(super) fn handle(id: u32, handle: &[u8]) -> Self {
        let mut answer = Self::to(HANDLE, id);
        answer.bytes(handle);
        answer
    }

    pub(super) fn data(id: u32, data: &[u8]) -> Self {
        let mut answer = Self::to(DATA, id);
        answer.0.reserve(data.len() + 4);
        answer.bytes(data);
        answer
    }

    /// Of so many names; each is a name, a long name and attributes.
    pub(super) fn names(id: u32, count: u32) -> Self {
        let mut answer = Self::to(NAME, id);
        answer.number(count);
        answer
    }

    /// One name without attributes.
    pub(super) fn path(id: u32, path: &[u8]) -> Self {
        let mut answer = Self::names(id, 1);
        answer.bytes(path);
        answer.bytes(path);
        answer.number(0);
        answer
    }

    pub(super) fn attributes(id: u32) -> Self {
        Self::to(ATTRS, id)
    }

    pub(super) fn extended(id: u32) -> Self {
        Self::to(EXTENDED_REPLY, id)
    }

    pub(super) fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn long(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        if let Some(front) = self.0.first_chunk_mut() {
            *front = length.to_be_bytes();
        }
        self.0
    }
}
