//! OffsetCommit, OffsetFetch and OffsetDelete: how far a group is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::api::{Answer, Call};
use super::distinct::{distinct, distinct_partitions};
use super::error_code::{code, of_group};
use super::membership::{member, owned};
use crate::broker::Broker;
use crate::coordinator::{CommitCheck, Committer, GroupError};
use crate::error::BrokerError;
use crate::groups::{CommittedOffset, FetchedOffset, MAX_OFFSET_METADATA_BYTES, OffsetCommit};
use crate::partition::TopicPartition;

/// From this version on, several groups are asked for at once.
const SEVERAL_GROUPS_FROM: i16 = 8;
/// From this version on, the answer has an error of the whole request.
const WHOLE_ERROR_FROM: i16 = 2;
/// From this version on, an offset has a leader epoch.
const LEADER_EPOCH_FROM: i16 = 5;
/// No offset is committed.
const NO_OFFSET: i64 = -1;
const NO_LEADER_EPOCH: i32 = -1;

/// Commits offsets; the answer comes when they are durable.
pub(super) async fn offset_commit(call: Call, request: OffsetCommitRequest) -> Answer<OffsetCommitResponse> {
    let broker = call.broker();
    let mut offsets = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let name = TopicPartition::new(owned(&topic.name), partition.partition_index);
            let metadata = partition.committed_metadata.as_ref().map(owned).unwrap_or_default();
            if let Err(error) = check(broker, &name, partition.committed_offset, &metadata) {
                refused.insert(name, error);
                continue;
            }
            let committed = CommittedOffset {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata,
                committed_at_ms: 0,
            };
            offsets.insert(name, committed);
        }
    }
    let commit = OffsetCommit {
        group: owned(&request.group_id),
        committer: Some(Committer {
            member: member(&request.member_id, request.group_instance_id.as_ref()),
            generation: request.generation_id_or_member_epoch,
            check: CommitCheck::Generation,
        }),
        offsets,
    };
    // Before the next request is looked at: it may be the member's farewell, or that it joins once more.
    let all = broker.commit_offsets(commit).await.err().map_or(0, |error| commit_code(&error));
    let topics = request.topics.into_iter().map(|topic| committed(topic, &refused, all));
    OffsetCommitResponse::default().with_topics(topics.collect()).into()
}

/// What of a commit concerns one partition alone.
pub(super) fn check(
    broker: &Broker,
    partition: &TopicPartition,
    offset: i64,
    metadata: &str,
) -> Result<(), ResponseError> {
    if metadata.len() > MAX_OFFSET_METADATA_BYTES {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    if offset < 0 {
        return Err(ResponseError::InvalidRequest);
    }
    broker.partition(partition).map(drop).map_err(|error| code(&error))
}

fn committed(
    topic: OffsetCommitRequestTopic,
    refused: &BTreeMap<TopicPartition, ResponseError>,
    all: i16,
) -> OffsetCommitResponseTopic {
    let name: Arc<str> = topic.name.as_str().into();
    let partitions = topic.partitions.iter().map(|partition| {
        let key = TopicPartition::new(Arc::clone(&name), partition.partition_index);
        let code = refused.get(&key).map_or(all, |error| error.code());
        OffsetCommitResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_error_code(code)
    });
    OffsetCommitResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
}

/// What a client that commits should make of it: what is about the disk or the stop passes, seen from a consumer.
pub(super) fn commit_code(error: &BrokerError) -> i16 {
    match error {
        BrokerError::Closed | BrokerError::Poisoned { .. } => ResponseError::CoordinatorNotAvailable.code(),
        BrokerError::TooLarge { .. } => ResponseError::InvalidCommitOffsetSize.code(),
        error => code(error).code(),
    }
}

/// What one group asks for: topics with partitions, or everything.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;

/// Offsets by topic, in the order of the request.
type Found = Vec<(TopicName, Vec<(i32, FetchedOffset)>)>;

/// Fetches offsets, once those on their way are decided.
pub(super) async fn offset_fetch(call: Call, request: OffsetFetchRequest) -> Answer<OffsetFetchResponse> {
    let (broker, version) = (call.broker().clone(), call.version);
    let (client_id, require_stable) = (call.client_id, request.require_stable);
    if version < SEVERAL_GROUPS_FROM {
        let wanted: Wanted = request
            .topics
            // Before version 2, there is no asking for everything.
            .filter(|topics| version >= 2 || !topics.is_empty())
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)))
            .map(distinct_partitions);
        let wanted = if version < 2 { Some(wanted.unwrap_or_default()) } else { wanted };
        return Answer::later(async move {
            let found = fetch(&broker, &request.group_id, &client_id, wanted, require_stable).await;
            one_group(found, version)
        });
    }
    Answer::later(async move {
        let mut groups = Vec::new();
        let named = distinct(request.groups, |group| group.group_id.clone());
        for group in named {
            let wanted = group.topics.map(|topics| {
                distinct_partitions(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)))
            });
            let found = fetch(&broker, &group.group_id, &client_id, wanted, require_stable).await;
            groups.push(group_of(group.group_id, found));
        }
        OffsetFetchResponse::default().with_groups(groups)
    })
}

async fn fetch(
    broker: &Broker,
    group: &GroupId,
    client_id: &str,
    wanted: Wanted,
    require_stable: bool,
) -> Result<Found, GroupError> {
    let Some(wanted) = wanted else {
        let mut found: BTreeMap<Arc<str>, Vec<(i32, FetchedOffset)>> = BTreeMap::new();
        for (partition, offset) in broker.fetch_offsets(group, None, require_stable).await? {
            found.entry(partition.topic).or_default().push((partition.partition, offset));
        }
        let named = |(topic, partitions): (Arc<str>, _)| {
            (TopicName(StrBytes::from_string(topic.to_string())), partitions)
        };
        return Ok(found.into_iter().map(named).collect());
    };
    let mut partitions = Vec::new();
    for (topic, indexes) in &wanted {
        let name: Arc<str> = topic.as_str().into();
        partitions.extend(indexes.iter().map(|index| TopicPartition::new(Arc::clone(&name), *index)));
    }
    let offsets = broker.fetch_offsets(group, Some(&partitions), require_stable).await?;
    // Owners ask for what they own; who asks for everything looks at the group from outside.
    broker.offsets_were_told(group, client_id, &offsets);
    let mut offsets = offsets.into_iter();
    let found = wanted.into_iter().map(|(topic, indexes)| {
        let of_topic =
            offsets.by_ref().take(indexes.len()).map(|(partition, offset)| (partition.partition, offset));
        (topic, of_topic.collect())
    });
    Ok(found.collect())
}

/// The answer of versions for one group.
fn one_group(found: Result<Found, GroupError>, version: i16) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    let found = match found {
        Ok(found) => found,
        Err(error) if version >= WHOLE_ERROR_FROM => {
            return response.with_error_code(of_group(&error).code());
        }
        Err(_) => return response,
    };
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, offset)| {
            let (code, committed) = seen(offset);
            let epoch = if version >= LEADER_EPOCH_FROM { committed.leader_epoch } else { NO_LEADER_EPOCH };
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some(committed.metadata.into()))
                .with_error_code(code)
        });
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    response.with_topics(topics.collect())
}

fn group_of(group: GroupId, found: Result<Found, GroupError>) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group);
    let found = match found {
        Ok(found) => found,
        Err(error) => return response.with_error_code(of_group(&error).code()),
    };
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, offset)| {
            let (code, committed) = seen(offset);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(committed.metadata.into()))
                .with_error_code(code)
        });
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
    });
    response.with_topics(topics.collect())
}

/// An offset as clients see it, with its error.
fn seen(offset: FetchedOffset) -> (i16, CommittedOffset) {
    match offset {
        FetchedOffset::Committed(committed) => (0, committed),
        FetchedOffset::Missing => (0, CommittedOffset::new(NO_OFFSET)),
        FetchedOffset::Unstable => {
            (ResponseError::UnstableOffsetCommit.code(), CommittedOffset::new(NO_OFFSET))
        }
    }
}

/// Deletes a group's offsets of topics that none of its members reads; the answer comes when that is durable.
pub(super) async fn offset_delete(call: Call, request: OffsetDeleteRequest) -> Answer<OffsetDeleteResponse> {
    let broker = call.broker().clone();
    Answer::later(async move {
        let group = owned(&request.group_id);
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let name: Arc<str> = topic.name.as_str().into();
            let indexes: Vec<i32> =
                topic.partitions.iter().map(|partition| partition.partition_index).collect();
            let partitions: BTreeSet<_> =
                indexes.iter().map(|index| TopicPartition::new(Arc::clone(&name), *index)).collect();
            let code = match broker.delete_offsets(&group, partitions).await {
                Ok(()) => 0,
                Err(BrokerError::Group(
                    error @ (GroupError::NotFound { .. } | GroupError::NotEmpty { .. }),
                )) => {
                    return OffsetDeleteResponse::default().with_error_code(of_group(&error).code());
                }
                Err(error) => commit_code(&error),
            };
            let partitions = indexes
                .into_iter()
                .map(|index| {
                    OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
                })
                .collect();
            topics
                .push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
        }
        OffsetDeleteResponse::default().with_topics(topics)
    })
}
