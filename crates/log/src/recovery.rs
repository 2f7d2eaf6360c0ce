//! Opening a data folder.
use std::path::PathBuf;
use std::time::Duration;
use crate::PartitionId;

/// What opening a folder found and repaired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Whether the log was closed in order.
    pub clean_shutdown: bool,
    /// Journal frames replayed.
    pub frames_replayed: u64,
    /// Batches that the segments lacked.
    pub batches_replayed: u64,
    /// Records of these batches.
    pub records_replayed: u64,
    /// Bytes of a frame at the journal's end that was not whole: the appends in it were never acknowledged as synced.
    pub torn_bytes: u64,
    /// Bytes cut from segments, most of which the journal gave back.
    pub segment_bytes_cut: u64,
    /// Whether the checkpoint was missing or damaged, so that segments were scanned.
    pub checkpoint_rebuilt: bool,
    /// The partitions that got batches back.
    pub partitions: Vec<ReplayedPartition>,
    /// How long opening took.
    pub elapsed: Duration,
}

/// What one partition got back from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Batches replayed.
    pub batches: u64,
    /// Records replayed.
    pub records: u64,
    /// Where the partition ends now.
    pub end_offset: i64,
}

/// Why a data folder can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another log of this process, has the folder open.
    #[error("data folder {dir} is in use by another process; stop it or choose another folder")]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file operation failed.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}
