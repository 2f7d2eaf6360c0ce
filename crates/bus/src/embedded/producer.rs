//! Records into batches into the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use farol_broker::{
    Broker, BrokerError, RecordToEncode, Topic, TopicBatches, encoded_size_hint, partitioner,
};
use farol_log::{Batch, Compression, Partition};

use super::off_thread;
use crate::engine::{BusError, Producer};
use crate::record::{Partitioning, ProducerRecord, RecordMetadata};

/// Encoding this much takes about half a millisecond: a copy and a checksum.
const INLINE_ENCODE_BYTES: usize = 512 * 1024;
/// The same when it is also compressed.
const INLINE_COMPRESS_BYTES: usize = 32 * 1024;

pub(super) struct EmbeddedProducer {
    broker: Broker,
    partitioner: Partitioner,
}

/// Chooses partitions.
#[derive(Default)]
pub(super) struct Partitioner {
    /// Whose turn it is among the partitions for records without a key.
    turn: AtomicU32,
}

/// Records of one send, encoded.
struct Encoded {
    batches: Vec<(Partition, Batch)>,
    /// Of each batch: which partition, and which record of that partition is its first.
    firsts: Vec<(i32, usize)>,
    /// Of each record: which partition, and how many stand before it there.
    places: Vec<(i32, usize)>,
}

impl EmbeddedProducer {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, partitioner: Partitioner::default() }
    }
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn send(&self, topic: &str, records: Vec<ProducerRecord>) -> Result<Vec<RecordMetadata>, BusError> {
        self.broker.check_open()?;
        let topic = self.broker.topic(topic)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = total_size_hint(&records);
        let keyless = self.partitioner.next_keyless(&topic);
        let limit = self.broker.max_request_bytes();
        // Before encoding: a request that is far too large must not be copied first.
        if bytes > limit.saturating_mul(2) {
            return Err(BusError::TooLarge { what: "request", bytes, limit });
        }
        let inline = bytes <= INLINE_COMPRESS_BYTES
            || (bytes <= INLINE_ENCODE_BYTES && topic.config().compression == Compression::None);
        let encoded = if inline {
            encode(topic, &records, keyless)?
        } else {
            off_thread(move || Ok(encode(topic, &records, keyless)?)).await?
        };
        let base_offsets = self.broker.append(encoded.batches).await?;
        Ok(metadata(&encoded.firsts, &encoded.places, &base_offsets))
    }
}

impl Partitioner {
    /// The partition for the records without a key of one send.
    pub(super) fn next_keyless(&self, topic: &Topic) -> i32 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partitions = u32::try_from(topic.partition_count()).unwrap_or(1).max(1);
        i32::try_from(turn % partitions).unwrap_or(0)
    }
}

/// Adds a record to the batch of its partition. Gives the partition and how many records stand before it there.
pub(super) fn push(
    batches: &mut TopicBatches,
    record: &ProducerRecord,
    keyless: i32,
) -> Result<(i32, usize), BrokerError> {
    let partition = match (record.partitioning, &record.key) {
        (Partitioning::Explicit(partition), _) => partition,
        (Partitioning::ByKey, Some(key)) => {
            partitioner::partition_for_key(key, batches.topic().partition_count())
        }
        (Partitioning::ByKey, None) => keyless,
    };
    let headers: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_ref()))).collect();
    let encoded = RecordToEncode {
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
        timestamp_ms: record.timestamp_ms,
    };
    Ok((partition, batches.push(partition, encoded)?))
}

/// About how many bytes records take.
pub(super) fn total_size_hint(records: &[ProducerRecord]) -> usize {
    records.iter().fold(0usize, |sum, record| {
        let headers = record.headers.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        sum.saturating_add(encoded_size_hint(record.key.as_deref(), record.value.as_deref()))
            .saturating_add(headers)
    })
}

fn encode(topic: Arc<Topic>, records: &[ProducerRecord], keyless: i32) -> Result<Encoded, BrokerError> {
    let mut batches = TopicBatches::new(topic);
    let mut places = Vec::with_capacity(records.len());
    for record in records {
        places.push(push(&mut batches, record, keyless)?);
    }
    let mut encoded = Encoded { batches: Vec::new(), firsts: Vec::new(), places };
    for part in batches.build()? {
        let mut first = 0usize;
        for batch in part.batches {
            encoded.firsts.push((part.index, first));
            first = first.saturating_add(usize::try_from(batch.header().record_count).unwrap_or(0));
            encoded.batches.push((part.partition.clone(), batch));
        }
    }
    Ok(encoded)
}

/// Where each record came to stand.
fn metadata(firsts: &[(i32, usize)], places: &[(i32, usize)], base_offsets: &[i64]) -> Vec<RecordMetadata> {
    places
        .iter()
        .map(|&(partition, index)| {
            // The batches stand in order of partition and first record; the record is in the last one at or before it.
            let batch = firsts.partition_point(|&first| first <= (partition, index)).saturating_sub(1);
            let first = firsts.get(batch).map_or(0, |&(_, first)| first);
            let base_offset = base_offsets.get(batch).copied().unwrap_or(-1);
            let delta = i64::try_from(index.saturating_sub(first)).unwrap_or(0);
            RecordMetadata { partition, offset: base_offset.saturating_add(delta) }
        })
        .collect()
}
