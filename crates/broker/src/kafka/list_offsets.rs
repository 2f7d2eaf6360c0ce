//! ListOffsets: the ends of partitions, and the first record at or after an instant.

use farol_log::Partition;
use hashbrown::HashSet;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::api::{Answer, Call};
use super::error_code::Failure;
use super::fetch::{Isolation, last_readable};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::partition::TopicPartition;

/// From this version on: the epoch of the offset.
const LEADER_EPOCH_FROM: i16 = 4;
/// After the last record.
const LATEST: i64 = -1;
/// The first record.
const EARLIEST: i64 = -2;
/// The record with the newest timestamp.
const MAX_TIMESTAMP: i64 = -3;
/// The first record on a local disk: all are.
const EARLIEST_LOCAL: i64 = -4;
/// After the last record on remote storage: there is none.
const LATEST_TIERED: i64 = -5;

/// Looks the offsets up, off the async threads if files must be searched.
pub(super) async fn list_offsets(call: Call, request: ListOffsetsRequest) -> Answer<ListOffsetsResponse> {
    let isolation = Isolation::from(request.isolation_level);
    let searches = |topic: &ListOffsetsTopic| {
        topic.partitions.iter().any(|wanted| wanted.timestamp >= 0 || wanted.timestamp == MAX_TIMESTAMP)
    };
    if request.topics.iter().any(searches) {
        return Answer::work(move || look_up(call.broker(), call.version, request.topics, isolation));
    }
    look_up(call.broker(), call.version, request.topics, isolation).into()
}

fn look_up(
    broker: &Broker,
    version: i16,
    topics: Vec<ListOffsetsTopic>,
    isolation: Isolation,
) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut one = |topic: &TopicName, wanted: &ListOffsetsPartition| {
        let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
        let found = if seen.insert((topic.clone(), wanted.partition_index)) {
            offset(broker, topic, wanted, isolation)
        } else {
            Err(Failure::new(ResponseError::InvalidRequest, "the partition is named twice"))
        };
        match found {
            Ok((timestamp, offset)) => {
                let epoch = if offset >= 0 && version >= LEADER_EPOCH_FROM { 0 } else { -1 };
                answer.with_timestamp(timestamp).with_offset(offset).with_leader_epoch(epoch)
            }
            Err(failure) => answer.with_error_code(failure.code()).with_timestamp(-1).with_offset(-1),
        }
    };
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| one(&topic.name, wanted)).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Timestamp and offset.
fn offset(
    broker: &Broker,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<(i64, i64), Failure> {
    broker.check_open()?;
    let topic = broker.topic(topic)?;
    let name = TopicPartition::new(topic.name().clone(), wanted.partition_index);
    let reader = broker.reader(&name)?;
    let partition = reader.partition();
    let end = last_readable(&reader, isolation);
    let failed = |error| BrokerError::from_read(&name, 0, &error);
    let found = match wanted.timestamp {
        LATEST => return Ok((-1, end)),
        EARLIEST | EARLIEST_LOCAL => return Ok((-1, partition.start_offset())),
        LATEST_TIERED => return Ok((-1, -1)),
        MAX_TIMESTAMP => newest(partition).map_err(failed)?,
        timestamp if timestamp >= 0 => partition.offset_for_timestamp(timestamp).map_err(failed)?,
        other => {
            let message = format!("there is no offset for the timestamp {other}");
            return Err(Failure::new(ResponseError::UnsupportedVersion, message));
        }
    };
    // What isn't committed yet must not be found either.
    Ok(found.filter(|found| found.offset < end).map_or((-1, -1), |found| (found.timestamp_ms, found.offset)))
}

fn newest(partition: &Partition) -> Result<Option<farol_log::TimestampOffset>, farol_log::ReadError> {
    match partition.max_timestamp_ms()? {
        Some(timestamp) => partition.offset_for_timestamp(timestamp),
        None => Ok(None),
    }
}
