//! An open data folder.
use std::sync::Arc;
use crate::*;

/// An open data folder. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Log { _shared: Arc<()> }

/// Why a partition can't be made, deleted or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// It is there already.
    #[error("partition {partition} exists already")]
    Exists {
        /// The partition.
        partition: PartitionId,
    },
    /// It isn't there.
    #[error("partition {partition} does not exist")]
    Missing {
        /// The partition.
        partition: PartitionId,
    },
    /// A file operation failed.
    #[error("partition {partition}: {step} {path}: {source}")]
    Io {
        /// The partition.
        partition: PartitionId,
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: std::path::PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// Why a log did not close in order. Everything acknowledged as synced is safe in the journal all the same.
#[derive(Debug, thiserror::Error)]
#[error("closing the log: {reason}")]
pub struct CloseError {
    reason: String,
}

impl Log {
    /// Opens or makes a data folder: takes its lock, recovers, starts the threads.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(_options: LogOptions) -> Result<(Log, RecoveryReport), OpenError> { todo!() }
    /// Makes a partition; it is durable when this returns.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn create_partition(&self, _id: &PartitionId, _options: PartitionOptions) -> Result<Partition, PartitionError> { todo!() }
    /// Deletes a partition and its records. Readers that hold it see what they have open; appends to it fail.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn delete_partition(&self, _id: &PartitionId) -> Result<(), PartitionError> { todo!() }
    /// A partition by name.
    pub fn partition(&self, _id: &PartitionId) -> Option<Partition> { todo!() }
    /// All partitions, by name.
    pub fn partitions(&self) -> Vec<Partition> { todo!() }
    /// Queues an append, blocking while the queue is full. The result comes through the returned value.
    pub fn append(&self, _request: AppendRequest) -> PendingAppend { todo!() }
    /// Queues an append, blocking while the queue is full. `on_appended` gets the result.
    pub fn append_with(&self, _request: AppendRequest, _on_appended: OnAppended) { todo!() }
    /// Queues an append if the queue has room. `on_appended` gets the result.
    ///
    /// # Errors
    /// [`QueueFull`] gives request and callback back.
    pub fn try_append(&self, _request: AppendRequest, _on_appended: OnAppended) -> Result<(), Box<QueueFull>> { todo!() }
    /// Makes the segments durable and lets journal files be used again. The log does it by itself.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn checkpoint(&self) -> Result<(), CloseError> { todo!() }
    /// Its counters.
    pub fn metrics(&self) -> LogMetrics { todo!() }
    /// Closes in order: waits for queued appends, syncs, writes a checkpoint, gives up the lock. Clones refuse after it.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn close(&self) -> Result<(), CloseError> { todo!() }
}
