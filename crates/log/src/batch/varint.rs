//! Variable-length integers as Kafka's records use them: zig-zag, then seven bits a byte, least significant first
//! (the encoding of Protocol Buffers' `sint64`).

use super::BatchError;

/// The most bytes that one integer may take.
const MAX_BYTES: u32 = 10;

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// How many bytes [`put`] writes for `value`.
pub(crate) fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(MAX_BYTES as usize)
}

#[allow(clippy::cast_sign_loss, reason = "zig-zag works on the bits")]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Reads integers and byte runs from the front of a slice, refusing to read past its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The next integer, which may take 64 bits.
    #[inline]
    pub(crate) fn varlong(&mut self) -> Result<i64, BatchError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let sign = i64::from_ne_bytes((value & 1).wrapping_neg().to_ne_bytes());
                return Ok(i64::from_ne_bytes((value >> 1).to_ne_bytes()) ^ sign);
            }
            shift += 7;
            if shift >= MAX_BYTES * 7 {
                return Err(BatchError::Varint { position: self.position });
            }
        }
    }

    /// The next integer, which must fit 32 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i32, BatchError> {
        let position = self.position;
        i32::try_from(self.varlong()?).map_err(|_| BatchError::Varint { position })
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = *self.bytes.get(self.position).ok_or(BatchError::RecordCut { position: self.position })?;
        self.position += 1;
        Ok(byte)
    }

    /// Steps over a length-prefixed byte run; `None` for length -1 (Kafka's null).
    #[inline]
    pub(crate) fn nullable_run(&mut self) -> Result<Option<std::ops::Range<usize>>, BatchError> {
        let length = self.varint()?;
        if length == -1 {
            return Ok(None);
        }
        let start = self.position;
        let length = usize::try_from(length).map_err(|_| BatchError::Varint { position: start })?;
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
            .ok_or(BatchError::RecordCut { position: start })?;
        self.position = end;
        Ok(Some(start..end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_read_back_as_written_and_take_the_stated_length(value: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let mut cursor = Cursor::new(&out, 0);
            prop_assert_eq!(cursor.varlong().unwrap(), value);
            prop_assert_eq!(cursor.position(), out.len());
        }
    }

    #[test]
    fn an_integer_that_never_ends_is_refused() {
        let mut cursor = Cursor::new(&[0xff; 20], 0);
        assert!(matches!(cursor.varlong(), Err(BatchError::Varint { .. })));
    }
}
