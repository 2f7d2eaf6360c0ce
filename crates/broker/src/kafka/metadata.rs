//! Metadata: the one broker, and topics with their partitions, all of which it leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::api::{Answer, Call};
use super::distinct::distinct;
use super::error_code::Failure;
use super::topics::DEFAULT_PARTITIONS;
use super::{NODE_ID, Server};
use crate::error::BrokerError;
use crate::topic::Topic;

/// What a client may do with a topic, as a bit for each operation by Kafka's numbers: read, write, create, delete, alter,
/// describe, and describe and alter its configuration. Who may connect may do everything.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The same of the cluster: create, alter, describe, act for it, its configuration, idempotent writes.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

/// Topics that are described before others get their turn.
const TOPICS_AT_ONCE: usize = 100;

const fn bits(mut operations: &[u32]) -> i32 {
    let mut bits = 0;
    while let [operation, rest @ ..] = operations {
        bits |= 1 << *operation;
        operations = rest;
    }
    bits
}

/// Answers with the topics that were asked for, or with all.
pub(super) async fn metadata(call: Call, request: MetadataRequest) -> Answer<MetadataResponse> {
    // Version 0 asks for all with an empty list, later ones with none.
    let wanted = request.topics.filter(|topics| call.version > 0 || !topics.is_empty());
    let mut topics: Vec<MetadataResponseTopic> = match wanted {
        None => call.broker().topics().iter().map(|topic| described(topic)).collect(),
        Some(wanted) => {
            let create = call.version < 4 || request.allow_auto_topic_creation;
            let named = |topic: &MetadataRequestTopic| (topic.topic_id, topic.name.clone());
            let mut topics = Vec::new();
            for topic in distinct(wanted, named) {
                topics.push(one(&call, &topic, create).await);
                if topics.len() % TOPICS_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
            topics
        }
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let (host, port) = advertised(&call);
    let broker =
        MetadataResponseBroker::default().with_node_id(BrokerId(NODE_ID)).with_host(host).with_port(port);
    let mut response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(cluster_id(&call.server))))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response.into()
}

/// Where the client is told to connect: where the settings say, or where it already is.
pub(super) fn advertised(call: &Call) -> (StrBytes, i32) {
    match &call.server.settings.advertise {
        Some(advertised) => (
            StrBytes::from_string(advertised.host.clone()),
            i32::from(advertised.port.unwrap_or_else(|| call.server.local_addr.port())),
        ),
        None => {
            let local = call.connection.local;
            (StrBytes::from_string(local.ip().to_canonical().to_string()), i32::from(local.port()))
        }
    }
}

/// The cluster's id as clients write it.
pub(super) fn cluster_id(server: &Server) -> String {
    server.broker.cluster_id().simple().to_string()
}

async fn one(call: &Call, wanted: &MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    if !wanted.topic_id.is_nil() {
        return match call.broker().topic_by_id(wanted.topic_id) {
            Ok(topic) => described(&topic),
            Err(error) => refused(wanted.topic_id, None, &error.into()),
        };
    }
    let name = wanted.name.clone().unwrap_or_default();
    let found = match call.broker().topic(&name) {
        Err(BrokerError::UnknownTopicOrPartition(_))
            if create && call.server.settings.auto_create_topics && !name.starts_with("__") =>
        {
            auto_create(call, &name).await
        }
        other => other,
    };
    match found {
        Ok(topic) => described(&topic),
        Err(error) => refused(Uuid::nil(), Some(name), &error.into()),
    }
}

async fn auto_create(call: &Call, name: &str) -> Result<Arc<Topic>, BrokerError> {
    let (broker, name) = (call.broker().clone(), name.to_owned());
    let partitions = call.server.settings.default_partitions.unwrap_or(DEFAULT_PARTITIONS);
    let made = tokio::task::spawn_blocking(move || {
        match broker.create_topic(&name, partitions, BTreeMap::new()) {
            // Another client wanted it, too.
            Ok(()) | Err(BrokerError::TopicExists(_)) => broker.topic(&name),
            Err(error) => Err(error),
        }
    });
    made.await.unwrap_or(Err(BrokerError::Closed))
}

fn described(topic: &Topic) -> MetadataResponseTopic {
    let node = || vec![BrokerId(NODE_ID)];
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(0)
            .with_replica_nodes(node())
            .with_isr_nodes(node())
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic)))
        .with_topic_id(topic.id())
        .with_is_internal(topic.is_internal())
        .with_partitions((0..topic.partition_count()).map(partition).collect())
}

fn refused(id: Uuid, name: Option<TopicName>, failure: &Failure) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(failure.code()).with_topic_id(id).with_name(name)
}

/// A topic's name as the codec wants it.
pub(super) fn topic_name(topic: &Topic) -> TopicName {
    TopicName(StrBytes::from_string(topic.name().to_string()))
}
