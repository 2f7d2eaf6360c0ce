//! Writing and reading the parts of a saved state. Reading never panics and never allocates more than there are bytes.

use farol_event::Timestamp;

use super::RestoreError;

/// Bytes being written.
pub(super) struct Sink(pub Vec<u8>);

impl Sink {
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub fn integer(&mut self, value: i64) {
        // Zig-zag: the sign becomes the lowest bit, so that small numbers of either sign are short.
        self.unsigned(value.cast_unsigned() << 1 ^ (value >> 63).cast_unsigned());
    }

    pub fn count(&mut self, count: usize) {
        self.unsigned(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn unsigned(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f).to_le_bytes()[0];
            value >>= 7;
            if value == 0 {
                return self.byte(low);
            }
            self.byte(low | 0x80);
        }
    }

    pub fn time(&mut self, at: Timestamp) {
        self.integer(at.as_micros());
    }

    pub fn float(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Bytes being read.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn damaged(&self, problem: &str) -> RestoreError {
        RestoreError::Damaged { at: self.length - self.rest.len(), problem: problem.to_owned() }
    }

    fn cut_short(&self, part: &str) -> RestoreError {
        self.damaged(&format!("{part} is cut short"))
    }

    pub fn byte(&mut self, part: &str) -> Result<u8, RestoreError> {
        let (byte, rest) = self.rest.split_first().ok_or_else(|| self.cut_short(part))?;
        self.rest = rest;
        Ok(*byte)
    }

    pub fn array<const N: usize>(&mut self, part: &str) -> Result<[u8; N], RestoreError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut_short(part))?;
        self.rest = rest;
        Ok(*array)
    }

    fn unsigned(&mut self, part: &str) -> Result<u64, RestoreError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(part)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged(&format!("{part} is longer than 64 bits")))
    }

    pub fn integer(&mut self, part: &str) -> Result<i64, RestoreError> {
        let value = self.unsigned(part)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of things that take at least one byte each.
    pub fn count(&mut self, part: &str) -> Result<usize, RestoreError> {
        let count = usize::try_from(self.unsigned(part)?).unwrap_or(usize::MAX);
        if count > self.rest.len() { Err(self.cut_short(part)) } else { Ok(count) }
    }

    pub fn time(&mut self, part: &str) -> Result<Timestamp, RestoreError> {
        let micros = self.integer(part)?;
        Timestamp::from_micros(micros).map_err(|e| self.damaged(&format!("{part}: {e}")))
    }

    pub fn float(&mut self, part: &str) -> Result<f64, RestoreError> {
        Ok(f64::from_le_bytes(self.array(part)?))
    }

    pub fn text(&mut self, part: &str) -> Result<&'a str, RestoreError> {
        let length = self.count(part)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.cut_short(part))?;
        let text = std::str::from_utf8(text).map_err(|_| self.damaged(&format!("{part} is not UTF-8")))?;
        self.rest = rest;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_integer_is_read_back(value in any::<i64>()) {
            let mut sink = Sink(Vec::new());
            sink.integer(value);
            prop_assert!(sink.0.len() <= 10);
            let mut cursor = Cursor::new(&sink.0);
            prop_assert_eq!(cursor.integer("value").unwrap(), value);
            prop_assert!(cursor.is_at_end());
        }
    }
}
