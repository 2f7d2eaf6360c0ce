//! Many partitions of record batches in one data folder, appended durably through one shared journal.
//!
//! Modules, in reading order:
//!
//! * [`batch`]: the record-batch format, encoder and decoder;
//! * [`append`](AppendRequest): what an append asks for and how it ends;
//! * [`fs`]: the file system behind a trait.

mod append;
pub mod batch;
pub mod fs;
mod id;
mod log;
mod metrics;
mod options;
mod partition;
mod recovery;

pub use append::{
    AppendError, AppendRequest, AppendResult, Appended, OnAppended, PendingAppend, Precondition, QueueFull, Rejection,
};
pub use batch::{Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, Batches, Compression, Record, RecordHeader};
pub use id::{PartitionId, PartitionIdError};
pub use log::{CloseError, Log, PartitionError};
pub use metrics::{LogMetrics, PartitionMetrics, SYNC_BUCKETS};
pub use options::{Background, Compaction, LogOptions, PartitionOptions, Retention, SyncPolicy};
pub use partition::{Fetched, Partition, ReadError, Subscription, TimestampOffset, Verify};
pub use recovery::{OpenError, RecoveryReport, ReplayedPartition};
