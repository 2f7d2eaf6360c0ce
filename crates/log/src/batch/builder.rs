//! Encoding records into a batch.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::Compression;
use super::header::{ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, BatchHeader, CRC_COVERS_FROM, HEADER_BYTES};
use super::{Batch, BatchError, varint};

/// Largest batch that a builder makes unless told otherwise; also the default limit for foreign batches.
pub const DEFAULT_MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Encodes records, in order, into one [`Batch`]. Its offsets start at 0 until the log assigns the real ones.
///
/// Encoding happens on the caller's thread, so that the log's commit thread has nothing left to do but write.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    max_bytes: usize,
    /// Room for the header, then the encoded records.
    buffer: Vec<u8>,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer: BatchProducer,
}

/// Who wrote a batch, for idempotence and transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// Id of the producer, -1 if none.
    pub producer_id: i64,
    /// Its epoch, -1 if none.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 for batches that aren't counted.
    pub base_sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub is_transactional: bool,
}

impl BatchProducer {
    /// Nobody in particular.
    pub const NONE: Self =
        Self { producer_id: -1, producer_epoch: -1, base_sequence: -1, is_transactional: false };
}

/// One header of a record to encode: its key (UTF-8) and its value, if it has one.
pub type HeaderRef<'a> = (&'a str, Option<&'a [u8]>);

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(Compression::None)
    }
}

impl BatchBuilder {
    /// A builder for one batch of up to [`DEFAULT_MAX_BATCH_BYTES`].
    pub fn new(compression: Compression) -> Self {
        Self::with_max_bytes(compression, DEFAULT_MAX_BATCH_BYTES)
    }

    /// A builder for one batch of up to `max_bytes` before compression.
    pub fn with_max_bytes(compression: Compression, max_bytes: usize) -> Self {
        Self {
            compression,
            max_bytes: max_bytes.clamp(HEADER_BYTES, i32::MAX as usize),
            buffer: vec![0; HEADER_BYTES],
            record_count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
            producer: BatchProducer::NONE,
        }
    }

    /// Says who writes the batch.
    #[must_use]
    pub fn written_by(mut self, producer: BatchProducer) -> Self {
        self.producer = producer;
        self
    }

    /// Makes room for `bytes` more of records.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes.min(self.max_bytes));
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        usize::try_from(self.record_count).unwrap_or(0)
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch as it stands, before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a record. A refused record leaves the batch as it was.
    ///
    /// `timestamp_ms` counts milliseconds since the Unix epoch. A record without a value is a tombstone in a compacted
    /// partition.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if the batch would pass its limit.
    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
        timestamp_ms: i64,
    ) -> Result<(), BatchError> {
        let base_timestamp_ms = if self.record_count == 0 { timestamp_ms } else { self.base_timestamp_ms };
        let fields = RecordFields {
            timestamp_delta: timestamp_ms.wrapping_sub(base_timestamp_ms),
            offset_delta: self.record_count,
            key,
            value,
        };
        let headers_length = headers.iter().fold(varint::len(length(headers.len())), |sum, (name, value)| {
            sum.saturating_add(run_length(Some(name.as_bytes()))).saturating_add(run_length(*value))
        });
        let body = fields.encoded_length().saturating_add(headers_length);
        let total = self.buffer.len().saturating_add(body).saturating_add(varint::len(length(body)));
        if total > self.max_bytes || self.record_count == i32::MAX {
            return Err(BatchError::TooLarge { bytes: total, limit: self.max_bytes });
        }
        varint::put(&mut self.buffer, length(body));
        fields.encode(&mut self.buffer);
        varint::put(&mut self.buffer, length(headers.len()));
        for (name, value) in headers {
            put_run(&mut self.buffer, Some(name.as_bytes()));
            put_run(&mut self.buffer, *value);
        }
        self.record_count += 1;
        self.base_timestamp_ms = base_timestamp_ms;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        Ok(())
    }

    /// The finished batch.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without records, [`BatchError::Compress`] if the compressor fails.
    pub fn build(self) -> Result<Batch, BatchError> {
        self.build_with(0)
    }

    fn build_with(self, attributes: i16) -> Result<Batch, BatchError> {
        if self.record_count == 0 {
            return Err(BatchError::Empty);
        }
        let transactional = if self.producer.is_transactional { ATTRIBUTE_TRANSACTIONAL } else { 0 };
        let header = BatchHeader {
            base_offset: 0,
            total_bytes: 0,
            partition_leader_epoch: 0,
            crc: 0,
            attributes: self.compression.code() | transactional | attributes,
            last_offset_delta: self.record_count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: self.producer.producer_id,
            producer_epoch: self.producer.producer_epoch,
            base_sequence: self.producer.base_sequence,
            record_count: self.record_count,
        };
        finish(header, self.compression, self.buffer)
    }
}

/// The finished batch, as a control batch.
pub(super) fn build_control(builder: BatchBuilder) -> Result<Batch, BatchError> {
    builder.build_with(ATTRIBUTE_CONTROL)
}

/// Completes a batch whose `buffer` holds room for the header and then the plain records.
pub(crate) fn finish(
    mut header: BatchHeader,
    compression: Compression,
    mut buffer: Vec<u8>,
) -> Result<Batch, BatchError> {
    if compression != Compression::None {
        let mut compressed = vec![0; HEADER_BYTES];
        compression.compress(buffer.get(HEADER_BYTES..).unwrap_or_default(), &mut compressed)?;
        buffer = compressed;
    }
    header.total_bytes = buffer.len();
    write_header(&header, &mut buffer)?;
    header.crc = crc32c::crc32c(buffer.get(CRC_COVERS_FROM..).unwrap_or_default());
    write_header(&header, &mut buffer)?;
    Ok(Batch { header, bytes: Bytes::from(buffer) })
}

fn write_header(header: &BatchHeader, buffer: &mut [u8]) -> Result<(), BatchError> {
    if let Some(place) = buffer.first_chunk_mut::<HEADER_BYTES>() {
        *place = header.encode()?;
    }
    Ok(())
}

/// `bytes` of a batch with another base offset: a copy, for readers that renumber.
pub(crate) fn with_base_offset(bytes: &Bytes, base_offset: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len());
    out.put_i64(base_offset);
    out.extend_from_slice(bytes.get(8..).unwrap_or_default());
    out.freeze()
}

/// A batch whose records' timestamps are the time of the append: a copy with another header and checksum.
pub(crate) fn with_append_time(mut header: BatchHeader, bytes: &Bytes, timestamp_ms: i64) -> Batch {
    header.set_append_time(timestamp_ms);
    let mut out = BytesMut::from(&**bytes);
    // A parsed header can be encoded again: both of its changed fields hold any value.
    let mut write = |header: &BatchHeader| {
        if let (Ok(encoded), Some(place)) = (header.encode(), out.first_chunk_mut::<HEADER_BYTES>()) {
            *place = encoded;
        }
        crc32c::crc32c(out.get(CRC_COVERS_FROM..).unwrap_or_default())
    };
    header.crc = write(&header);
    write(&header);
    Batch { header, bytes: out.freeze() }
}

/// What comes before the headers of an encoded record.
pub(crate) struct RecordFields<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

impl RecordFields<'_> {
    fn encoded_length(&self) -> usize {
        // One byte of attributes, which are unused.
        (1 + varint::len(self.timestamp_delta) + varint::len(i64::from(self.offset_delta)))
            .saturating_add(run_length(self.key))
            .saturating_add(run_length(self.value))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
        varint::put(out, self.timestamp_delta);
        varint::put(out, i64::from(self.offset_delta));
        put_run(out, self.key);
        put_run(out, self.value);
    }
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn run_length(run: Option<&[u8]>) -> usize {
    run.map_or(1, |run| run.len().saturating_add(varint::len(length(run.len()))))
}

fn put_run(out: &mut Vec<u8>, run: Option<&[u8]>) {
    match run {
        Some(run) => {
            varint::put(out, length(run.len()));
            out.extend_from_slice(run);
        }
        None => varint::put(out, -1),
    }
}
