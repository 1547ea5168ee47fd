//! The last bytes of a terminal, by their absolute position.

use std::collections::VecDeque;

/// Kept for those who come back within a moment.
const CAPACITY: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        self.bytes.extend(bytes);
        if let Some(surplus) = self.bytes.len().checked_sub(CAPACITY) {
            self.bytes.drain(..surplus);
        }
    }

    /// Position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// At most `limit` bytes from a position on; `None` where it is not, or not any more, in the ring.
    pub(super) fn read(&self, from: u64, limit: usize) -> Option<Vec<u8>> {
        let behind = usize::try_from(self.end.checked_sub(from)?).ok()?;
        let skip = self.bytes.len().checked_sub(behind)?;
        Some(self.bytes.iter().skip(skip).take(limit).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_position_until_they_are_gone() {
        let mut ring = Ring::default();
        let start = ring.end();
        ring.push(b"hello ");
        let middle = ring.end();
        ring.push(b"world");
        assert_eq!(ring.read(middle, 3).unwrap(), b"wor");
        assert_eq!(ring.read(ring.end(), 10).unwrap(), b"");
        ring.push(&vec![b'x'; CAPACITY]);
        assert_eq!(ring.read(start, 10), None);
        assert_eq!(ring.read(ring.end() + 1, 10), None);
        assert_eq!(ring.read(u64::MAX, 10), None);
        assert_eq!(ring.bytes.len(), CAPACITY);
    }
}
