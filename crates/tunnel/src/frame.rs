//! Frames of streams, and the batches that carry them.
//!
//! A batch is one binary WebSocket message: `kind: u8, ack: u64`, then frames. A frame is `kind: u8, stream: u32, length: u16`, then as many bytes.
//! Numbers are big-endian.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// In front of the frames of a batch.
pub(crate) const BATCH_HEAD: usize = 9;
pub(crate) const FRAME_HEAD: usize = 7;
/// Bytes of one frame: a small message waits for at most so many of somebody else's.
pub(crate) const MAX_DATA: usize = 16 * 1024;
/// Of a stream's first word, and of why it is refused.
pub const MAX_WORDS: usize = 8 * 1024;
/// Of a batch that a peer may send.
pub const MAX_BATCH: usize = 128 * 1024;

const NUMBERED: u8 = 0;
const AFORE: u8 = 1;

const OPEN: u8 = 0;
const OPENED: u8 = 1;
const REFUSED: u8 = 2;
const DATA: u8 = 3;
const WINDOW: u8 = 4;
const FIN: u8 = 5;
const RESET: u8 = 6;

/// What the peer sent is not this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a batch is cut short")]
    Short,
    #[error("a batch of {0} bytes is too long")]
    Long(usize),
    #[error("a batch of an unknown kind {0}")]
    BatchKind(u8),
    #[error("a frame of an unknown kind {0}")]
    FrameKind(u8),
    #[error("a frame that only the other end sends, or not now")]
    Role,
    #[error("frames in a batch that has no number")]
    Unnumbered,
    #[error("a stream is opened under a number that is taken or was")]
    Number,
    #[error("more bytes than the stream has room for")]
    Window,
    #[error("bytes after the last one")]
    AfterEnd,
    #[error("it asks for more than it takes the answers to, or says nothing again and again")]
    Flood,
    #[error("a text, after the first words")]
    Text,
    #[error("a batch that has a number and no frames")]
    Empty,
    #[error("it acknowledges what was not sent")]
    Ack,
}

/// How the frames of a batch are to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// It has a number, one above the last such: it is sent again after a cut.
    pub(crate) numbered: bool,
    /// Numbered batches of the reader that the sender has.
    pub(crate) ack: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Where the stream is to lead.
    Open(Bytes),
    Opened,
    Refused(Bytes),
    Data(Bytes),
    /// So many bytes more may be sent.
    Window(u32),
    /// No more bytes.
    Fin,
    /// Broken off: nothing more is sent or taken.
    Reset,
}

pub(crate) fn head(head: Head) -> [u8; BATCH_HEAD] {
    let mut bytes = [0; BATCH_HEAD];
    let mut out = bytes.as_mut_slice();
    out.put_u8(if head.numbered { NUMBERED } else { AFORE });
    out.put_u64(head.ack);
    bytes
}

/// Of a message that is read; the frames are left in it.
pub(crate) fn take_head(batch: &mut Bytes) -> Result<Head, Violation> {
    if batch.len() > MAX_BATCH {
        return Err(Violation::Long(batch.len()));
    }
    if batch.len() < BATCH_HEAD {
        return Err(Violation::Short);
    }
    let numbered = match batch.get_u8() {
        NUMBERED => true,
        AFORE => false,
        kind => return Err(Violation::BatchKind(kind)),
    };
    Ok(Head {
        numbered,
        ack: batch.get_u64(),
    })
}

/// `payload` is at most [`MAX_DATA`] long.
pub(crate) fn put(out: &mut BytesMut, kind: &Frame, stream: u32) {
    let window;
    let (number, payload): (u8, &[u8]) = match kind {
        Frame::Open(words) => (OPEN, words),
        Frame::Opened => (OPENED, &[]),
        Frame::Refused(words) => (REFUSED, words),
        Frame::Data(bytes) => (DATA, bytes),
        Frame::Window(more) => {
            window = more.to_be_bytes();
            (WINDOW, &window)
        }
        Frame::Fin => (FIN, &[]),
        Frame::Reset => (RESET, &[]),
    };
    put_raw(out, number, stream, payload);
}

/// Data that is not in a buffer of its own.
pub(crate) fn put_data(out: &mut BytesMut, stream: u32, bytes: &[u8]) {
    put_raw(out, DATA, stream, bytes);
}

fn put_raw(out: &mut BytesMut, number: u8, stream: u32, payload: &[u8]) {
    out.put_u8(number);
    out.put_u32(stream);
    out.put_u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
    out.put_slice(payload);
}

/// `None` at the batch's end.
pub(crate) fn take(batch: &mut Bytes) -> Result<Option<(u32, Frame)>, Violation> {
    if batch.is_empty() {
        return Ok(None);
    }
    if batch.len() < FRAME_HEAD {
        return Err(Violation::Short);
    }
    let (kind, stream, length) = (batch.get_u8(), batch.get_u32(), batch.get_u16());
    let length = usize::from(length);
    if batch.len() < length {
        return Err(Violation::Short);
    }
    let mut payload = batch.split_to(length);
    let frame = match (kind, length) {
        (OPEN, _) => Frame::Open(payload),
        (OPENED, 0) => Frame::Opened,
        (REFUSED, _) => Frame::Refused(payload),
        (DATA, _) => Frame::Data(payload),
        (WINDOW, 4) => Frame::Window(payload.get_u32()),
        (FIN, 0) => Frame::Fin,
        (RESET, 0) => Frame::Reset,
        (kind, _) => return Err(Violation::FrameKind(kind)),
    };
    Ok(Some((stream, frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let frames = [
            Frame::Open(Bytes::from_static(b"where")),
            Frame::Opened,
            Frame::Refused(Bytes::from_static(b"why")),
            Frame::Data(Bytes::from(vec![7; MAX_DATA])),
            Frame::Window(70_000),
            Frame::Fin,
            Frame::Reset,
        ];
        let mut out = BytesMut::new();
        let first = Head {
            numbered: true,
            ack: 1 << 40,
        };
        out.extend_from_slice(&head(first));
        for (stream, frame) in (1..).zip(&frames) {
            put(&mut out, frame, stream);
        }
        let mut batch = out.freeze();
        assert_eq!(take_head(&mut batch), Ok(first));
        for (stream, frame) in (1..).zip(frames) {
            assert_eq!(take(&mut batch), Ok(Some((stream, frame))));
        }
        assert_eq!(take(&mut batch), Ok(None));
    }

    #[test]
    fn what_is_no_batch_or_no_frame_is_refused() {
        let head_of = |bytes: &[u8]| take_head(&mut Bytes::copy_from_slice(bytes));
        assert_eq!(head_of(&[0; 8]), Err(Violation::Short));
        assert_eq!(head_of(&[9; 9]), Err(Violation::BatchKind(9)));
        assert_eq!(
            head_of(&vec![0; MAX_BATCH + 1]),
            Err(Violation::Long(MAX_BATCH + 1))
        );
        let frame_of = |bytes: &[u8]| take(&mut Bytes::copy_from_slice(bytes));
        assert_eq!(frame_of(&[3, 0, 0, 0, 1, 0]), Err(Violation::Short));
        assert_eq!(
            frame_of(&[3, 0, 0, 0, 1, 0, 2, b'a']),
            Err(Violation::Short)
        );
        assert_eq!(
            frame_of(&[7, 0, 0, 0, 1, 0, 0]),
            Err(Violation::FrameKind(7))
        );
        // A window has four bytes, an end has none.
        assert_eq!(
            frame_of(&[4, 0, 0, 0, 1, 0, 0]),
            Err(Violation::FrameKind(4))
        );
        assert_eq!(
            frame_of(&[5, 0, 0, 0, 1, 0, 1, 0]),
            Err(Violation::FrameKind(5))
        );
    }
}
