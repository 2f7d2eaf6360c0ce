//! The broker's errors in the words of the bus.

use farol_broker::BrokerError;

use crate::engine::BusError;

impl From<BrokerError> for BusError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::UnknownTopicOrPartition(what) => BusError::UnknownTopicOrPartition(what),
            BrokerError::UnknownTopicId(id) => {
                BusError::UnknownTopicOrPartition(format!("topic with the id {id}"))
            }
            BrokerError::TopicExists(topic) => BusError::TopicExists(topic),
            BrokerError::InvalidTopicName { topic, problem }
            | BrokerError::InvalidPartitionCount { topic, problem }
            | BrokerError::InvalidTopicConfig { topic, problem } => BusError::InvalidTopic { topic, problem },
            BrokerError::InternalTopic(topic) => {
                BusError::InvalidTopic { topic, problem: "it is the broker's own".to_owned() }
            }
            BrokerError::TooLarge { what, bytes, limit } => BusError::TooLarge { what, bytes, limit },
            BrokerError::Fenced(error) => BusError::Fenced(error.to_string()),
            BrokerError::Group(error) => BusError::InvalidState(error.to_string()),
            BrokerError::ProducerFenced { transactional_id } => {
                BusError::Fenced(format!("a newer producer has the transactional id `{transactional_id}`"))
            }
            BrokerError::Poisoned { partition, problem } => BusError::Poisoned { partition, problem },
            BrokerError::Corrupt { position, problem } => BusError::Corrupt { position, problem },
            BrokerError::Closed => BusError::Closed,
            error @ (BrokerError::Read { .. }
            | BrokerError::Catalog { .. }
            | BrokerError::CreatePartition { .. }
            | BrokerError::DeletePartition { .. }
            | BrokerError::Snapshot { .. }) => BusError::Unavailable(with_sources(&error)),
            error @ (BrokerError::Encode(_)
            | BrokerError::OffsetOutOfRange { .. }
            | BrokerError::Producer(_)
            | BrokerError::Transaction(_)) => BusError::InvalidState(with_sources(&error)),
        }
    }
}

/// An error and what caused it, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors already print what caused them.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
