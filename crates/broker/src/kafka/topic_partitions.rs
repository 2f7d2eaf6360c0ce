//! DescribeTopicPartitions: Metadata's newer sibling, page by page.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::NODE_ID;
use super::api::{Answer, Call};
use super::error_code::Failure;
use super::metadata::{TOPIC_OPERATIONS, topic_name};
use crate::topic::Topic;

/// Most partitions of one answer, whatever the client would take.
const MAX_PARTITIONS: usize = 2000;

/// Describes topics in the order of their names, up to a number of partitions, and says where to go on.
pub(super) async fn describe_topic_partitions(
    call: Call,
    request: DescribeTopicPartitionsRequest,
) -> Answer<DescribeTopicPartitionsResponse> {
    let mut wanted: BTreeSet<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    if wanted.is_empty() {
        wanted = call.broker().topics().iter().map(|topic| topic.name().to_string()).collect();
    }
    let (first_topic, mut first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index.max(0)),
        None => (String::new(), 0),
    };
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(MAX_PARTITIONS);
    let mut left = limit.clamp(1, MAX_PARTITIONS);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in wanted.range(first_topic.clone()..) {
        let from = if *name == first_topic { std::mem::take(&mut first_partition) } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor(name, from));
            break;
        }
        match call.broker().topic(name) {
            Ok(topic) => {
                let to =
                    topic.partition_count().min(from.saturating_add(i32::try_from(left).unwrap_or(i32::MAX)));
                left -= usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(left);
                response.topics.push(described(&topic, from, to));
                if to < topic.partition_count() {
                    response.next_cursor = Some(cursor(name, to));
                    break;
                }
            }
            Err(error) => response.topics.push(
                DescribeTopicPartitionsResponseTopic::default()
                    .with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
                    .with_error_code(Failure::from(error).code()),
            ),
        }
    }
    response.into()
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    Cursor::default().with_topic_name(name).with_partition_index(partition)
}

fn described(topic: &Topic, from: i32, to: i32) -> DescribeTopicPartitionsResponseTopic {
    let node = || vec![BrokerId(NODE_ID)];
    let partitions = (from..to).map(|index| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(0)
            .with_replica_nodes(node())
            .with_isr_nodes(node())
            // Empty rather than absent: the Java client trips over null.
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(topic)))
        .with_topic_id(topic.id())
        .with_is_internal(topic.is_internal())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
        .with_partitions(partitions.collect())
}
