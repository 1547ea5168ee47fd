//! Fields of messages: RFC 4251, section 5.

/// A message that ends before its last field, or has bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of the peer is malformed")]
pub struct FieldError;

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// # Errors
    /// Fewer bytes are left.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], FieldError> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(FieldError)?;
        self.0 = rest;
        Ok(field)
    }

    /// # Errors
    /// Nothing is left.
    pub fn byte(&mut self) -> Result<u8, FieldError> {
        let (byte, rest) = self.0.split_first().ok_or(FieldError)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// # Errors
    /// Nothing is left.
    pub fn boolean(&mut self) -> Result<bool, FieldError> {
        self.byte().map(|byte| byte != 0)
    }

    /// # Errors
    /// Fewer than four bytes are left.
    pub fn number(&mut self) -> Result<u32, FieldError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(FieldError)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// # Errors
    /// It is longer than what is left.
    pub fn string(&mut self) -> Result<&'a [u8], FieldError> {
        let length = usize::try_from(self.number()?).map_err(|_| FieldError)?;
        self.take(length)
    }

    /// # Errors
    /// As [`Reader::string`], or it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, FieldError> {
        std::str::from_utf8(self.string()?).map_err(|_| FieldError)
    }

    /// # Errors
    /// Something is left.
    pub const fn end(&self) -> Result<(), FieldError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FieldError)
        }
    }
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the number of the message.
    #[must_use]
    pub fn message(number: u8) -> Self {
        Self(vec![number])
    }

    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    #[must_use]
    pub fn boolean(self, is: bool) -> Self {
        self.byte(u8::from(is))
    }

    #[must_use]
    pub fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // What is written here is far below 4 GiB.
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
            .raw(bytes)
    }

    /// A positive number of any length, most significant byte first.
    #[must_use]
    pub fn positive(self, bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = bytes.get(zeros..).unwrap_or_default();
        if digits.first().is_some_and(|high| *high >= 128) {
            let mut signed = Vec::with_capacity(digits.len() + 1);
            signed.push(0);
            signed.extend_from_slice(digits);
            self.string(signed)
        } else {
            self.string(digits)
        }
    }

    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_shortest_form_and_are_positive() {
        let written = |bytes: &[u8]| Writer::default().positive(bytes).finish();
        assert_eq!(written(&[0, 0]), [0, 0, 0, 0]);
        assert_eq!(written(&[0, 0, 1]), [0, 0, 0, 1, 1]);
        assert_eq!(written(&[0x80]), [0, 0, 0, 2, 0, 0x80]);
    }

    #[test]
    fn a_field_that_is_longer_than_its_message_is_refused() {
        for bytes in [&[0, 0, 0, 2, 1][..], &[0xff; 4], &[0, 0], &[]] {
            assert_eq!(Reader::new(bytes).string(), Err(FieldError));
        }
        let mut reader = Reader::new(&[0, 0, 0, 1, 7, 9]);
        assert_eq!(reader.string(), Ok(&[7][..]));
        assert_eq!(reader.end(), Err(FieldError));
    }
}
