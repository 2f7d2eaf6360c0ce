//! Record batches: Kafka's format v2 (`magic` 2), the one format on disk, in the journal and on the wire.
//!
//! It is a codec: bytes in, bytes out, no I/O. It knows nothing of Kafka's requests. Of
//! transactions it knows the attributes and the markers' bytes, not what they mean for a reader.
//!
//! # Layout
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–7 | base offset |
//! | 8–11 | bytes after this field |
//! | 12–15 | leader epoch, unused |
//! | 16 | magic, 2 |
//! | 17–20 | CRC32C of everything that follows |
//! | 21–22 | attributes: compression 0–2, timestamp type 3, transactional 4, control 5 |
//! | 23–26 | last offset delta |
//! | 27–34, 35–42 | base and largest timestamp, ms |
//! | 43–56 | producer id, epoch, first sequence; -1 if none |
//! | 57–60 | record count |
//! | 61… | records, compressed together |
//!
//! The checksum doesn't cover the base offset, so the log assigns offsets without reading the batch again.
//! Source: Apache Kafka's message format, <https://kafka.apache.org/documentation/#messageformat>.
//!
//! # Trust
//!
//! A [`Batch`] is made by a [`BatchBuilder`], by [`Batch::validate`] (foreign bytes: structure, checksum, counts, every
//! record), or by [`Batches`] over bytes that the log returned (header only). Bytes from outside never panic, and
//! decompression never gives more than the stated limit.

mod builder;
mod compression;
mod control;
mod header;
mod record;
pub(crate) mod rewrite;
mod varint;

use bytes::Bytes;

pub use builder::{BatchBuilder, BatchProducer, DEFAULT_MAX_BATCH_BYTES, HeaderRef};
pub use compression::Compression;
pub use control::Marker;
pub use header::{BatchHeader, HEADER_BYTES};
pub use record::{Record, RecordHeader, Records};

use header::CRC_COVERS_FROM;

/// Most bytes that decompressing one batch of the log may give.
pub const DEFAULT_MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// Why bytes are no batch, or records can't become one.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header has.
    #[error("record batch header is cut: {available} bytes of {HEADER_BYTES}")]
    HeaderCut {
        /// Bytes that were there.
        available: usize,
    },
    /// The header promises more bytes than there are.
    #[error("record batch is cut: {available} bytes of {expected}")]
    BatchCut {
        /// Bytes that were there.
        available: usize,
        /// Bytes that the header promises.
        expected: usize,
    },
    /// Not format v2.
    #[error("record batch has magic {magic}; only format v2 (magic 2) is accepted")]
    Magic {
        /// The magic byte found.
        magic: u8,
    },
    /// The length field can't be right.
    #[error("record batch length {length} is shorter than its header")]
    Length {
        /// The length field.
        length: i32,
    },
    /// Record count and offsets contradict one another.
    #[error("record batch counts {record_count} records up to offset delta {last_offset_delta}")]
    Counts {
        /// The count field.
        record_count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// The checksum doesn't match.
    #[error("record batch checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A compression that format v2 doesn't have.
    #[error("record batch has unknown compression code {code}")]
    UnknownCompression {
        /// The code, 5 to 7.
        code: i16,
    },
    /// The compressor failed.
    #[error("compressing records with {compression:?}")]
    Compress {
        /// The compression.
        compression: Compression,
        /// Its error.
        source: std::io::Error,
    },
    /// The compressed records are damaged.
    #[error("decompressing records with {compression:?}: {source}")]
    Decompress {
        /// The compression.
        compression: Compression,
        /// Its error.
        source: std::io::Error,
    },
    /// A bound was passed.
    #[error("record batch of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes so far, at least.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An integer that is too long or out of its range.
    #[error("malformed integer at byte {position} of the records")]
    Varint {
        /// Where in the records (or, uncompressed, in the batch).
        position: usize,
    },
    /// A record reaches past the end.
    #[error("record is cut at byte {position} of the records")]
    RecordCut {
        /// Where in the records (or, uncompressed, in the batch).
        position: usize,
    },
    /// A record's fields don't fill its length.
    #[error("record at byte {position} has another length than its fields")]
    RecordLength {
        /// Where in the records (or, uncompressed, in the batch).
        position: usize,
    },
    /// Offsets within the batch don't rise, or pass its last one.
    #[error("record offset delta {delta} is out of order or beyond the batch's last")]
    RecordOffset {
        /// The delta found.
        delta: i32,
    },
    /// Bytes after the last record.
    #[error("{bytes} bytes follow the last record of the batch")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A batch has at least one record.
    #[error("a record batch without records")]
    Empty,
}

/// Bounds for batches from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most bytes of one batch as it arrives.
    pub max_batch_bytes: usize,
    /// Most bytes that decompressing one batch may give.
    pub max_decompressed_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            max_decompressed_bytes: DEFAULT_MAX_DECOMPRESSED_BYTES,
        }
    }
}

/// One whole record batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes one batch from outside, which must be all of `bytes`. Checks structure, checksum, counts, and decodes
    /// every record once.
    ///
    /// # Errors
    /// A [`BatchError`] naming what is wrong.
    pub fn validate(bytes: Bytes, limits: &BatchLimits) -> Result<Self, BatchError> {
        if bytes.len() > limits.max_batch_bytes {
            return Err(BatchError::TooLarge { bytes: bytes.len(), limit: limits.max_batch_bytes });
        }
        let header = BatchHeader::parse(&bytes)?;
        if bytes.len() > header.total_bytes {
            return Err(BatchError::TrailingBytes { bytes: bytes.len() - header.total_bytes });
        }
        let batch = Self::from_parsed(header, bytes)?;
        batch.verify_checksum()?;
        let mut records = batch.records_within(limits.max_decompressed_bytes)?;
        while records.next_parts()?.is_some() {}
        Ok(batch)
    }

    /// Takes one or more batches from outside, back to back, each as [`Batch::validate`] does.
    ///
    /// # Errors
    /// The first batch's [`BatchError`]; [`BatchError::Empty`] for no bytes.
    pub fn validate_all(mut bytes: Bytes, limits: &BatchLimits) -> Result<Vec<Self>, BatchError> {
        let mut batches = Vec::with_capacity(1);
        while !bytes.is_empty() {
            let header = BatchHeader::parse(&bytes)?;
            if header.total_bytes > bytes.len() {
                return Err(BatchError::BatchCut { available: bytes.len(), expected: header.total_bytes });
            }
            batches.push(Self::validate(bytes.split_to(header.total_bytes), limits)?);
        }
        if batches.is_empty() { Err(BatchError::Empty) } else { Ok(batches) }
    }

    /// `bytes`, cut to the batch at their front, with only the header looked at.
    pub(crate) fn from_trusted(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if bytes.len() < header.total_bytes {
            return Err(BatchError::BatchCut { available: bytes.len(), expected: header.total_bytes });
        }
        Self::from_parsed(header, bytes.slice(..header.total_bytes))
    }

    fn from_parsed(header: BatchHeader, bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() < header.total_bytes {
            return Err(BatchError::BatchCut { available: bytes.len(), expected: header.total_bytes });
        }
        Ok(Self { header, bytes })
    }

    /// The fixed part.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as it stands on disk and on the wire.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same batch with its records numbered from `base_offset`: a copy, as the bytes are shared.
    ///
    /// # Errors
    /// [`BatchError::Counts`] if offsets would pass what 64 bits hold or be negative.
    pub fn with_base_offset(&self, base_offset: i64) -> Result<Self, BatchError> {
        let bytes = builder::with_base_offset(&self.bytes, base_offset);
        Self::from_parsed(BatchHeader::parse(&bytes)?, bytes)
    }

    /// The same batch with `timestamp_ms` as the timestamp of all its records (Kafka's `LogAppendTime`): a copy.
    #[must_use]
    pub fn with_append_time(&self, timestamp_ms: i64) -> Self {
        builder::with_append_time(self.header, &self.bytes, timestamp_ms)
    }

    /// The places of records without a key, which a compacted partition can't do anything with.
    ///
    /// # Errors
    /// As [`Batch::records`], and those of damaged records.
    pub fn records_without_key(&self) -> Result<Vec<i32>, BatchError> {
        let mut records = self.records()?;
        let (mut found, mut place) = (Vec::new(), 0);
        while let Some(parts) = records.next_parts()? {
            if parts.key.is_none() {
                found.push(place);
            }
            place += 1;
        }
        Ok(found)
    }

    /// Its records, decompressing up to [`DEFAULT_MAX_DECOMPRESSED_BYTES`].
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`], [`BatchError::Decompress`], [`BatchError::TooLarge`].
    pub fn records(&self) -> Result<Records, BatchError> {
        self.records_within(DEFAULT_MAX_DECOMPRESSED_BYTES)
    }

    /// Its records, decompressing up to `max_decompressed_bytes`.
    ///
    /// # Errors
    /// As [`Batch::records`].
    pub fn records_within(&self, max_decompressed_bytes: usize) -> Result<Records, BatchError> {
        Records::new(self.header, &self.bytes, max_decompressed_bytes)
    }

    /// Whether the bytes are the ones that were written.
    ///
    /// # Errors
    /// [`BatchError::Checksum`].
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        verify_checksum(&self.header, &self.bytes)
    }
}

/// Compares the checksum of a whole batch with its header's.
pub(crate) fn verify_checksum(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let computed = crc32c::crc32c(batch.get(CRC_COVERS_FROM..).unwrap_or_default());
    if computed == header.crc { Ok(()) } else { Err(BatchError::Checksum { stored: header.crc, computed }) }
}

/// The batches that stand back to back in bytes from the log. Ends at the end or after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// Walks `bytes`, looking at headers only.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::from_trusted(&self.rest);
        match &batch {
            Ok(batch) => self.rest = self.rest.slice(batch.header.total_bytes..),
            Err(_) => self.rest.clear(),
        }
        Some(batch)
    }
}
