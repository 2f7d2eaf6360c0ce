//! DeleteRecords, and OffsetForLeaderEpoch.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::api::{Answer, Call};
use super::error_code::Failure;
use super::topics::off_thread;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::partition::TopicPartition;
use crate::topic::CleanupPolicy;

/// Stands for the end of the partition.
const TO_THE_END: i64 = -1;
/// The one epoch that there is.
const LEADER_EPOCH: i32 = 0;

/// Makes records before an offset unreadable, durably.
pub(super) async fn delete_records(
    call: Call,
    request: DeleteRecordsRequest,
) -> Answer<DeleteRecordsResponse> {
    off_thread(move || {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let result =
                    DeleteRecordsPartitionResult::default().with_partition_index(wanted.partition_index);
                match delete_before(call.broker(), &topic.name, wanted.partition_index, wanted.offset) {
                    Ok(start_offset) => result.with_low_watermark(start_offset),
                    Err(failure) => result.with_low_watermark(-1).with_error_code(failure.code()),
                }
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    })
}

fn delete_before(broker: &Broker, topic: &str, index: i32, offset: i64) -> Result<i64, Failure> {
    broker.check_open()?;
    let topic = broker.topic(topic)?;
    if topic.is_internal() {
        return Err(BrokerError::InternalTopic(topic.name().to_string()).into());
    }
    if topic.config().cleanup == CleanupPolicy::Compact {
        let message = "a compacted topic keeps the newest record of each key";
        return Err(Failure::new(ResponseError::PolicyViolation, message));
    }
    let partition = topic.partition(index)?;
    let (start, end) = (partition.start_offset(), partition.end_offset());
    let offset = if offset == TO_THE_END { end } else { offset };
    if !(0..=end).contains(&offset) {
        let partition = TopicPartition::new(topic.name().clone(), index);
        return Err(BrokerError::OffsetOutOfRange { partition, offset, start, end }.into());
    }
    partition
        .delete_records_before(offset)
        .map_err(|error| Failure::new(ResponseError::KafkaStorageError, error.to_string()))
}

/// Where the records of a leader's epoch end. There is one leader, and one epoch.
pub(super) async fn offset_for_leader_epoch(
    call: Call,
    request: OffsetForLeaderEpochRequest,
) -> Answer<OffsetForLeaderEpochResponse> {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions =
            topic.partitions.iter().map(|wanted| epoch_end(call.broker(), &topic.topic, wanted)).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect()).into()
}

fn epoch_end(broker: &Broker, topic: &str, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(wanted.partition);
    let partition = broker.topic(topic).and_then(|topic| topic.partition(wanted.partition).cloned());
    match partition {
        Err(error) => answer.with_error_code(Failure::from(error).code()),
        Ok(_) if wanted.current_leader_epoch > LEADER_EPOCH => {
            answer.with_error_code(ResponseError::UnknownLeaderEpoch.code())
        }
        Ok(partition) if wanted.leader_epoch == LEADER_EPOCH => {
            answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.end_offset())
        }
        // An epoch that never was: undefined, which the defaults say.
        Ok(_) => answer,
    }
}
