//! Records on their way to handlers: read once, shared by all.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use farol_event::{Event, EventError, EventHead, Timestamp};

use crate::record::{ConsumedBatch, ConsumedRecord, TopicPartition};

/// How many records are handed over at one time: the queues can take several, and a handler that waits doesn't wait for long.
const MAX_CHUNK_RECORDS: usize = 512;

/// Consecutive records of one partition, shared by every subscription that wants one of them.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) partition: TopicPartition,
    records: Vec<Shared>,
    /// Up to and with each record: bytes of keys and values.
    ends: Vec<usize>,
    /// The offset to read on from after this chunk.
    pub(super) next_offset: i64,
}

/// One record, and what has been read out of it so far.
#[derive(Debug)]
struct Shared {
    record: ConsumedRecord,
    event_type: OnceLock<Option<Box<str>>>,
    event: OnceLock<Box<Result<Event, EventError>>>,
}

/// A record as a handler gets it. Cheap to clone and to keep, but it keeps the whole read that it came with.
#[derive(Clone)]
pub struct Received {
    chunk: Arc<Chunk>,
    shared: usize,
}

impl Chunk {
    /// Chunks of at most [`MAX_CHUNK_RECORDS`] of what was polled.
    pub(super) fn cut(mut batch: ConsumedBatch) -> Vec<Arc<Self>> {
        let mut chunks = Vec::with_capacity(batch.records.len() / MAX_CHUNK_RECORDS + 1);
        while batch.records.len() > MAX_CHUNK_RECORDS {
            let rest = batch.records.split_off(MAX_CHUNK_RECORDS);
            let records = std::mem::replace(&mut batch.records, rest);
            let next_offset = batch.records.first().map_or(batch.next_offset, |record| record.offset);
            let partition = batch.partition.clone();
            chunks.push(Self::new(ConsumedBatch {
                partition,
                records,
                next_offset,
                end_offset: batch.end_offset,
            }));
        }
        chunks.push(Self::new(batch));
        chunks
    }

    pub(super) fn new(batch: ConsumedBatch) -> Arc<Self> {
        let mut ends = Vec::with_capacity(batch.records.len());
        let mut end = 0usize;
        for record in &batch.records {
            let bytes =
                record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
            end = end.saturating_add(bytes);
            ends.push(end);
        }
        let shared = |record| Shared { record, event_type: OnceLock::new(), event: OnceLock::new() };
        let records = batch.records.into_iter().map(shared).collect();
        Arc::new(Self { partition: batch.partition, records, ends, next_offset: batch.next_offset })
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of keys and values of the records before `index`.
    pub(super) fn bytes_before(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }

    pub(super) fn offset(&self, index: usize) -> Option<i64> {
        self.records.get(index).map(|shared| shared.record.offset)
    }

    /// The index of the first record at or after `offset`.
    pub(super) fn index_of(&self, offset: i64) -> usize {
        self.records.partition_point(|shared| shared.record.offset < offset)
    }

    /// The text of a record's event type; `None` for what is no event.
    pub(super) fn event_type(&self, index: usize) -> Option<&str> {
        self.records.get(index)?.event_type()
    }

    /// `None` beyond the end.
    pub(super) fn received(self: &Arc<Self>, index: usize) -> Option<Received> {
        (index < self.records.len()).then(|| Received { chunk: Arc::clone(self), shared: index })
    }
}

impl Shared {
    fn event_type(&self) -> Option<&str> {
        let read = || {
            let head = EventHead::parse(self.record.value.as_deref()?)?;
            Some(head.event_type.into_owned().into_boxed_str())
        };
        self.event_type.get_or_init(read).as_deref()
    }
}

impl Received {
    fn shared(&self) -> &Shared {
        self.chunk.records.get(self.shared).expect("it was made for a record of this chunk")
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.chunk.partition.topic
    }

    /// Topic and partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.chunk.partition
    }

    /// The text of the event's type; `None` if the record has none, so that it is no event.
    pub fn event_type(&self) -> Option<&str> {
        self.shared().event_type()
    }

    /// The event. Parsed when somebody asks first, once for all handlers.
    ///
    /// # Errors
    /// What is wrong with the record's value if it is no event; a tombstone is a malformed one.
    pub fn event(&self) -> Result<&Event, &EventError> {
        let shared = self.shared();
        let parsed = shared.event.get_or_init(|| {
            let value = shared.record.value.as_deref().unwrap_or_default();
            Box::new(Event::parse(value, shared.record.timestamp()))
        });
        parsed.as_ref().as_ref()
    }
}

impl Deref for Received {
    type Target = ConsumedRecord;

    fn deref(&self) -> &ConsumedRecord {
        &self.shared().record
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("partition", self.partition())
            .field("offset", &self.offset)
            .field("timestamp", &Timestamp::from_millis_clamped(self.timestamp_ms))
            .finish_non_exhaustive()
    }
}
