//! CreateTopics, DeleteTopics, CreatePartitions.
//!
//! Each topic of a request succeeds or fails by itself, and what is answered as done is durable.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::runtime::Handle;

use super::api::{Answer, Call};
use super::configs::source_of;
use super::error_code::Failure;
use super::metadata::topic_name;
use super::{KafkaSettings, NODE_ID};
use crate::broker::Broker;
use crate::groups::LeftOffsets;
use crate::topic::{CONFIG_KEYS, Topic};

/// Partitions of a topic that is made without saying how many, if the settings don't say either.
pub(super) const DEFAULT_PARTITIONS: i32 = 1;
/// How many copies there are.
const COPIES: i16 = 1;
/// From this version on, the answer describes the topic that was made.
const DESCRIBED_FROM: i16 = 5;
/// From this version on, it says the topic's id.
const TOPIC_ID_FROM: i16 = 7;

/// Makes topics, or tells whether they could be made.
pub(super) async fn create_topics(call: Call, request: CreateTopicsRequest) -> Answer<CreateTopicsResponse> {
    let validate_only = request.validate_only;
    let twice = names_that_are_twice(request.topics.iter().map(|topic| topic.name.as_str()));
    off_thread(move || {
        let topics = request.topics.into_iter().map(|wanted| {
            let made = if twice.contains(wanted.name.as_str()) {
                Err(named_twice())
            } else {
                create(&call, &wanted, validate_only)
            };
            match made {
                Ok(partitions) => created(&call, wanted.name, partitions, validate_only),
                Err(failure) => CreatableTopicResult::default()
                    .with_name(wanted.name)
                    .with_error_code(failure.code())
                    .with_error_message(failure.text()),
            }
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    })
}

/// How many partitions it has.
fn create(call: &Call, wanted: &CreatableTopic, validate_only: bool) -> Result<i32, Failure> {
    let default = call.server.settings.default_partitions.unwrap_or(DEFAULT_PARTITIONS);
    let partitions = if wanted.assignments.is_empty() {
        if !matches!(wanted.replication_factor, -1 | COPIES) {
            let message =
                format!("{} copies are more than the one broker there is", wanted.replication_factor);
            return Err(Failure::new(ResponseError::InvalidReplicationFactor, message));
        }
        if wanted.num_partitions == -1 { default } else { wanted.num_partitions }
    } else {
        let assigned = wanted.assignments.iter().map(|one| (one.partition_index, one.broker_ids.as_slice()));
        assigned_partitions(&assigned.collect())?
    };
    let mut config = BTreeMap::new();
    for setting in &wanted.configs {
        let Some(value) = &setting.value else { continue };
        config.insert(setting.name.to_string(), value.to_string());
    }
    let name = wanted.name.as_str();
    if validate_only {
        call.broker().check_new_topic(name, partitions, &config)?;
    } else {
        call.broker().create_topic(name, partitions, config)?;
    }
    Ok(partitions)
}

/// The number of partitions of which a client says where they are to be: all here.
fn assigned_partitions(assigned: &BTreeMap<i32, &[BrokerId]>) -> Result<i32, Failure> {
    let invalid = |message: &str| Failure::new(ResponseError::InvalidReplicaAssignment, message);
    if assigned.values().any(|brokers| *brokers != [BrokerId(NODE_ID)]) {
        return Err(invalid("partitions can only be on the one broker there is"));
    }
    let count = i32::try_from(assigned.len()).unwrap_or(i32::MAX);
    if assigned.keys().copied().eq(0..count) {
        Ok(count)
    } else {
        Err(invalid("the partitions are not numbered from 0 on"))
    }
}

fn created(call: &Call, name: TopicName, partitions: i32, validate_only: bool) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name);
    if call.version < DESCRIBED_FROM {
        return result;
    }
    let result = result.with_num_partitions(partitions).with_replication_factor(COPIES);
    match call.broker().topic(&result.name) {
        Ok(topic) if !validate_only => {
            let id = if call.version >= TOPIC_ID_FROM { topic.id() } else { uuid::Uuid::nil() };
            result.with_topic_id(id).with_configs(Some(configs(&topic)))
        }
        _ => result,
    }
}

fn configs(topic: &Topic) -> Vec<CreatableTopicConfigs> {
    let described = CONFIG_KEYS.iter().map(|key| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(StrBytes::from_string(topic.config_value(key))))
            .with_config_source(source_of(topic, key))
    });
    described.collect()
}

/// Deletes topics by name or id.
pub(super) async fn delete_topics(call: Call, request: DeleteTopicsRequest) -> Answer<DeleteTopicsResponse> {
    let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let mut wanted = request.topics;
    wanted.extend(request.topic_names.into_iter().map(by_name));
    off_thread(move || {
        let responses = wanted.iter().map(|wanted| delete(&call, wanted));
        DeleteTopicsResponse::default().with_responses(responses.collect())
    })
}

fn delete(call: &Call, wanted: &DeleteTopicState) -> DeletableTopicResult {
    let result =
        DeletableTopicResult::default().with_name(wanted.name.clone()).with_topic_id(wanted.topic_id);
    let found = match &wanted.name {
        Some(name) => call.broker().topic(name),
        None => call.broker().topic_by_id(wanted.topic_id),
    };
    let deleted = found.map_err(Failure::from).and_then(|topic| {
        check_managed(&call.server.settings, topic.name())?;
        let left = call.broker().delete_topic(topic.name())?;
        delete_offsets(call.broker(), topic.name(), left);
        Ok(topic)
    });
    match deleted {
        Ok(topic) => {
            let id = if call.version >= 6 { topic.id() } else { uuid::Uuid::nil() };
            result.with_name(Some(topic_name(&topic))).with_topic_id(id)
        }
        Err(failure) => result.with_error_code(failure.code()).with_error_message(failure.text()),
    }
}

/// A topic that is made anew under the name begins without offsets. What fails here is made up for at the next start.
fn delete_offsets(broker: &Broker, topic: &str, left: LeftOffsets) {
    let deleted = Handle::current().block_on(broker.delete_left_offsets(left));
    if let Err(error) = deleted {
        tracing::warn!(topic, %error, "committed offsets of a deleted topic stay for now");
    }
}

/// Gives topics more partitions, or tells whether they could have them.
pub(super) async fn create_partitions(
    call: Call,
    request: CreatePartitionsRequest,
) -> Answer<CreatePartitionsResponse> {
    let validate_only = request.validate_only;
    let twice = names_that_are_twice(request.topics.iter().map(|topic| topic.name.as_str()));
    off_thread(move || {
        let results = request.topics.into_iter().map(|wanted| {
            let added = if twice.contains(wanted.name.as_str()) {
                Err(named_twice())
            } else {
                add_partitions(call.broker(), &call.server.settings, &wanted, validate_only)
            };
            let result = CreatePartitionsTopicResult::default().with_name(wanted.name);
            match added {
                Ok(()) => result,
                Err(failure) => result.with_error_code(failure.code()).with_error_message(failure.text()),
            }
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    })
}

fn add_partitions(
    broker: &Broker,
    settings: &KafkaSettings,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Failure> {
    let name = wanted.name.as_str();
    broker.check_more_partitions(name, wanted.count)?;
    check_managed(settings, name)?;
    if let Some(assignments) = &wanted.assignments {
        let brokers = (0..).zip(assignments.iter().map(|one| one.broker_ids.as_slice()));
        let more = assigned_partitions(&brokers.collect())?;
        if more != wanted.count - broker.topic(name)?.partition_count() {
            let message = "there are not as many assignments as new partitions";
            return Err(Failure::new(ResponseError::InvalidReplicaAssignment, message));
        }
    }
    if !validate_only {
        broker.add_partitions(name, wanted.count)?;
    }
    Ok(())
}

/// Whether clients may change a topic.
pub(super) fn check_managed(settings: &KafkaSettings, name: &str) -> Result<(), Failure> {
    if !settings.managed_topics.contains(name) {
        return Ok(());
    }
    let message =
        format!("topic `{name}` is one of Farol's own: its settings decide, and it can't be deleted");
    Err(Failure::new(ResponseError::PolicyViolation, message))
}

/// Runs what waits for the disk off the async threads.
pub(super) fn off_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Answer<R> {
    Answer::later(async move {
        // A panic is passed on: there is no answer without it.
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    })
}

fn names_that_are_twice<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn named_twice() -> Failure {
    Failure::new(ResponseError::InvalidRequest, "the topic is named twice")
}
