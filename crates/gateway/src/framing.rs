//! Where a message's body ends.
//!
//! Bodies are passed on as they came, chunk heads included, so every byte of their framing is checked strictly: what passes
//! has one reading only.

/// Longest line of a chunk's head or a trailer, in bytes.
const MAX_LINE: usize = 1024;
/// Most bytes of trailers.
const MAX_TRAILERS: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("a chunk's size is malformed")]
    ChunkSize,
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    #[error("a line of the body's framing is malformed")]
    Line,
    #[error("a trailer is malformed")]
    Trailer,
    #[error("a trailer would change the message it belongs to")]
    ForbiddenTrailer,
    #[error("the chunk head or the trailers are too long")]
    TooLong,
    #[error("the body ended before its length")]
    Short,
}

#[derive(Debug)]
pub(crate) enum Framing {
    Done,
    /// Bytes to come.
    Length(u64),
    Chunked(Box<Chunks>),
    /// To the end of the connection.
    UntilEnd,
}

impl Framing {
    pub(crate) fn length(length: u64) -> Self {
        match length {
            0 => Self::Done,
            more => Self::Length(more),
        }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many of `bytes` belong to this body: all, or those before its end.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match self {
            Self::Done => Ok(0),
            Self::UntilEnd => Ok(bytes.len()),
            Self::Length(left) => {
                let here = bytes.len() as u64;
                if here < *left {
                    *left -= here;
                    return Ok(bytes.len());
                }
                let taken = usize::try_from(*left).unwrap_or(bytes.len());
                *self = Self::Done;
                Ok(taken)
            }
            Self::Chunked(chunks) => {
                let taken = chunks.take(bytes)?;
                if chunks.state == State::End {
                    *self = Self::Done;
                }
                Ok(taken)
            }
        }
    }

    /// The sender closed its side.
    pub(crate) fn end(&mut self) -> Result<(), FramingError> {
        match self {
            Self::Done | Self::UntilEnd => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(FramingError::Short),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerLine,
    TrailerLf,
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    left: u64,
    digits: u8,
    line: Vec<u8>,
    line_length: usize,
    trailers: usize,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut rest = bytes;
        while self.state != State::End {
            if self.state == State::Data {
                let here = rest.len() as u64;
                if here < self.left {
                    self.left -= here;
                    return Ok(bytes.len());
                }
                let (_, after) = rest.split_at(usize::try_from(self.left).unwrap_or(rest.len()));
                rest = after;
                self.left = 0;
                self.state = State::DataCr;
            }
            let Some((byte, after)) = rest.split_first() else {
                return Ok(bytes.len());
            };
            rest = after;
            self.step(*byte)?;
        }
        Ok(bytes.len() - rest.len())
    }

    fn step(&mut self, byte: u8) -> Result<(), FramingError> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => {
                self.line_length = 0;
                State::Extension
            }
            (State::Size, digit) => {
                let value = char::from(digit)
                    .to_digit(16)
                    .ok_or(FramingError::ChunkSize)?;
                self.digits += 1;
                // 15 digits are 2^60 bytes: no addition of them overflows anywhere.
                if self.digits > 15 {
                    return Err(FramingError::ChunkSize);
                }
                self.left = self.left * 16 + u64::from(value);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | 0x20..=0x7e) => {
                self.line_length += 1;
                if self.line_length > MAX_LINE {
                    return Err(FramingError::TooLong);
                }
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 {
                    State::TrailerLine
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(FramingError::ChunkEnd),
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::TrailerLine, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.trailers += 1;
                if self.line.len() >= MAX_LINE || self.trailers > MAX_TRAILERS {
                    return Err(FramingError::TooLong);
                }
                self.line.push(byte);
                State::TrailerLine
            }
            (State::TrailerLf, b'\n') if self.line.is_empty() => State::End,
            (State::TrailerLf, b'\n') => {
                check_trailer(&self.line)?;
                self.line.clear();
                State::TrailerLine
            }
            (State::Extension | State::SizeLf | State::TrailerLine | State::TrailerLf, _) => {
                return Err(FramingError::Line);
            }
            // `take` handles both before it comes here.
            (State::Data, _) | (State::End, _) => self.state,
        };
        Ok(())
    }
}

fn check_trailer(line: &[u8]) -> Result<(), FramingError> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(FramingError::Trailer)?;
    let (name, _) = line.split_at(colon);
    let is_token = !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    if !is_token {
        return Err(FramingError::Trailer);
    }
    if crate::headers::may_be_trailer(name) {
        Ok(())
    } else {
        Err(FramingError::ForbiddenTrailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the bytes in pieces of every size and says where the body ended, if it did.
    fn chunked(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        let mut results = Vec::new();
        for size in 1..=bytes.len().max(1) {
            let mut framing = Framing::chunked();
            let mut end = Ok(None);
            let mut offset = 0;
            for piece in bytes.chunks(size) {
                match framing.take(piece) {
                    Err(error) => {
                        end = Err(error);
                        break;
                    }
                    Ok(taken) => offset += taken,
                }
                if framing.is_done() {
                    end = Ok(Some(offset));
                    break;
                }
            }
            results.push(end);
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;name=value\r\nhello\r\n00\r\n\r\n",
            "A\r\n0123456789\r\n1\r\n\n\r\n0\r\nx-sum: 1\r\nx-b:\r\n\r\n",
        ] {
            let longer = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(chunked(longer.as_bytes()), Ok(Some(body.len())), "{body:?}");
        }
        assert_eq!(chunked(b"5\r\nhel"), Ok(None));
    }

    #[test]
    fn loose_framing_is_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\n0\n\n",
            "5\rhello",
            "5;a\nb\r\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\rx",
            "fffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\n: empty\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx: \0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\ncontent-length: 5\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nHost: evil\r\n\r\n",
            "0\r\ngitspaces-grant: x\r\n\r\n",
            "0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
        ] {
            assert!(chunked(body.as_bytes()).is_err(), "{body:?}");
        }
        let long = format!("5;{}\r\n", "a".repeat(MAX_LINE + 1));
        assert_eq!(
            Framing::chunked().take(long.as_bytes()),
            Err(FramingError::TooLong)
        );
    }

    #[test]
    fn a_counted_body_ends_at_its_count() {
        let mut framing = Framing::length(5);
        assert_eq!(framing.take(b"hel"), Ok(3));
        assert_eq!(framing.take(b"loGET"), Ok(2));
        assert!(framing.is_done());
        assert_eq!(Framing::length(5).end(), Err(FramingError::Short));
        assert_eq!(Framing::UntilEnd.end(), Ok(()));
    }
}
