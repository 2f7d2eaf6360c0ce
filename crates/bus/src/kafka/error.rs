//! librdkafka's errors in the words of the bus.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::engine::BusError;

/// An error of a call that was about `what`.
pub(super) fn bus_error(error: &KafkaError, what: &str) -> BusError {
    match error {
        KafkaError::AdminOp(code) => code_error(*code, what),
        other => match other.rdkafka_error_code() {
            Some(code) => code_error(code, what),
            None => BusError::InvalidState(format!("{what}: {error}")),
        },
    }
}

/// The same by the code alone.
pub(super) fn code_error(code: Code, what: &str) -> BusError {
    let text = format!("{what}: {}", describe(code));
    match code {
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => BusError::UnknownTopicOrPartition(what.to_owned()),
        Code::TopicAlreadyExists => BusError::TopicExists(what.to_owned()),
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::PolicyViolation => BusError::InvalidTopic { topic: what.to_owned(), problem: describe(code) },
        code if is_fenced(code) => BusError::Fenced(text),
        Code::KafkaStorageError => BusError::Poisoned { partition: what.to_owned(), problem: describe(code) },
        Code::BadMessage | Code::InvalidMessage | Code::BadCompression => {
            BusError::Corrupt { position: what.to_owned(), problem: describe(code) }
        }
        code if is_final(code) => BusError::InvalidState(text),
        // Whatever else there is passes: connections, leaders, coordinators, timeouts.
        _ => BusError::Unavailable(text),
    }
}

/// Whether a member or producer was told that it is no longer the one.
pub(super) fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::TransactionCoordinatorFenced
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
            | Code::AssignmentLost
    )
}

/// Whether trying again can't help.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::State
            | Code::Conflict
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::NotImplemented
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InconsistentGroupProtocol
            | Code::InvalidTransactionTimeout
            | Code::InvalidRequest
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::NonEmptyGroup
            | Code::GroupIdNotFound
            | Code::GroupSubscribedToTopic
            | Code::TopicDeletionDisabled
            | Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::NotConfigured
    )
}

/// What a code means. Where people meet it, in words that help; otherwise in librdkafka's.
pub(super) fn describe(code: Code) -> String {
    let own = match code {
        Code::KafkaStorageError => "the broker can't write to its disk, which may be full",
        Code::MessageTimedOut => "not acknowledged in time",
        Code::InvalidTimestamp => {
            "the broker takes no record of that time; this machine's clock may be wrong"
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => "the broker doesn't allow it to this user",
        _ => return librdkafka_says(code),
    };
    own.to_owned()
}

/// librdkafka's sentence, without the name of the code before it and whose code it is.
pub(super) fn librdkafka_says(code: Code) -> String {
    let text = code.to_string();
    let sentence =
        text.split_once(" (").map_or(text.as_str(), |(_, sentence)| sentence.trim_end_matches(')'));
    let bare = sentence.strip_prefix("Broker: ").or_else(|| sentence.strip_prefix("Local: "));
    bare.unwrap_or(sentence).to_owned()
}
