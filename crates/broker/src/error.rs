//! What can go wrong.

use std::path::PathBuf;

use farol_log::{AppendError, BatchError, PartitionError, PartitionId, ReadError};

use crate::coordinator::GroupError;
use crate::partition::TopicPartition;

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No such topic, or no such partition of it.
    #[error("there is no {0}")]
    UnknownTopicOrPartition(String),
    /// No topic has this id.
    #[error("there is no topic with the id {0}")]
    UnknownTopicId(uuid::Uuid),
    /// A topic of that name exists.
    #[error("topic `{0}` exists already")]
    TopicExists(String),
    /// A topic can't have this name.
    #[error("topic `{topic}`: {problem}")]
    InvalidTopicName {
        /// The name, or its beginning.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// A topic can't have so many partitions.
    #[error("topic `{topic}`: {problem}")]
    InvalidPartitionCount {
        /// Which topic.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// A topic can't have this configuration.
    #[error("topic `{topic}`: {problem}")]
    InvalidTopicConfig {
        /// Which topic.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// A topic of the broker's own, with which nobody else may do this.
    #[error("topic `{0}` is the broker's own")]
    InternalTopic(String),
    /// A bound was passed.
    #[error("{bytes} bytes are more than the {limit} that one {what} may have")]
    TooLarge {
        /// What was too large: `record`, `request`, `transaction`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A commit of a member that has lost its membership, generation or partition.
    #[error("fenced: {0}")]
    Fenced(GroupError),
    /// Something else that a group refuses.
    #[error(transparent)]
    Group(GroupError),
    /// A transactional producer that was replaced by a newer one.
    #[error("fenced: a newer producer has the transactional id `{transactional_id}`")]
    ProducerFenced {
        /// The id.
        transactional_id: String,
    },
    /// A batch of an idempotent or transactional producer was refused.
    #[error(transparent)]
    Producer(crate::producers::ProducerError),
    /// A call about a client's transaction was refused.
    #[error(transparent)]
    Transaction(crate::transactions::TransactionError),
    /// The file that remembers a partition's producers could not be made.
    #[error("the file of producers of {partition}: {problem}")]
    Snapshot {
        /// The partition.
        partition: String,
        /// What failed.
        problem: String,
    },
    /// The partition or the whole log takes no more appends.
    #[error("{partition} refuses appends: {problem}")]
    Poisoned {
        /// Which partition, or `the log`.
        partition: String,
        /// What failed, and what to do.
        problem: String,
    },
    /// A batch is damaged.
    #[error("{position} is damaged: {problem}")]
    Corrupt {
        /// `topic/partition@offset`.
        position: String,
        /// What was found.
        problem: String,
    },
    /// The offset isn't there: deleted, or not yet written.
    #[error("offset {offset} of {partition} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// The first that can be read.
        start: i64,
        /// After the last.
        end: i64,
    },
    /// The operating system could not read.
    #[error("reading {partition} at offset {offset}: {problem}")]
    Read {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// What failed.
        problem: String,
    },
    /// Records could not be encoded.
    #[error("encoding a batch")]
    Encode(#[source] BatchError),
    /// The list of topics could not be written.
    #[error("writing {path}: {source}")]
    Catalog {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A partition's folder could not be made.
    #[error("making a partition of topic `{topic}`")]
    CreatePartition {
        /// The topic.
        topic: String,
        /// What failed.
        source: PartitionError,
    },
    /// A partition could not be deleted.
    #[error("deleting a partition of topic `{topic}`")]
    DeletePartition {
        /// The topic.
        topic: String,
        /// What failed.
        source: PartitionError,
    },
    /// The broker is closing or closed.
    #[error("the broker is closed")]
    Closed,
}

/// What to do about a poisoned partition: part of every error about one.
const POISON_ADVICE: &str =
    "free space or replace the disk, then restart; what was acknowledged stays readable";
/// The same about a full disk.
const SPACE_ADVICE: &str =
    "free space, and appends are taken again by themselves; what was acknowledged stays readable";
/// The same about a folder that can't be written.
const FOLDER_ADVICE: &str = "make the folder writable, and appends are taken again by themselves; what was acknowledged stays readable";

impl BrokerError {
    /// What the log said of an append.
    pub(crate) fn from_append(error: AppendError) -> Self {
        match error {
            AppendError::Empty => Self::Encode(BatchError::Empty),
            AppendError::TooLarge { bytes, limit } => Self::TooLarge { what: "request", bytes, limit },
            AppendError::UnknownPartition { partition } => Self::UnknownTopicOrPartition(spoken(&partition)),
            AppendError::Rejected(rejection) => match rejection.downcast::<BrokerError>() {
                Ok(error) => *error,
                Err(other) => Self::Poisoned { partition: "the log".to_owned(), problem: other.to_string() },
            },
            AppendError::PartitionPoisoned { partition, reason } => Self::Poisoned {
                partition: spoken(&partition),
                problem: format!("{reason}; {POISON_ADVICE}"),
            },
            AppendError::LogPoisoned { reason } => Self::Poisoned {
                partition: "the log".to_owned(),
                problem: format!("{reason}; {POISON_ADVICE}"),
            },
            AppendError::WaitingForSpace { reason } => Self::Poisoned {
                partition: "the log".to_owned(),
                problem: format!("{reason}; {SPACE_ADVICE}"),
            },
            AppendError::FolderNotWritable { reason } => Self::Poisoned {
                partition: "the log".to_owned(),
                problem: format!("{reason}; {FOLDER_ADVICE}"),
            },
            AppendError::Closed => Self::Closed,
        }
    }

    /// What the log said of a read of `partition` from `offset` on.
    pub fn from_read(partition: &TopicPartition, offset: i64, error: &ReadError) -> Self {
        match error {
            ReadError::OffsetOutOfRange { offset, start, end, .. } => Self::OffsetOutOfRange {
                partition: partition.clone(),
                offset: *offset,
                start: *start,
                end: *end,
            },
            ReadError::Io { .. } => {
                let problem = match std::error::Error::source(error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                Self::Read { partition: partition.clone(), offset, problem }
            }
            ReadError::Damaged { .. } => {
                Self::Corrupt { position: partition.at(offset).to_string(), problem: error.to_string() }
            }
        }
    }

    /// What the codec said of a stored batch of `partition` that begins at `offset`.
    pub fn from_batch(partition: &TopicPartition, offset: i64, error: &BatchError) -> Self {
        Self::Corrupt { position: partition.at(offset).to_string(), problem: error.to_string() }
    }
}

/// A partition as people write it: `sensor-data/0`.
fn spoken(id: &PartitionId) -> String {
    match id.as_str().rsplit_once('-') {
        Some((topic, partition)) => format!("{topic}/{partition}"),
        None => id.to_string(),
    }
}

/// Why a broker can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log can't be opened: folder in use, not writable, ….
    #[error(transparent)]
    Log(#[from] farol_log::OpenError),
    /// The list of topics can't be read.
    #[error("reading the list of topics {path}: {source}")]
    ReadCatalog {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The list of topics isn't one.
    #[error("the list of topics {path} can't be used: {problem}; restore it from a backup")]
    Catalog {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A topic of the list can't be opened, or the internal one can't be made.
    #[error("opening topics")]
    Topic(#[source] BrokerError),
    /// The committed offsets can't be read back.
    #[error("reading committed offsets")]
    Offsets(#[source] BrokerError),
    /// What partitions remember of producers can't be read.
    #[error("reading what partitions remember of producers")]
    Producers(#[source] PartitionError),
    /// The transactional ids can't be read back.
    #[error("reading transactional ids")]
    Transactions(#[source] BrokerError),
    /// There is no runtime whose timers could be used.
    #[error("a broker must be opened within a Tokio runtime")]
    NoRuntime,
}
