//! Frames: what the journal consists of. One frame is one group commit.
//!
//! # Layout, big-endian
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–3 | magic `FLJ1` |
//! | 4–7 | CRC32C of bytes 8–47 |
//! | 8–15 | epoch: drawn anew by every opening of the folder |
//! | 16–23 | sequence: 1 more than the frame before |
//! | 24–31 | durable through: the newest sequence known to be synced when this frame was written |
//! | 32–35 | bytes of the body |
//! | 36–39 | batches in the body |
//! | 40–43 | CRC32C of the body |
//! | 44–47 | zero |
//! | 48… | body: for each batch partition number u32, length u32, and the batch with its assigned base offset |
//!
//! Of a batch that nobody waits to be synced ([`crate::SyncPolicy::Never`]) a frame has only a reference to what its segment holds: the
//! length is 16 with its highest bit set, and what follows is the base offset i64, the bytes of the batch u32, and the CRC32C in its
//! header.
//!
//! Frames begin at multiples of 8.

/// Bytes of a frame before its body.
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Bytes of a reference.
pub(crate) const REFERENCE_BYTES: usize = 16;
/// Set in the length of a reference.
pub(crate) const REFERENCE_FLAG: u32 = 1 << 31;
/// What a reference has for its length.
pub(crate) const REFERENCE_LENGTH: u32 = REFERENCE_FLAG | 16;
/// Bytes before each batch of a body.
pub(crate) const ENTRY_HEADER_BYTES: usize = 8;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGNMENT: u64 = 8;

const MAGIC: [u8; 4] = *b"FLJ1";

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
    pub(crate) body_bytes: u32,
    pub(crate) batch_count: u32,
    pub(crate) body_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut checked = [0u8; FRAME_HEADER_BYTES - 8];
        let fields: [&[u8]; 6] = [
            &self.epoch.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.durable_through.to_be_bytes(),
            &self.body_bytes.to_be_bytes(),
            &self.batch_count.to_be_bytes(),
            &self.body_crc.to_be_bytes(),
        ];
        for (place, byte) in checked.iter_mut().zip(fields.concat()) {
            *place = byte;
        }
        let mut out = [0u8; FRAME_HEADER_BYTES];
        let crc = crc32c::crc32c(&checked).to_be_bytes();
        for (place, byte) in out.iter_mut().zip(MAGIC.into_iter().chain(crc).chain(checked)) {
            *place = byte;
        }
        out
    }

    /// The header at the front of `bytes`; `None` if there is no whole one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        if *magic != MAGIC {
            return None;
        }
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let checked: &[u8; FRAME_HEADER_BYTES - 8] = rest.first_chunk()?;
        if crc32c::crc32c(checked) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (epoch, rest) = checked.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (durable_through, rest) = rest.split_first_chunk::<8>()?;
        let (body_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (batch_count, rest) = rest.split_first_chunk::<4>()?;
        let (body_crc, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            epoch: u64::from_be_bytes(*epoch),
            sequence: u64::from_be_bytes(*sequence),
            durable_through: u64::from_be_bytes(*durable_through),
            body_bytes: u32::from_be_bytes(*body_bytes),
            batch_count: u32::from_be_bytes(*batch_count),
            body_crc: u32::from_be_bytes(*body_crc),
        })
    }

    /// Bytes from this frame's start to the next one's.
    pub(crate) fn total_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.body_bytes))
    }
}

/// A batch that stands in a segment only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchReference {
    pub(crate) base_offset: i64,
    pub(crate) bytes: u32,
    /// The checksum in the batch's own header.
    pub(crate) crc: u32,
}

impl BatchReference {
    /// What follows the base offset.
    pub(crate) fn encode_rest(&self) -> [u8; REFERENCE_BYTES - 8] {
        let mut out = [0; REFERENCE_BYTES - 8];
        for (place, byte) in
            out.iter_mut().zip(self.bytes.to_be_bytes().into_iter().chain(self.crc.to_be_bytes()))
        {
            *place = byte;
        }
        out
    }

    /// `None` if the bytes aren't one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REFERENCE_BYTES] = bytes.try_into().ok()?;
        let (base_offset, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        Some(Self {
            base_offset: i64::from_be_bytes(*base_offset),
            bytes: u32::from_be_bytes(*length),
            crc: u32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// Bytes of a frame with a body of `body_bytes`, padding included.
pub(crate) fn frame_bytes(body_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES as u64 + body_bytes).next_multiple_of(FRAME_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn references_read_back(base_offset: i64, bytes: u32, crc: u32) {
            let reference = BatchReference { base_offset, bytes, crc };
            let encoded = [&base_offset.to_be_bytes()[..], &reference.encode_rest()].concat();
            prop_assert_eq!(BatchReference::parse(&encoded), Some(reference));
            prop_assert_eq!(BatchReference::parse(&encoded[1..]), None);
        }

        #[test]
        fn headers_read_back_and_a_flipped_bit_is_noticed(
            epoch: u64, sequence: u64, durable_through: u64, body_bytes: u32, batch_count: u32, body_crc: u32,
            bit in 0..(FRAME_HEADER_BYTES - 4) * 8,
        ) {
            let header = FrameHeader { epoch, sequence, durable_through, body_bytes, batch_count, body_crc };
            let mut bytes = header.encode();
            prop_assert_eq!(FrameHeader::parse(&bytes), Some(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            // The last four bytes are padding outside what a reader uses, but inside the checksum.
            prop_assert_eq!(FrameHeader::parse(&bytes), None);
        }
    }
}
