//! Records on their way into batches, encoded on the sender's thread.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use farol_log::batch::HeaderRef;
use farol_log::{Batch, BatchBuilder, BatchError, Partition};

use crate::error::BrokerError;
use crate::topic::Topic;

/// The part of a batch that is not records, generously: its header and the lengths of one record's fields.
const OVERHEAD_BYTES: usize = 128;

/// Records for one topic, by partition. Those of one partition keep their order and stand together; they fill one batch,
/// or several if they are more than the topic's `max.message.bytes`.
pub struct TopicBatches {
    topic: Arc<Topic>,
    parts: Vec<Option<Part>>,
    encoded_bytes: usize,
}

/// The records for one partition.
struct Part {
    full: Vec<BatchBuilder>,
    filling: BatchBuilder,
    records: usize,
}

/// Finished batches of one partition.
pub struct PartitionBatches {
    /// Where they go.
    pub partition: Partition,
    /// Which of the topic's partitions that is.
    pub index: i32,
    /// The batches, in order.
    pub batches: Vec<Batch>,
}

/// One record to be encoded.
#[derive(Debug, Clone, Copy)]
pub struct RecordToEncode<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [HeaderRef<'a>],
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl TopicBatches {
    /// Nothing yet, for `topic`.
    pub fn new(topic: Arc<Topic>) -> Self {
        let mut parts = Vec::new();
        parts.resize_with(topic.partitions().len(), || None);
        Self { topic, parts, encoded_bytes: 0 }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Bytes so far, before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    /// Adds a record to a partition and tells how many of this call's records stand before it there.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`]; [`BrokerError::TooLarge`] for a record over `max.message.bytes`.
    pub fn push(&mut self, partition: i32, record: RecordToEncode<'_>) -> Result<usize, BrokerError> {
        let limit = self.topic.config().max_message_bytes;
        let compression = self.topic.config().compression;
        let unknown = || BrokerError::UnknownTopicOrPartition(format!("{}/{partition}", self.topic.name()));
        let slot = usize::try_from(partition)
            .ok()
            .and_then(|index| self.parts.get_mut(index))
            .ok_or_else(unknown)?;
        let new_builder = || BatchBuilder::with_max_bytes(compression, limit);
        let part = slot.get_or_insert_with(|| Part { full: Vec::new(), filling: new_builder(), records: 0 });

        let RecordToEncode { key, value, headers, timestamp_ms } = record;
        let mut before = part.filling.encoded_bytes();
        if let Err(error) = part.filling.push(key, value, headers, timestamp_ms) {
            // Full: the record opens the next batch, unless it is too large for any.
            let too_large = |error: BatchError| match error {
                BatchError::TooLarge { bytes, .. } => BrokerError::TooLarge { what: "record", bytes, limit },
                other => BrokerError::Encode(other),
            };
            if part.filling.is_empty() {
                return Err(too_large(error));
            }
            let mut next = new_builder();
            before = 0;
            next.push(key, value, headers, timestamp_ms).map_err(too_large)?;
            part.full.push(std::mem::replace(&mut part.filling, next));
        }
        self.encoded_bytes =
            self.encoded_bytes.saturating_add(part.filling.encoded_bytes().saturating_sub(before));
        let index = part.records;
        part.records += 1;
        Ok(index)
    }

    /// The finished batches, compressed if the topic says so.
    ///
    /// # Errors
    /// [`BrokerError::Encode`].
    pub fn build(self) -> Result<Vec<PartitionBatches>, BrokerError> {
        let append_time_ms = self.topic.config().log_append_time.then(now_ms);
        let mut built = Vec::new();
        for (partition, (index, part)) in self.topic.partitions().iter().zip((0i32..).zip(self.parts)) {
            let Some(part) = part else { continue };
            let mut batches = Vec::with_capacity(part.full.len() + 1);
            for builder in part.full.into_iter().chain([part.filling]) {
                if !builder.is_empty() {
                    let batch = builder.build().map_err(BrokerError::Encode)?;
                    batches
                        .push(append_time_ms.map_or_else(|| batch.clone(), |at| batch.with_append_time(at)));
                }
            }
            built.push(PartitionBatches { partition: partition.clone(), index, batches });
        }
        Ok(built)
    }
}

/// Milliseconds since the Unix epoch, for topics whose records get the time of their append.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// About how many bytes a record will take in a batch.
pub fn encoded_size_hint(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    let length = |run: Option<&[u8]>| run.map_or(0, <[u8]>::len);
    OVERHEAD_BYTES.saturating_add(length(key)).saturating_add(length(value))
}
