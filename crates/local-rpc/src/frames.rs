//! Frames on a byte stream: a kind (`u8`), a length (`u32`, big-endian), the payload.
//!
//! Used where a stream carries more than one thing, as the output, the error output and the exit code of a command.
//! What a kind means is the business of who uses it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The largest payload where the caller says nothing else.
pub const MAX_PAYLOAD: usize = 64 * 1024;
const HEADER: usize = 5;
/// One read, as much as fits: most frames are smaller.
const READ_AHEAD: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub payload: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes is larger than {limit}")]
    TooLarge { length: usize, limit: usize },
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    #[error("cannot read a frame")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("cannot write a frame")]
    Write {
        #[source]
        source: io::Error,
    },
}

/// Reads frames. [`FrameReader::next`] is cancel-safe: what was read of a frame stays.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self::with_leftover(inner, Bytes::new())
    }

    /// `leftover` was read from the stream before, as by an upgrade.
    #[must_use]
    pub fn with_leftover(inner: R, leftover: Bytes) -> Self {
        Self {
            inner,
            buffer: BytesMut::from(leftover),
            limit: MAX_PAYLOAD,
        }
    }

    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// After an error the stream is of no more use.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_AHEAD);
            let read = self
                .inner
                .read_buf(&mut self.buffer)
                .await
                .map_err(|source| FrameError::Read { source })?;
            if read == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    /// What is under the frames, and what was read of it but not taken.
    #[must_use]
    pub fn into_parts(self) -> (R, Bytes) {
        (self.inner, self.buffer.freeze())
    }

    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((&kind, rest)) = self.buffer.split_first() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        // A length that does not fit is over any limit.
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge {
                length,
                limit: self.limit,
            });
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { kind, payload }))
    }
}

/// Writes frames, whole: a frame that was fed is written once, even where the future that wrote it was dropped.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    buffer: BytesMut,
    limit: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    #[must_use]
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            limit: MAX_PAYLOAD,
        }
    }

    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Queues a frame; [`FrameWriter::flush`] writes it. The queue is as long as the caller makes it.
    ///
    /// # Errors
    /// Refuses a payload over the limit.
    pub fn feed(&mut self, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
        let too_large = FrameError::TooLarge {
            length: payload.len(),
            limit: self.limit,
        };
        let Ok(length) = u32::try_from(payload.len()) else {
            return Err(too_large);
        };
        if payload.len() > self.limit {
            return Err(too_large);
        }
        self.buffer.reserve(HEADER + payload.len());
        self.buffer.put_u8(kind);
        self.buffer.put_u32(length);
        self.buffer.put_slice(payload);
        Ok(())
    }

    /// Writes what is queued. Cancel-safe: what is not written yet stays queued.
    ///
    /// # Errors
    /// After an error the stream is of no more use.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.inner
            .write_all_buf(&mut self.buffer)
            .await
            .map_err(|source| FrameError::Write { source })?;
        self.inner
            .flush()
            .await
            .map_err(|source| FrameError::Write { source })
    }

    /// Queues a frame and writes everything. Where the future is dropped, the frame stays queued: do not send it again.
    ///
    /// # Errors
    /// As [`FrameWriter::feed`] and [`FrameWriter::flush`].
    pub async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
        self.feed(kind, payload)?;
        self.flush().await
    }

    /// Writes everything and closes the writing side.
    ///
    /// # Errors
    /// As [`FrameWriter::flush`].
    pub async fn shutdown(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.inner
            .shutdown()
            .await
            .map_err(|source| FrameError::Write { source })
    }

    /// Bytes that are queued and not written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.buffer.len()
    }

    #[must_use]
    pub fn into_inner(self) -> W {
        self.inner
    }
}
