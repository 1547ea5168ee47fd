//! Headers of frames.

use crate::MAX_DATA;

pub(crate) const HEADER: usize = 4;
const TAKEN: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data(usize),
    End,
    /// So many bytes more.
    Taken(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is longer than any")]
pub(crate) struct TooLong {
    length: u32,
}

impl Frame {
    pub(crate) fn parse(header: [u8; HEADER]) -> Result<Self, TooLong> {
        let word = u32::from_be_bytes(header);
        let count = usize::try_from(word & !TAKEN).unwrap_or(usize::MAX);
        match word {
            0 => Ok(Self::End),
            word if word & TAKEN != 0 => Ok(Self::Taken(count)),
            _ if count <= MAX_DATA => Ok(Self::Data(count)),
            length => Err(TooLong { length }),
        }
    }

    /// Counts are at most a window's.
    pub(crate) fn header(self) -> [u8; HEADER] {
        let count = |count: usize| u32::try_from(count).unwrap_or(TAKEN - 1) & !TAKEN;
        match self {
            Self::Data(length) => count(length),
            Self::End => 0,
            Self::Taken(taken) => TAKEN | count(taken),
        }
        .to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_and_too_long_ones_do_not() {
        for frame in [
            Frame::End,
            Frame::Data(1),
            Frame::Data(MAX_DATA),
            Frame::Taken(0),
            Frame::Taken(crate::WINDOW),
        ] {
            assert_eq!(Frame::parse(frame.header()), Ok(frame));
        }
        let long = u32::try_from(MAX_DATA + 1).unwrap();
        assert_eq!(
            Frame::parse(long.to_be_bytes()),
            Err(TooLong { length: long })
        );
    }
}
