//! Decoding the records of a batch.

use std::ops::Range;

use bytes::Bytes;

use super::header::{BatchHeader, HEADER_BYTES};
use super::varint::Cursor;
use super::{BatchError, Compression};

/// One record. Its byte runs share the memory of the batch (of its decompressed copy if it was compressed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// What it is about; partitions are chosen and compacted by it.
    pub key: Option<Bytes>,
    /// Its content; `None` is a tombstone in a compacted partition.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its key, UTF-8 by Kafka's rules but not checked.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// The records of one batch, decoded one at a time. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    header: BatchHeader,
    bytes: Bytes,
    position: usize,
    left: i32,
    last_offset_delta: i32,
}

/// Where the parts of one encoded record stand.
pub(crate) struct RecordParts {
    pub(crate) whole: Range<usize>,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Option<Range<usize>>,
    headers: HeaderRun,
}

/// Count and start of the headers of a record.
#[derive(Clone, Copy)]
struct HeaderRun {
    count: i32,
    position: usize,
}

impl Records {
    /// Decompresses if need be. `max_decompressed_bytes` bounds what that may give.
    pub(crate) fn new(
        header: BatchHeader,
        batch: &Bytes,
        max_decompressed_bytes: usize,
    ) -> Result<Self, BatchError> {
        let (bytes, position) = match header.compression()? {
            Compression::None => (batch.clone(), HEADER_BYTES),
            compression => {
                let packed = batch.get(HEADER_BYTES..).unwrap_or_default();
                (Bytes::from(compression.decompress(packed, max_decompressed_bytes)?), 0)
            }
        };
        Ok(Self { header, bytes, position, left: header.record_count, last_offset_delta: -1 })
    }

    /// The plain (decompressed) bytes that the parts of [`Records::next_parts`] index.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.bytes
    }

    /// The next record's places, without making a [`Record`].
    pub(crate) fn next_parts(&mut self) -> Result<Option<RecordParts>, BatchError> {
        if self.left == 0 {
            if self.position != self.bytes.len() {
                return Err(BatchError::TrailingBytes { bytes: self.bytes.len() - self.position });
            }
            return Ok(None);
        }
        let whole_start = self.position;
        let mut cursor = Cursor::new(&self.bytes, whole_start);
        let length = cursor.varint()?;
        let body = cursor.position();
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| body.checked_add(length))
            .filter(|end| *end <= self.bytes.len())
            .ok_or(BatchError::RecordCut { position: body })?;
        cursor.byte()?;
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.nullable_run()?;
        let value = cursor.nullable_run()?;
        let count = cursor.varint()?;
        let headers = HeaderRun { count, position: cursor.position() };
        for _ in 0..count {
            cursor.nullable_run()?.ok_or(BatchError::RecordCut { position: cursor.position() })?;
            cursor.nullable_run()?;
        }
        if cursor.position() != end || count < 0 {
            return Err(BatchError::RecordLength { position: body });
        }
        // Offsets rise within a batch; compaction may leave gaps.
        if offset_delta <= self.last_offset_delta || offset_delta > self.header.last_offset_delta {
            return Err(BatchError::RecordOffset { delta: offset_delta });
        }
        self.last_offset_delta = offset_delta;
        self.position = end;
        self.left -= 1;
        Ok(Some(RecordParts { whole: whole_start..end, timestamp_delta, offset_delta, key, value, headers }))
    }

    fn timestamp_ms(&self, parts: &RecordParts) -> i64 {
        record_timestamp_ms(&self.header, parts)
    }

    fn record(&self, parts: &RecordParts) -> Result<Record, BatchError> {
        let mut headers = Vec::new();
        let mut cursor = Cursor::new(&self.bytes, parts.headers.position);
        for _ in 0..parts.headers.count {
            let key = cursor.nullable_run()?.unwrap_or_default();
            let value = cursor.nullable_run()?;
            headers.push(RecordHeader {
                key: self.bytes.slice(key),
                value: value.map(|range| self.bytes.slice(range)),
            });
        }
        Ok(Record {
            offset: self.header.base_offset + i64::from(parts.offset_delta),
            timestamp_ms: self.timestamp_ms(parts),
            key: parts.key.clone().map(|range| self.bytes.slice(range)),
            value: parts.value.clone().map(|range| self.bytes.slice(range)),
            headers,
        })
    }
}

/// When the record happened by its batch's timestamp type.
pub(crate) fn record_timestamp_ms(header: &BatchHeader, parts: &RecordParts) -> i64 {
    if header.is_log_append_time() {
        header.max_timestamp_ms
    } else {
        header.base_timestamp_ms.wrapping_add(parts.timestamp_delta)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = match self.next_parts() {
            Ok(None) => return None,
            Ok(Some(parts)) => self.record(&parts),
            Err(error) => Err(error),
        };
        if decoded.is_err() {
            self.left = 0;
            self.position = self.bytes.len();
        }
        Some(decoded)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A hostile count must not make a collector reserve gigabytes: a record takes at least seven bytes.
        let possible = (self.bytes.len() - self.position) / 7;
        (0, Some(usize::try_from(self.left).unwrap_or(0).min(possible) + 1))
    }
}
