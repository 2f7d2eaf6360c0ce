//! One partition: its segments, what of them can be read, and who is told when there is more.
//!
//! Three parties share a partition. Whoever commits, one at a time, appends through [`writer`]. Readers see the [`View`]: the
//! segments, the first offset, and how far appends are committed; nothing beyond is ever returned. Maintenance
//! (retention, compaction, deletion) replaces or removes whole segments below the checkpoint, one pass at a time.

mod compact;
mod companion;
mod locate;
mod read;
mod retain;
mod stored;
pub(crate) mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::batch::{BatchError, BatchHeader, Batches};
use crate::fs::FileSystem;
use crate::id::PartitionId;
use crate::log::{PartitionError, Shared};
use crate::metrics::{PartitionCounters, PartitionMetrics};
use crate::options::{PartitionOptions, SyncPolicy};
use crate::segment::Segment;

pub use compact::CompactionGuard;
pub(crate) use compact::finish_interrupted;
pub use locate::Located;
pub use read::Verify;
pub use stored::StoredBatches;
use writer::Writer;

/// A partition of an open log. Cheap to clone; all clones are the same partition.
#[derive(Clone)]
pub struct Partition {
    pub(crate) inner: Arc<PartitionInner>,
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
    #[error("reading {path} at {position}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file holds something else than what was written.
    #[error("{path} is damaged at {position}: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        source: BatchError,
    },
}

type Listener = Arc<dyn Fn(i64) + Send + Sync>;

/// What all handles of a partition share.
pub(crate) struct PartitionInner {
    pub(crate) id: PartitionId,
    /// Names the partition in the journal; never used again after a deletion.
    pub(crate) number: u32,
    pub(crate) dir: PathBuf,
    pub(crate) file_system: Arc<dyn FileSystem>,
    /// Set once the log is open.
    pub(crate) log: OnceLock<Weak<Shared>>,
    pub(crate) options: RwLock<PartitionOptions>,
    pub(crate) view: RwLock<View>,
    pub(crate) writer: Mutex<Writer>,
    /// What the newest durable checkpoint says of this partition.
    pub(crate) checkpointed: Mutex<Committed>,
    /// Held by retention, compaction and deletion.
    pub(crate) maintenance: Mutex<()>,
    /// Offset below which every key is unique already. Only an optimisation: 0 is always right.
    pub(crate) compacted_through: AtomicI64,
    pub(crate) compaction_guard: RwLock<Option<Arc<dyn CompactionGuard>>>,
    pub(crate) deleted: AtomicBool,
    /// Whether checkpoints leave it out, which is what deletes it. Changed only while none is being written.
    pub(crate) unlisted: AtomicBool,
    pub(crate) poison: OnceLock<Arc<str>>,
    pub(crate) counters: PartitionCounters,
    /// By number, so that one goes quickly however many there are.
    listeners: RwLock<BTreeMap<u64, Listener>>,
    next_listener: AtomicU64,
}

/// What readers see.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) start_offset: i64,
    /// In order of their base offsets; never empty. The last is the one being written.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) committed: Committed,
}

/// How far appends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) end_offset: i64,
    /// Base offset of the segment that holds the end.
    pub(crate) segment_base: i64,
    /// Where the end is in that segment.
    pub(crate) position: u64,
    /// Newest timestamp in that segment up to there.
    pub(crate) max_timestamp_ms: i64,
}

/// A listener's registration; dropping it ends it.
#[must_use = "the listener is removed when this is dropped"]
pub struct Subscription {
    partition: Weak<PartitionInner>,
    number: u64,
}

impl PartitionInner {
    /// A partition whose files stand as `view` says.
    pub(crate) fn new(
        file_system: Arc<dyn FileSystem>,
        id: PartitionId,
        number: u32,
        dir: PathBuf,
        options: PartitionOptions,
        view: View,
    ) -> Option<Self> {
        let writer = Writer::at_end_of(&view)?;
        Some(Self {
            id,
            number,
            dir,
            file_system,
            log: OnceLock::new(),
            options: RwLock::new(options),
            checkpointed: Mutex::new(view.committed),
            view: RwLock::new(view),
            writer: Mutex::new(writer),
            maintenance: Mutex::default(),
            compacted_through: AtomicI64::new(0),
            compaction_guard: RwLock::default(),
            deleted: AtomicBool::new(false),
            unlisted: AtomicBool::new(false),
            poison: OnceLock::new(),
            counters: PartitionCounters::default(),
            listeners: RwLock::default(),
            next_listener: AtomicU64::new(0),
        })
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn is_never_synced(&self) -> bool {
        self.options.read().sync == SyncPolicy::Never
    }

    /// Refuses appends from now on; the first reason stays.
    pub(crate) fn poison(&self, reason: &str) {
        if self.poison.set(reason.into()).is_ok() {
            tracing::error!(partition = %self.id, reason, "partition takes no more appends");
        }
    }

    /// Makes what the writer wrote readable.
    pub(crate) fn publish(&self) {
        let mut writer = self.writer.lock();
        let mut view = self.view.write();
        view.segments.append(&mut writer.new_segments);
        view.committed = writer.committed();
    }

    /// Tells the listeners how far the partition now reaches.
    pub(crate) fn notify(&self) {
        let listeners = self.listeners.read();
        if listeners.is_empty() {
            return;
        }
        let end_offset = self.view.read().committed.end_offset;
        for listener in listeners.values() {
            listener(end_offset);
        }
    }
}

impl Partition {
    /// Its name.
    pub fn id(&self) -> &PartitionId {
        &self.inner.id
    }

    /// Whether it was deleted: nothing comes any more, and one of the same name is another.
    pub fn is_deleted(&self) -> bool {
        self.inner.is_deleted()
    }

    /// Its settings.
    pub fn options(&self) -> PartitionOptions {
        self.inner.options.read().clone()
    }

    /// Sets its settings; they hold from the next append on.
    pub fn set_options(&self, options: PartitionOptions) {
        *self.inner.options.write() = options;
    }

    /// Tells compaction what it must know of transactions. The guard must not hold the partition, or neither is ever freed.
    pub fn set_compaction_guard(&self, guard: Arc<dyn CompactionGuard>) {
        *self.inner.compaction_guard.write() = Some(guard);
    }

    /// First offset that can be read.
    pub fn start_offset(&self) -> i64 {
        self.inner.view.read().start_offset
    }

    /// Offset after the last that can be read (Kafka's high watermark).
    pub fn end_offset(&self) -> i64 {
        self.inner.view.read().committed.end_offset
    }

    /// Bytes of its segments, as far as they are committed.
    pub fn size_bytes(&self) -> u64 {
        self.inner.view.read().size_bytes()
    }

    /// Reads whole batches from the one that holds `from_offset` on: about `max_bytes`, but at least one batch. Where
    /// compaction left a gap, from the next that is there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, from_offset: i64, max_bytes: usize, verify: Verify) -> Result<Fetched, ReadError> {
        self.inner.read(from_offset, max_bytes, verify)
    }

    /// Like [`Partition::read`], but says where the batches lie instead of reading them, and takes none that begins at or
    /// after `before_offset`. Looks at a few headers; checksums are left to whoever reads the batches.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn locate(
        &self,
        from_offset: i64,
        max_bytes: usize,
        before_offset: i64,
    ) -> Result<Located, ReadError> {
        self.inner.locate(from_offset, max_bytes, before_offset)
    }

    /// The first record with a timestamp at or after `timestamp_ms`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampOffset>, ReadError> {
        self.inner.offset_for_timestamp(timestamp_ms)
    }

    /// The newest timestamp of its records, in milliseconds since the Unix epoch; `None` without records.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn max_timestamp_ms(&self) -> Result<Option<i64>, ReadError> {
        self.inner.max_timestamp_ms()
    }

    /// Calls `see` with the header of every batch that ends at or after `from_offset`, in order. Reads headers only, so
    /// checksums are not verified.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn visit_headers(&self, from_offset: i64, see: impl FnMut(&BatchHeader)) -> Result<(), ReadError> {
        self.inner.visit_headers(from_offset, see)
    }

    /// Calls `listener` with the new end offset whenever records become readable, on the thread that commits: it must be
    /// quick and must not call the log. The callbacks of the appends that made them readable have been called before.
    pub fn on_advance(&self, listener: impl Fn(i64) + Send + Sync + 'static) -> Subscription {
        let number = self.inner.next_listener.fetch_add(1, Ordering::Relaxed);
        self.inner.listeners.write().insert(number, Arc::new(listener));
        Subscription { partition: Arc::downgrade(&self.inner), number }
    }

    /// Blocks until a record at `offset` or later can be read, or until `deadline`. Whether one can.
    pub fn wait_for(&self, offset: i64, deadline: Instant) -> bool {
        let (sender, advanced) = mpsc::sync_channel(1);
        let _subscription = self.on_advance(move |_| {
            // A message that waits already says the same.
            let _ = sender.try_send(());
        });
        loop {
            if self.end_offset() > offset {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || advanced.recv_timeout(left).is_err() {
                return self.end_offset() > offset;
            }
        }
    }

    /// Makes everything before `offset` unreadable, durably, and deletes the segments that hold nothing else. Returns
    /// the new start offset.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn delete_records_before(&self, offset: i64) -> Result<i64, PartitionError> {
        self.inner.delete_records_before(offset)
    }

    /// Deletes the segments that the retention settings no longer want, and closes the one being written if it is old
    /// enough. Returns how many segments went. The log does it by itself now and then.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn enforce_retention(&self, now_ms: i64) -> Result<u64, PartitionError> {
        self.inner.enforce_retention(now_ms)
    }

    /// Keeps only the newest record of each key, if the partition is compacted. Returns how many records went. The log
    /// does it by itself now and then.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn compact(&self, now_ms: i64) -> Result<u64, PartitionError> {
        self.inner.compact(now_ms)
    }

    /// Its counters.
    pub fn metrics(&self) -> PartitionMetrics {
        let counters = &self.inner.counters;
        let view = self.inner.view.read();
        PartitionMetrics {
            batches: counters.batches.get(),
            records: counters.records.get(),
            bytes: counters.bytes.get(),
            bytes_read: counters.bytes_read.get(),
            start_offset: view.start_offset,
            end_offset: view.committed.end_offset,
            segments: view.segments.len() as u64,
            size_bytes: view.size_bytes(),
            records_compacted: counters.records_compacted.get(),
            segments_deleted: counters.segments_deleted.get(),
            poisoned: self.inner.poison.get().cloned(),
        }
    }
}

impl Committed {
    /// Of a new partition.
    pub(crate) const NOTHING: Committed =
        Committed { end_offset: 0, segment_base: 0, position: 0, max_timestamp_ms: i64::MIN };
}

impl View {
    /// Bytes that are committed.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| self.committed_bytes(segment)).sum()
    }

    /// Bytes of a segment that are committed.
    pub(crate) fn committed_bytes(&self, segment: &Segment) -> u64 {
        if segment.base_offset() == self.committed.segment_base {
            self.committed.position
        } else {
            segment.len()
        }
    }
}

impl Fetched {
    /// The batches, one by one.
    pub fn batches(&self) -> Batches {
        Batches::new(self.batches.clone())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(partition) = self.partition.upgrade() {
            partition.listeners.write().remove(&self.number);
        }
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Partition").field(&self.inner.id).finish()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("number", &self.number).finish_non_exhaustive()
    }
}
