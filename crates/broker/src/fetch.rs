//! Reading a partition as a client sees it: with the last stable offset and the aborted transactions.
//!
//! A reader of committed records gets the batches below the last stable offset, those of aborted transactions among them, and
//! the list of the transactions that were aborted there; it leaves out what they wrote, and the markers.

use std::sync::Arc;

use bytes::Bytes;
use farol_log::{BatchHeader, Batches, Partition, ReadError, StoredBatches, Subscription, Verify};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::partition::TopicPartition;
use crate::producers::tracker::Tracker;
use crate::producers::{AbortedTransaction, ProducerDescription};

/// Which records a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All that is there.
    ReadUncommitted,
    /// Up to the last stable offset, without those of aborted transactions.
    ReadCommitted,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedBatches {
    /// Whole batches, back to back, as they stand on disk. The first may begin before the offset asked for.
    pub batches: Bytes,
    /// Where to read on.
    pub next_offset: i64,
    /// First offset that can be read.
    pub start_offset: i64,
    /// Offset after the last (Kafka's high watermark).
    pub end_offset: i64,
    /// The last stable offset.
    pub stable_offset: i64,
    /// Transactions among these batches that were aborted, in the order of their first offsets. Empty for
    /// [`Isolation::ReadUncommitted`].
    pub aborted: Vec<AbortedTransaction>,
}

/// What a search found: like [`FetchedBatches`], but not read.
#[derive(Debug, Clone)]
pub struct LocatedBatches {
    /// Whole batches. The first may begin before the offset asked for.
    pub batches: Option<StoredBatches>,
    /// Where to read on.
    pub next_offset: i64,
    /// As in [`FetchedBatches`].
    pub aborted: Vec<AbortedTransaction>,
}

/// A partition to read from. Cheap to clone.
#[derive(Clone)]
pub struct PartitionReader {
    partition: Partition,
    tracker: Arc<Tracker>,
}

impl Broker {
    /// A partition to read from, again and again.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn reader(&self, partition: &TopicPartition) -> Result<PartitionReader, BrokerError> {
        let partition = self.partition(partition)?;
        let tracker = self.producers().tracker(&partition);
        Ok(PartitionReader { partition, tracker })
    }

    /// Reads whole batches from the one that holds `offset` on: about `max_bytes`, but at least one batch. Reads files, so it
    /// may block; never waits for records. Checksums are left to the client.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::OffsetOutOfRange`], [`BrokerError::Corrupt`],
    /// [`BrokerError::Read`].
    pub fn fetch(
        &self,
        partition: &TopicPartition,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<FetchedBatches, BrokerError> {
        let reader = self.reader(partition)?;
        reader
            .read(offset, max_bytes, Verify::Headers, isolation)
            .map_err(|error| BrokerError::from_read(partition, offset, &error))
    }

    /// The offset up to which readers of committed records may read: what `ListOffsets` calls the latest for them.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn stable_offset(&self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        Ok(self.reader(partition)?.stable_offset())
    }

    /// What a partition remembers of its producers, by id.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn partition_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, BrokerError> {
        Ok(self.reader(partition)?.tracker.describe())
    }
}

impl PartitionReader {
    /// First offset that can be read.
    pub fn start_offset(&self) -> i64 {
        self.partition.start_offset()
    }

    /// Offset after the last (Kafka's high watermark).
    pub fn end_offset(&self) -> i64 {
        self.partition.end_offset()
    }

    /// The last stable offset. It never goes back.
    pub fn stable_offset(&self) -> i64 {
        self.tracker.stable_offset()
    }

    /// Whether the partition was deleted, so that nothing more comes. If it was made again, there is another reader for it.
    pub fn is_deleted(&self) -> bool {
        self.partition.is_deleted()
    }

    /// The log's partition.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Calls `listener` when there may be more to read, also when only the last stable offset has moved. On the
    /// thread that commits: it must be quick and must not call the log.
    pub fn on_advance(&self, listener: impl Fn(i64) + Send + Sync + 'static) -> Subscription {
        // The last stable offset moves with markers, which are records, and before the listeners are called.
        self.partition.on_advance(listener)
    }

    /// Reads whole batches from the one that holds `offset` on: about `max_bytes`, but at least one batch.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        verify: Verify,
        isolation: Isolation,
    ) -> Result<FetchedBatches, ReadError> {
        // Before the batches: what is below it then is decided for good. The list before the batches too, or compaction could
        // take an entry while its records are in hand.
        let stable_offset = self.stable_offset();
        let aborted = match isolation {
            Isolation::ReadUncommitted => Vec::new(),
            Isolation::ReadCommitted => self.tracker.aborted_in(offset, stable_offset),
        };
        let fetched = self.partition.read(offset, max_bytes, verify)?;
        let mut found = FetchedBatches {
            batches: fetched.batches,
            next_offset: fetched.next_offset,
            start_offset: fetched.start_offset,
            end_offset: fetched.end_offset,
            stable_offset,
            aborted,
        };
        if isolation == Isolation::ReadCommitted {
            found.cut_at_stable_offset(offset);
            found.aborted = before(found.next_offset, found.aborted);
        }
        Ok(found)
    }

    /// Like [`PartitionReader::read`], but says where the batches lie instead of reading them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn locate(
        &self,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<LocatedBatches, ReadError> {
        // In this order for the reasons that `read` gives.
        let (before_offset, aborted) = match isolation {
            Isolation::ReadUncommitted => (i64::MAX, Vec::new()),
            Isolation::ReadCommitted => {
                let stable_offset = self.stable_offset();
                (stable_offset, self.tracker.aborted_in(offset, stable_offset))
            }
        };
        let found = self.partition.locate(offset, max_bytes, before_offset)?;
        let (batches, next_offset) = (found.batches, found.next_offset);
        Ok(LocatedBatches { batches, next_offset, aborted: before(next_offset, aborted) })
    }
}

/// The transactions that began before an offset, in the order of their first offsets.
fn before(next_offset: i64, mut aborted: Vec<AbortedTransaction>) -> Vec<AbortedTransaction> {
    aborted.retain(|aborted| aborted.first_offset < next_offset);
    aborted.sort_by_key(|aborted| aborted.first_offset);
    aborted
}

impl FetchedBatches {
    /// The batches, one by one.
    pub fn batches(&self) -> Batches {
        Batches::new(self.batches.clone())
    }

    /// Whether a batch of these counts for a reader of committed records.
    pub fn is_committed(&self, header: &BatchHeader) -> bool {
        let aborts = |aborted: &AbortedTransaction| {
            aborted.producer_id == header.producer_id
                && (aborted.first_offset..aborted.marker_offset).contains(&header.base_offset)
        };
        !(header.is_control() || header.is_transactional() && self.aborted.iter().any(aborts))
    }

    /// Leaves out the batches from the last stable offset on, which is the first of a batch.
    fn cut_at_stable_offset(&mut self, offset: i64) {
        if self.next_offset <= self.stable_offset {
            return;
        }
        let mut kept = 0;
        for batch in self.batches() {
            // What can't be parsed goes out as it is, for the reader to find.
            let Ok(batch) = batch else { return };
            if batch.header().base_offset >= self.stable_offset {
                break;
            }
            kept += batch.bytes().len();
        }
        self.batches.truncate(kept);
        self.next_offset = self.stable_offset.max(offset);
    }
}
