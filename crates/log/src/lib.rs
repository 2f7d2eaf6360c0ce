//! Many partitions of record batches in one data folder, appended durably through one shared journal.
//!
//! It knows bytes, batches and offsets. It knows nothing of events, of what a topic means, or of Kafka's requests; it
//! uses plain threads and files, no async runtime.

mod append;
pub mod batch;
mod checkpoint;
mod commit;
pub mod fs;
mod id;
mod journal;
mod log;
mod metrics;
mod options;
mod partition;
mod queue;
mod recovery;
mod segment;

pub use append::{
    AppendError, AppendRequest, AppendResult, Appended, OnAppended, PendingAppend, Precondition, QueueFull,
    Rejection,
};
pub use batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, Batches, Compression, Record, RecordHeader,
};
pub use id::{PartitionId, PartitionIdError};
pub use log::{CloseError, Log, PartitionError};
pub use metrics::{LogMetrics, PartitionMetrics, SYNC_BUCKETS};
pub use options::{Background, Compaction, LogOptions, PartitionOptions, Retention, SyncPolicy};
pub use partition::{Fetched, Partition, ReadError, Subscription, TimestampOffset, Verify};
pub use recovery::{OpenError, RecoveryReport, ReplayedPartition};
