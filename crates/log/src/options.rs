//! Settings of a data folder and of its partitions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{FileSystem, RealFileSystem};

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// After an fdatasync of the journal: survives a power cut.
    #[default]
    Always,
    /// After the write; the journal is synced at least this often while there is something to sync. A killed process
    /// loses nothing, a power cut up to this much time.
    Interval(Duration),
    /// After the write; the operating system syncs when it likes, checkpoints (every [`LogOptions::checkpoint_interval`]) at the latest.
    /// A killed process loses nothing, a power cut what wasn't written yet: the end of the partition.
    Never,
}

/// What old segments are deleted for. Whole segments go, oldest first, never the one being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Delete a segment when its newest record is older than this.
    pub max_age: Option<Duration>,
    /// Delete the oldest segments while the partition has more bytes than this.
    pub max_bytes: Option<u64>,
}

/// How a compacted partition keeps only the newest record of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// How long after its timestamp a tombstone (record without value) stays at least.
    pub tombstone_grace: Duration,
    /// Compact when at least so many bytes came since the last time; the segment being written is rolled for it.
    pub min_dirty_bytes: u64,
    /// Compact also when the oldest record that came since the last time is older than this. Looked at every few seconds.
    pub max_lag: Option<Duration>,
    /// Memory for keys during one pass. A pass that would need more covers a part, and the next goes on.
    pub max_key_bytes: usize,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            tombstone_grace: Duration::from_secs(24 * 3600),
            min_dirty_bytes: 4 * 1024 * 1024,
            max_lag: None,
            max_key_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Settings of one partition. They aren't kept on disk: whoever keeps the list of topics supplies them again with
/// [`crate::Partition::set_options`]. A partition without supplied options has the defaults, which delete nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOptions {
    /// When an append is acknowledged.
    pub sync: SyncPolicy,
    /// A segment that would grow beyond this is closed and the next begun. At most 1 GiB.
    pub segment_bytes: u32,
    /// A segment whose first record was appended longer ago than this is closed, so that retention can work.
    pub segment_age: Option<Duration>,
    /// What old segments are deleted for.
    pub retention: Retention,
    /// Set for a compacted partition.
    pub compaction: Option<Compaction>,
}

impl Default for PartitionOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            segment_bytes: 128 * 1024 * 1024,
            segment_age: None,
            retention: Retention::default(),
            compaction: None,
        }
    }
}

/// Who does the log's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Background {
    /// Threads of the log's own: commit, checkpoint, maintenance.
    #[default]
    Threads,
    /// The caller's thread, inside [`crate::Log::append`], [`crate::Log::checkpoint`] and so on: every step in a
    /// repeatable order, for simulations and tests.
    Inline,
}

/// Settings of a data folder.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The data folder, made if it is missing.
    pub dir: PathBuf,
    /// Bytes of the first journal file; small, so that an empty folder opens fast.
    pub journal_first_bytes: u64,
    /// Bytes of a journal file at full size. Each is twice the one before until then.
    pub journal_bytes: u64,
    /// Bytes of batches that may wait for the commit thread; then [`crate::Log::append`] blocks and
    /// [`crate::Log::try_append`] refuses.
    pub queue_bytes: usize,
    /// Bytes of batches that one group commit takes at most, but for a single larger request.
    pub group_bytes: usize,
    /// Bytes of the batches of one request at most.
    pub max_request_bytes: usize,
    /// Bytes that are kept for the full disk: given up then, so that deleting and checkpoints still work. None with 0.
    pub reserve_bytes: u64,
    /// Checkpoint after so many bytes of appends ...
    pub checkpoint_bytes: u64,
    /// ... or after this time if anything was appended.
    pub checkpoint_interval: Duration,
    /// How often retention and compaction look at the partitions.
    pub maintenance_interval: Duration,
    /// Who does the work.
    pub background: Background,
    /// Where the files are.
    pub file_system: Arc<dyn FileSystem>,
}

impl LogOptions {
    /// The defaults for a folder on the real file system.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            dir: dir.into(),
            journal_first_bytes: 4 * MIB as u64,
            journal_bytes: 64 * MIB as u64,
            queue_bytes: 64 * MIB,
            group_bytes: 4 * MIB,
            max_request_bytes: 32 * MIB,
            reserve_bytes: 256 * 1024,
            checkpoint_bytes: 16 * MIB as u64,
            checkpoint_interval: Duration::from_secs(10),
            maintenance_interval: Duration::from_secs(30),
            background: Background::Threads,
            file_system: Arc::new(RealFileSystem),
        }
    }
}
