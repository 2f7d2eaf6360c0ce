//! What is sent and what is polled.

use bytes::Bytes;
pub use farol_broker::TopicPartition;
use farol_event::Timestamp;

/// Which partition a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// By Kafka's default: murmur2 of the key; without a key, whole batches in turn.
    ByKey,
    /// This one.
    Explicit(i32),
}

/// A record to be sent.
#[derive(Debug, Clone)]
pub struct ProducerRecord {
    /// Which partition.
    pub partitioning: Partitioning,
    /// The key; decides the partition, and what compaction keeps.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// The record's timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl ProducerRecord {
    /// A record with key and value, partitioned by key, without headers.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>, timestamp: Timestamp) -> Self {
        Self {
            partitioning: Partitioning::ByKey,
            key: Some(key.into()),
            value: Some(value.into()),
            timestamp_ms: timestamp.as_millis(),
            headers: Vec::new(),
        }
    }
}

/// Where a sent record came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// One record as polled. Key, value and headers share the memory of the batch that they were read from.
#[derive(Debug, Clone)]
pub struct ConsumedRecord {
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl ConsumedRecord {
    /// The record's timestamp.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis_clamped(self.timestamp_ms)
    }
}

/// Consecutive committed records of one partition, in offset order. Never empty.
#[derive(Debug, Clone)]
pub struct ConsumedBatch {
    /// Whose records.
    pub partition: TopicPartition,
    /// The records. Offsets rise, with gaps where compaction or transactions left some.
    pub records: Vec<ConsumedRecord>,
    /// The offset to resume from after this batch; may be beyond the last record's offset + 1.
    pub next_offset: i64,
    /// The partition's end (offset of the next record to be written) as far as the engine knew it when the batch was read, and no
    /// less than `next_offset`: tells the lag.
    pub end_offset: i64,
}
