//! One partition: what can be read of it.

use std::sync::Arc;
use std::time::{Duration, Instant};
use bytes::Bytes;
use crate::batch::Batches;
use crate::*;

/// A partition of an open log. Cheap to clone; all clones are the same partition.
#[derive(Clone)]
pub struct Partition {
    pub(crate) shared: Arc<PartitionId>,
}

/// Batches that a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches, back to back, as they stand on disk. The first may begin before the offset asked for. Empty if
    /// there is nothing to read yet.
    pub batches: Bytes,
    /// Where to read on.
    pub next_offset: i64,
    /// First offset of the partition that can be read.
    pub start_offset: i64,
    /// Offset after the last of the partition that can be read (Kafka's high watermark).
    pub end_offset: i64,
}

/// Whether a read checks the batches' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Headers only.
    Headers,
    /// Every batch's checksum.
    Checksums,
}

/// The first record at or after an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// Why a partition could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset isn't there: deleted, or not yet written.
    #[error("offset {offset} of partition {partition} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        offset: i64,
        /// First offset that can be read.
        start: i64,
        /// Offset after the last.
        end: i64,
    },
    /// The operating system could not read.
    #[error("reading {path} at {position}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Where in it.
        position: u64,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file holds something else than what was written.
    #[error("{path} is damaged at {position}: {source}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        source: BatchError,
    },
}

/// A listener's registration; dropping it ends it.
#[must_use = "the listener is removed when this is dropped"]
pub struct Subscription {}

impl Partition {
    /// Its name.
    pub fn id(&self) -> &PartitionId { todo!() }
    /// Its settings.
    pub fn options(&self) -> PartitionOptions { todo!() }
    /// Sets its settings; they hold from the next append on.
    pub fn set_options(&self, _options: PartitionOptions) { todo!() }
    /// First offset that can be read.
    pub fn start_offset(&self) -> i64 { todo!() }
    /// Offset after the last that can be read (Kafka's high watermark).
    pub fn end_offset(&self) -> i64 { todo!() }
    /// Reads whole batches from the one that holds `from_offset` on: about `max_bytes`, but at least one batch.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, _from_offset: i64, _max_bytes: usize, _verify: Verify) -> Result<Fetched, ReadError> { todo!() }
    /// The first record with a timestamp at or after `timestamp_ms`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_for_timestamp(&self, _timestamp_ms: i64) -> Result<Option<TimestampOffset>, ReadError> { todo!() }
    /// Calls `listener` with the new end offset whenever records become readable, on the commit thread: it must be
    /// quick and must not call the log.
    pub fn on_advance(&self, _listener: impl Fn(i64) + Send + Sync + 'static) -> Subscription { todo!() }
    /// Blocks until records at `offset` or later can be read, or until `deadline`. Whether they can.
    pub fn wait_for(&self, _offset: i64, _deadline: Instant) -> bool { todo!() }
    /// Makes everything before `offset` unreadable, durably, and deletes the segments that hold nothing else. Returns
    /// the new start offset.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn delete_records_before(&self, _offset: i64) -> Result<i64, PartitionError> { todo!() }
    /// Deletes the segments that the retention settings no longer want. Returns how many.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn enforce_retention(&self, _now_ms: i64) -> Result<u64, PartitionError> { todo!() }
    /// Keeps only the newest record of each key, if the partition is compacted. Returns how many records went.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn compact(&self, _now_ms: i64) -> Result<u64, PartitionError> { todo!() }
    /// Its counters.
    pub fn metrics(&self) -> PartitionMetrics { todo!() }
}

impl Fetched {
    /// The batches.
    pub fn batches(&self) -> Batches { Batches::new(self.batches.clone()) }
}
#[allow(unused)]
fn unused(_: Duration) {}
