//! The fixed part of a record batch.

use super::BatchError;
use super::compression::Compression;

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes of the base offset and the length field, which the length field doesn't count.
pub(crate) const PREFIX_BYTES: usize = 12;
/// Where the bytes that the checksum covers begin.
pub(crate) const CRC_COVERS_FROM: usize = 21;

const ATTRIBUTE_COMPRESSION: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTRIBUTE_CONTROL: i16 = 0x20;

/// The fixed part of a record batch, in the order of its bytes. All integers are big-endian on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. The checksum doesn't cover it.
    pub base_offset: i64,
    /// Bytes of the whole batch, base offset and length field included (12 more than the field on disk says).
    pub total_bytes: usize,
    /// Leader epoch; the checksum doesn't cover it and Farol doesn't use it.
    pub partition_leader_epoch: i32,
    /// CRC32C of everything from the attributes to the end.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record minus `base_offset`; records may be missing between (compaction).
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, milliseconds since the Unix epoch.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of the batch, milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
    /// Id of the idempotent producer, -1 if none.
    pub producer_id: i64,
    /// Epoch of the idempotent producer, -1 if none.
    pub producer_epoch: i16,
    /// Sequence of the first record of the idempotent producer, -1 if none.
    pub base_sequence: i32,
    /// How many records follow.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may hold less or more than the batch. Checks the fields against
    /// one another, not the checksum.
    ///
    /// # Errors
    /// [`BatchError::HeaderCut`], [`BatchError::Magic`], [`BatchError::Length`], [`BatchError::Counts`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let fixed: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(BatchError::HeaderCut { available: bytes.len() })?;
        let [magic] = take::<1>(fixed, 16);
        // Older formats have another layout, so look at the magic byte before any other field.
        if magic != 2 {
            return Err(BatchError::Magic { magic });
        }
        let length = i32::from_be_bytes(take(fixed, 8));
        let total_bytes = usize::try_from(length)
            .ok()
            .map(|length| length.saturating_add(PREFIX_BYTES))
            .filter(|total| *total >= HEADER_BYTES)
            .ok_or(BatchError::Length { length })?;
        let header = Self {
            base_offset: i64::from_be_bytes(take(fixed, 0)),
            total_bytes,
            partition_leader_epoch: i32::from_be_bytes(take(fixed, 12)),
            crc: u32::from_be_bytes(take(fixed, 17)),
            attributes: i16::from_be_bytes(take(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(take(fixed, 23)),
            base_timestamp_ms: i64::from_be_bytes(take(fixed, 27)),
            max_timestamp_ms: i64::from_be_bytes(take(fixed, 35)),
            producer_id: i64::from_be_bytes(take(fixed, 43)),
            producer_epoch: i16::from_be_bytes(take(fixed, 51)),
            base_sequence: i32::from_be_bytes(take(fixed, 53)),
            record_count: i32::from_be_bytes(take(fixed, 57)),
        };
        let deltas_fit = header.record_count > 0
            && i64::from(header.last_offset_delta) + 1 >= i64::from(header.record_count);
        let offsets_fit = header
            .base_offset
            .checked_add(i64::from(header.last_offset_delta))
            .is_some_and(|last| last < i64::MAX);
        if !deltas_fit || !offsets_fit {
            return Err(BatchError::Counts {
                record_count: header.record_count,
                last_offset_delta: header.last_offset_delta,
            });
        }
        Ok(header)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset that the following batch may start at.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for the codes 5 to 7.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_code(self.attributes & ATTRIBUTE_COMPRESSION)
    }

    /// Whether the records' timestamps are the time of the append (`max_timestamp_ms` holds for all of them).
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Makes `timestamp_ms` the timestamp of all records.
    pub(crate) fn set_append_time(&mut self, timestamp_ms: i64) {
        self.attributes |= ATTRIBUTE_LOG_APPEND_TIME;
        self.max_timestamp_ms = timestamp_ms;
    }

    /// Whether the batch belongs to a Kafka transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a Kafka transaction marker instead of user records.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> Result<[u8; HEADER_BYTES], BatchError> {
        let length = i32::try_from(self.total_bytes - PREFIX_BYTES)
            .map_err(|_| BatchError::TooLarge { bytes: self.total_bytes, limit: i32::MAX as usize })?;
        let mut out = [0u8; HEADER_BYTES];
        put(&mut out, 0, self.base_offset.to_be_bytes());
        put(&mut out, 8, length.to_be_bytes());
        put(&mut out, 12, self.partition_leader_epoch.to_be_bytes());
        put(&mut out, 16, [2]);
        put(&mut out, 17, self.crc.to_be_bytes());
        put(&mut out, 21, self.attributes.to_be_bytes());
        put(&mut out, 23, self.last_offset_delta.to_be_bytes());
        put(&mut out, 27, self.base_timestamp_ms.to_be_bytes());
        put(&mut out, 35, self.max_timestamp_ms.to_be_bytes());
        put(&mut out, 43, self.producer_id.to_be_bytes());
        put(&mut out, 51, self.producer_epoch.to_be_bytes());
        put(&mut out, 53, self.base_sequence.to_be_bytes());
        put(&mut out, 57, self.record_count.to_be_bytes());
        Ok(out)
    }
}

/// `N` bytes at `at`. Both are constants of the layout; a wrong one gives zeros and fails every test.
fn take<const N: usize>(from: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    from.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn put<const N: usize>(into: &mut [u8; HEADER_BYTES], at: usize, bytes: [u8; N]) {
    if let Some(place) = into.get_mut(at..at + N) {
        place.copy_from_slice(&bytes);
    }
}
