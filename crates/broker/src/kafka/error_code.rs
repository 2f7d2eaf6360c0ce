//! What Kafka's error codes say of the broker's errors. In one place, so that every API says the same.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use farol_log::BatchError;

use crate::coordinator::GroupError;
use crate::error::BrokerError;
use crate::producers::ProducerError;
use crate::transactions::TransactionError;

/// A code with a sentence for whoever reads the client's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: ResponseError,
    pub(super) message: String,
}

impl Failure {
    /// A code with a sentence.
    pub(super) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    /// The code.
    pub(super) fn code(&self) -> i16 {
        self.error.code()
    }

    /// The sentence as the codec wants it.
    pub(super) fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

impl From<&BrokerError> for Failure {
    fn from(error: &BrokerError) -> Self {
        Self::new(code(error), said(error))
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::from(&error)
    }
}

/// The code for an error of the broker.
pub(super) fn code(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::UnknownTopicOrPartition(_) => ResponseError::UnknownTopicOrPartition,
        BrokerError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        BrokerError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        BrokerError::InvalidTopicName { .. } | BrokerError::InternalTopic(_) => {
            ResponseError::InvalidTopicException
        }
        BrokerError::InvalidPartitionCount { .. } => ResponseError::InvalidPartitions,
        BrokerError::InvalidTopicConfig { .. } => ResponseError::InvalidConfig,
        BrokerError::TooLarge { what: "record" | "batch", .. } => ResponseError::MessageTooLarge,
        BrokerError::TooLarge { .. } => ResponseError::RecordListTooLarge,
        BrokerError::Fenced(error) | BrokerError::Group(error) => of_group(error),
        BrokerError::ProducerFenced { .. } => ResponseError::ProducerFenced,
        BrokerError::Producer(error) => of_producer(error),
        BrokerError::Transaction(error) => of_transaction(error),
        // Appends fail until the next start, and reads go on: what a client should do about a broken disk.
        BrokerError::Poisoned { .. }
        | BrokerError::Read { .. }
        | BrokerError::Catalog { .. }
        | BrokerError::CreatePartition { .. }
        | BrokerError::DeletePartition { .. }
        | BrokerError::Snapshot { .. } => ResponseError::KafkaStorageError,
        BrokerError::Corrupt { .. } => ResponseError::CorruptMessage,
        BrokerError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        BrokerError::Encode(error) => of_batch(error),
        // Retriable: the client looks for the broker again, and finds it when it is back.
        BrokerError::Closed => ResponseError::NotLeaderOrFollower,
    }
}

/// The code for what a group refuses.
pub(super) fn of_group(error: &GroupError) -> ResponseError {
    match error {
        GroupError::UnknownMember { .. } => ResponseError::UnknownMemberId,
        GroupError::MemberIdRequired { .. } => ResponseError::MemberIdRequired,
        GroupError::FencedInstance { .. } => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration { .. } | GroupError::NotOwner { .. } => {
            ResponseError::IllegalGeneration
        }
        GroupError::RebalanceInProgress { .. } => ResponseError::RebalanceInProgress,
        GroupError::InconsistentProtocol { .. } => ResponseError::InconsistentGroupProtocol,
        GroupError::GroupFull { .. } => ResponseError::GroupMaxSizeReached,
        GroupError::InvalidSessionTimeout { .. } => ResponseError::InvalidSessionTimeout,
        GroupError::InvalidGroupId { .. } => ResponseError::InvalidGroupId,
        GroupError::InvalidRequest(_) => ResponseError::InvalidRequest,
        // Retriable: the client looks for its coordinator again, and nothing is wrong with its group.
        GroupError::Dead { .. } | GroupError::CoordinatorFull { .. } => {
            ResponseError::CoordinatorNotAvailable
        }
        GroupError::NotFound { .. } => ResponseError::GroupIdNotFound,
        GroupError::NotEmpty { .. } => ResponseError::NonEmptyGroup,
        GroupError::Subscribed { .. } => ResponseError::GroupSubscribedToTopic,
    }
}

/// The code for a batch from a client that can't be taken.
pub(super) fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        BatchError::TooLarge { .. } => ResponseError::MessageTooLarge,
        BatchError::Magic { magic: 0 | 1 } => ResponseError::UnsupportedForMessageFormat,
        BatchError::UnknownCompression { .. } => ResponseError::UnsupportedCompressionType,
        BatchError::HeaderCut { .. }
        | BatchError::BatchCut { .. }
        | BatchError::Magic { .. }
        | BatchError::Length { .. }
        | BatchError::Checksum { .. } => ResponseError::CorruptMessage,
        _ => ResponseError::InvalidRecord,
    }
}

/// The code for a producer's batch that is refused.
fn of_producer(error: &ProducerError) -> ResponseError {
    match error {
        ProducerError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        ProducerError::InvalidEpoch { .. } => ResponseError::InvalidProducerEpoch,
        ProducerError::NotTransactional { .. } => ResponseError::InvalidTxnState,
        ProducerError::InvalidFields { .. } => ResponseError::InvalidRecord,
        ProducerError::TooManyProducers { .. } => ResponseError::PolicyViolation,
    }
}

/// The code for a call about a transaction that is refused.
fn of_transaction(error: &TransactionError) -> ResponseError {
    match error {
        TransactionError::UnknownProducerId => ResponseError::InvalidProducerIdMapping,
        TransactionError::Fenced => ResponseError::ProducerFenced,
        TransactionError::InvalidEpoch => ResponseError::InvalidProducerEpoch,
        TransactionError::Concurrent => ResponseError::ConcurrentTransactions,
        TransactionError::InvalidState { .. } => ResponseError::InvalidTxnState,
        TransactionError::InvalidTimeout { .. } => ResponseError::InvalidTransactionTimeout,
        TransactionError::TooMany { .. } => ResponseError::PolicyViolation,
    }
}

/// An error with its causes.
fn said(error: &BrokerError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        text = format!("{text}: {current}");
        cause = current.source();
    }
    text
}
