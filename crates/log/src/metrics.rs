//! Counters of the log, as plain numbers for others to export.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`DurationCounts`]; one more bucket holds what took longer.
pub const DURATION_BUCKETS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// How long something took, each time that it was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DurationCounts {
    /// How often, by [`DURATION_BUCKETS`]; not cumulative.
    pub buckets: [u64; DURATION_BUCKETS.len() + 1],
    /// All of it together.
    pub total: Duration,
}

impl DurationCounts {
    /// How often it was done.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The live counters behind [`DurationCounts`].
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; DURATION_BUCKETS.len() + 1],
    nanos: Counter,
}

impl Durations {
    /// Counts one that took so long.
    pub fn count(&self, took: Duration) {
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < took);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The counters as they stand.
    pub fn snapshot(&self) -> DurationCounts {
        DurationCounts {
            buckets: self.buckets.each_ref().map(Counter::get),
            total: Duration::from_nanos(self.nanos.get()),
        }
    }
}

/// Counters of a log since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogMetrics {
    /// Group commits.
    pub groups: u64,
    /// Requests acknowledged.
    pub requests: u64,
    /// Requests refused or failed.
    pub requests_failed: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of acknowledged batches.
    pub bytes: u64,
    /// Bytes written to the journal, frame headers included.
    pub journal_bytes: u64,
    /// Journal files on disk.
    pub journal_files: u64,
    /// Syncs of the journal.
    pub syncs: DurationCounts,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Times that a commit waited for a journal file to become free.
    pub journal_waits: u64,
    /// Bytes of batches waiting for the commit thread.
    pub queued_bytes: u64,
    /// Requests waiting for the commit thread.
    pub queued_requests: u64,
    /// Why the log takes no more appends.
    pub poisoned: Option<Arc<str>>,
    /// Times that the log found the disk full and stopped taking appends.
    pub full_disks: u64,
    /// Why the log takes no appends for now: the disk is full.
    pub waiting_for_space: Option<Arc<str>>,
    /// Why the log takes no appends for now: its folder can't be written.
    pub folder_not_writable: Option<Arc<str>>,
}

/// Counters of a partition since it was opened, and its extent now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionMetrics {
    /// Batches acknowledged.
    pub batches: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of acknowledged batches.
    pub bytes: u64,
    /// Bytes returned by reads.
    pub bytes_read: u64,
    /// First offset that can be read.
    pub start_offset: i64,
    /// Offset after the last that can be read.
    pub end_offset: i64,
    /// Segments on disk.
    pub segments: u64,
    /// Bytes of the segments.
    pub size_bytes: u64,
    /// Records left out by compaction.
    pub records_compacted: u64,
    /// Segments deleted by retention.
    pub segments_deleted: u64,
    /// Why the partition takes no more appends.
    pub poisoned: Option<Arc<str>>,
}

/// A counter that many threads may move.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The live counters behind [`LogMetrics`].
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(crate) groups: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_failed: Counter,
    pub(crate) batches: Counter,
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) journal_bytes: Counter,
    pub(crate) journal_files: Counter,
    pub(crate) journal_waits: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) full_disks: Counter,
    pub(crate) syncs: Durations,
}

impl LogCounters {
    /// The counters as they stand; the caller adds what it knows of the queue.
    pub(crate) fn snapshot(&self) -> LogMetrics {
        LogMetrics {
            groups: self.groups.get(),
            requests: self.requests.get(),
            requests_failed: self.requests_failed.get(),
            batches: self.batches.get(),
            records: self.records.get(),
            bytes: self.bytes.get(),
            journal_bytes: self.journal_bytes.get(),
            journal_files: self.journal_files.get(),
            syncs: self.syncs.snapshot(),
            checkpoints: self.checkpoints.get(),
            journal_waits: self.journal_waits.get(),
            full_disks: self.full_disks.get(),
            ..LogMetrics::default()
        }
    }
}

/// The live counters behind [`PartitionMetrics`].
#[derive(Debug, Default)]
pub(crate) struct PartitionCounters {
    pub(crate) batches: Counter,
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) bytes_read: Counter,
    pub(crate) records_compacted: Counter,
    pub(crate) segments_deleted: Counter,
}
