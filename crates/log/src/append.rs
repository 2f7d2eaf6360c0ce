//! What an append asks for and how it ends.

use std::sync::Arc;
use std::sync::mpsc;

use crate::Partition;
use crate::batch::Batch;
use crate::id::PartitionId;

/// Why a precondition refused an append; whoever set it can downcast it.
pub type Rejection = Box<dyn std::error::Error + Send + Sync>;

/// Asked by the thread that commits, in the order of the queue, just before the request's group is written. Must be quick and
/// must not call the log.
pub type Precondition = Box<dyn FnOnce() -> Result<(), Rejection> + Send>;

/// Batches to append, all or none, to one or several partitions.
pub struct AppendRequest {
    pub(crate) batches: Vec<(Partition, Batch)>,
    pub(crate) precondition: Option<Precondition>,
}

/// What the log did with an appended request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The base offset of each batch, in the order of the request.
    pub base_offsets: Vec<i64>,
}

/// How an append ended.
pub type AppendResult = Result<Appended, AppendError>;

/// Called once with the result, on the thread that commits: must be quick and must not block. That is the commit thread, or the one
/// that appends ([`crate::Log::try_append`]), which then must hold no lock that a callback takes.
pub type OnAppended = Box<dyn FnOnce(AppendResult) + Send>;

/// Why nothing of a request was appended. For [`AppendError::LogPoisoned`] the outcome is open until the folder is
/// opened again: all of the request may then be there, or none.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A request without batches.
    #[error("an append without batches")]
    Empty,
    /// The request is over a bound of the log.
    #[error("append of {bytes} bytes is over the limit of {limit} bytes a request")]
    TooLarge {
        /// Bytes of its batches.
        bytes: usize,
        /// `max_request_bytes`.
        limit: usize,
    },
    /// A batch belongs to a partition of another log, or to one that was deleted.
    #[error("partition {partition} was deleted or belongs to another log")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The precondition refused.
    #[error("append refused by its precondition: {0}")]
    Rejected(Rejection),
    /// A write to the partition failed, now or earlier. Nothing of this request was appended.
    #[error("partition {partition} takes no more appends: {reason}")]
    PartitionPoisoned {
        /// The partition.
        partition: PartitionId,
        /// What failed.
        reason: Arc<str>,
    },
    /// A write or sync of the journal, or a sync of a segment, failed, now or earlier.
    #[error("the log takes no more appends until it is opened again: {reason}")]
    LogPoisoned {
        /// What failed.
        reason: Arc<str>,
    },
    /// The disk is full. Nothing of this request was appended; appends go on by themselves once there is space.
    #[error("the log takes no appends until there is space on the disk: {reason}")]
    WaitingForSpace {
        /// What could not be written.
        reason: Arc<str>,
    },
    /// No checkpoint can be written, and the journal has no place without one. Nothing of this request was appended; appends go on
    /// by themselves once the folder can be written.
    #[error("the log takes no appends until its folder can be written again: {reason}")]
    FolderNotWritable {
        /// What could not be written.
        reason: Arc<str>,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// A request that [`crate::Log::try_append`] gives back because the queue is full.
pub struct QueueFull {
    /// The request, untouched.
    pub request: AppendRequest,
    /// The callback, not called.
    pub on_appended: OnAppended,
}

/// An append on its way.
#[derive(Debug)]
pub struct PendingAppend {
    result: mpsc::Receiver<AppendResult>,
}

impl AppendRequest {
    /// Appends one batch to one partition.
    pub fn single(partition: Partition, batch: Batch) -> Self {
        Self::new(vec![(partition, batch)])
    }

    /// Appends several batches in order, all or none, also across a crash.
    pub fn new(batches: Vec<(Partition, Batch)>) -> Self {
        Self { batches, precondition: None }
    }

    /// Appends only if `precondition` agrees when the turn of the request's group has come.
    #[must_use]
    pub fn with_precondition(
        mut self,
        precondition: impl FnOnce() -> Result<(), Rejection> + Send + 'static,
    ) -> Self {
        self.precondition = Some(Box::new(precondition));
        self
    }

    /// Bytes of the batches.
    pub fn total_bytes(&self) -> usize {
        self.batches.iter().fold(0usize, |sum, (_, batch)| sum.saturating_add(batch.bytes().len()))
    }
}

impl PendingAppend {
    pub(crate) fn new() -> (OnAppended, Self) {
        let (sender, result) = mpsc::sync_channel(1);
        let on_appended = Box::new(move |outcome| {
            // Nobody waits any more: the append counts all the same.
            let _ = sender.send(outcome);
        });
        (on_appended, Self { result })
    }

    /// Blocks until the append is decided.
    ///
    /// # Errors
    /// The [`AppendError`] that it ended with.
    pub fn wait(self) -> AppendResult {
        self.result.recv().unwrap_or(Err(AppendError::Closed))
    }
}

impl std::fmt::Debug for AppendRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let partitions: Vec<_> = self.batches.iter().map(|(partition, _)| partition.id()).collect();
        f.debug_struct("AppendRequest").field("partitions", &partitions).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for QueueFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueFull").field("request", &self.request).finish_non_exhaustive()
    }
}
