//! Many partitions of record batches in one data folder, appended durably through one shared journal.
//!
//! It knows bytes, batches and offsets. It knows nothing of events, of what a topic means, or of Kafka's requests. It
//! uses plain threads and files and no async runtime: results come through callbacks ([`OnAppended`],
//! [`Partition::on_advance`]) that an async caller bridges to its own channels.
//!
//! # Limits and invariants
//!
//! * An append is acknowledged when its batches are in the journal and, by [`SyncPolicy`], synced; under [`SyncPolicy::Never`] when
//!   they are in their segment and the journal names them. Nothing that isn't acknowledged can be read.
//! * A request to several partitions is there wholly or not at all, also after a power cut.
//! * Offsets rise by one, without gaps but those that compaction leaves; appends of one thread keep their order.
//! * Bounded: the queue ([`LogOptions::queue_bytes`]), a request ([`LogOptions::max_request_bytes`]), a segment (1 GiB),
//!   the journal (4 files of [`LogOptions::journal_bytes`]), decompression (64 MiB a batch). One process at a time has a
//!   folder open.
//!
//! # Layout
//!
//! ```text
//! data folder/
//!   version                            "farol-log 1"
//!   lock                               held by the process that has the folder open
//!   checkpoint                         how far the segments alone are durable
//!   reserve                            space that is given up when the disk is full, so that deleting still works
//!   journal/00000000000000000000.journal   frames, one a group commit; files are used again and again
//!   partitions/sensor-data-0/
//!     partition                        its number in the journal
//!     00000000000000000000.log         record batches back to back, named by the first offset
//!     00000000000000000000.index       offset → position, sparse; can be made again
//!     00000000000000000000.timeindex   timestamp → offset, sparse; can be made again
//!     NAME.companion                   what somebody keeps beside the segments ([`Partition::save_companion`])
//! ```
//!
//! # Writing
//!
//! The caller encodes batches on its own thread ([`BatchBuilder`]) or validates foreign ones ([`Batch::validate`]).
//! The commit thread takes all requests that have queued up, assigns offsets, writes the batches to their segments
//! (buffered) and once more, together, to the journal, syncs the journal once, makes the batches readable and answers.
//! Batches that nobody waits to be synced ([`SyncPolicy::Never`]) are written once only, and the journal names them; before something is
//! synced that comes after them in their partition, their segments are.
//! So a sync is shared by everything that waits for one, across partitions. What waits for no sync ([`SyncPolicy::Never`]) is
//! committed by whoever appends it, before [`Log::try_append`] returns, unless somebody else is at it: two changes of threads would
//! take longer than the commit. A checkpoint thread syncs the segments behind
//! it and frees journal files. Why: `docs/decisions/0001-shared-journal.md`.
//!
//! # Reading
//!
//! [`Partition::read`] gives whole batches as they stand on disk, from any offset, and never waits for a commit. Indexes
//! of old segments are loaded when first needed, so opening a folder doesn't depend on its size.
//!
//! # Deleting
//!
//! Whole segments below the checkpoint go: by age or size ([`Retention`]), or on request
//! ([`Partition::delete_records_before`]). A compacted partition ([`Compaction`]) keeps the newest record of each key.
//!
//! # Failures
//!
//! | what | then |
//! | --- | --- |
//! | process killed | opening replays the journal; nothing acknowledged is lost, whatever the policy |
//! | power cut | the same for what was synced, and a partition has no gap before it; a torn tail is cut and reported ([`RecoveryReport`]) |
//! | a batch that the journal only names is damaged | its partition is cut there; what the journal holds of what came later follows after a gap |
//! | the disk is full | what didn't fit is taken back and refused; everything can be read; appends are taken again by themselves once there is space |
//! | no checkpoint can be written | appends go on while the journal has room; then the same, until the folder can be written |
//! | a segment can't be written for another reason | its partition takes no more appends until the folder is opened again |
//! | the journal can't be written or synced, a segment can't be synced | the log takes no more appends; reads go on |
//! | a synced journal frame is damaged | opening is refused and names it ([`OpenError`]); nothing is changed |
//! | the checkpoint is lost | segments are read and verified instead |
//!
//! # Speed
//!
//! `cargo bench -p farol-log` prints it; figures of the reference machine are in `docs/decisions/0001-shared-journal.md`.
//!
//! # Example
//!
//! ```
//! use farol_log::{AppendRequest, BatchBuilder, Log, LogOptions, PartitionId, PartitionOptions, Verify};
//!
//! # let dir = tempfile::tempdir()?;
//! let (log, _report) = Log::open(LogOptions::new(dir.path()))?;
//! let partition = log.create_partition(&PartitionId::new("sensor-data-0")?, PartitionOptions::default())?;
//! let mut builder = BatchBuilder::default();
//! builder.push(Some(b"temp-1"), Some(br#"{"value": 42.5}"#), &[], 1_758_058_901_011)?;
//! let appended = log.append(AppendRequest::single(partition.clone(), builder.build()?)).wait()?;
//! assert_eq!(appended.base_offsets, [0]);
//! let fetched = partition.read(0, 64 * 1024, Verify::Checksums)?;
//! for batch in fetched.batches() {
//!     for record in batch?.records()? {
//!         assert_eq!(record?.key.as_deref(), Some(b"temp-1".as_slice()));
//!     }
//! }
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules, in reading order
//!
//! [`batch`] (the format), `append` (what a request is), `queue` and `commit` (group commit), `journal` (frames and files),
//! `segment` and `partition` (files of a partition, reading, retention, compaction), `checkpoint`, `space` (a full disk), `recovery`,
//! `log` (the parts together), `trouble` (what is told of what fails again and again), [`fs`] (the file system, replaceable).

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
mod space;
mod trouble;

pub use append::{
    AppendError, AppendRequest, AppendResult, Appended, OnAppended, PendingAppend, Precondition, QueueFull,
    Rejection,
};
pub use batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, BatchProducer, Batches, Compression, Marker,
    Record, RecordHeader,
};
pub use id::{PartitionId, PartitionIdError};
pub use log::{CloseError, Log, PartitionError};
pub use metrics::{DURATION_BUCKETS, DurationCounts, Durations, LogMetrics, PartitionMetrics};
pub use options::{Background, Compaction, LogOptions, PartitionOptions, Retention, SyncPolicy};
pub use partition::{
    CompactionGuard, Fetched, Located, Partition, ReadError, StoredBatches, Subscription, TimestampOffset,
    Verify,
};
pub use recovery::{OpenError, RecoveryReport, ReplayedPartition};
pub use trouble::Trouble;
