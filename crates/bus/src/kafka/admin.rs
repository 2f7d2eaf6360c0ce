//! Topics and offsets, asked for and changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions,
    OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use super::CALL_LIMIT;
use super::client::{Logging, blocking};
use super::creation::{self, Refused};
use super::error::{bus_error, code_error, librdkafka_says};
use crate::engine::{BusError, OffsetSpec, TopicDescription, TopicSpec};
use crate::record::TopicPartition;

/// How long a new topic may take until its partitions have leaders.
const TOPIC_READY_LIMIT: Duration = Duration::from_secs(10);
/// How long a changed configuration may take until the topic shows it.
const CONFIGURED_LIMIT: Duration = Duration::from_secs(2);
/// The pause before the same question is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How many topics one request asks the configuration of.
const TOPICS_A_REQUEST: usize = 200;
/// Kafka's bound on the name of a topic.
const MAX_NAME_BYTES: usize = 249;

pub(super) async fn create_topic(
    admin: &Arc<AdminClient<Logging>>,
    client: &Arc<BaseConsumer<Logging>>,
    spec: TopicSpec,
) -> Result<(), BusError> {
    check_name(&spec.name)?;
    if spec.partitions < 1 {
        let problem = format!("{} partitions; it needs at least one", spec.partitions);
        return Err(BusError::InvalidTopic { topic: spec.name, problem });
    }
    let (admin, client) = (Arc::clone(admin), Arc::clone(client));
    blocking(move || {
        creation::create(&admin, &spec, CALL_LIMIT).map_err(|refused| not_made(&spec, refused))?;
        wait_until_ready(&client, &spec.name, spec.partitions)
    })
    .await
}

/// Why a topic was not made, in the broker's words where it has some.
fn not_made(spec: &TopicSpec, refused: Refused) -> BusError {
    let Refused { code, sentence } = refused;
    let own = !sentence.is_empty() && !sentence.ends_with(&librdkafka_says(code));
    match code_error(code, &spec.name) {
        BusError::InvalidTopic { .. } | BusError::InvalidState(_) if own => {
            // It may begin with the topic itself.
            let named = sentence.strip_prefix(&format!("topic `{}`", spec.name));
            let problem =
                named.map_or(sentence.as_str(), |rest| rest.trim_start_matches([':', ' '])).to_owned();
            BusError::InvalidTopic { topic: spec.name.clone(), problem }
        }
        BusError::InvalidTopic { topic, problem } if code == Code::InvalidConfig => {
            BusError::InvalidTopic { topic, problem: format!("{problem}: {}", given(&spec.config)) }
        }
        other => other,
    }
}

pub(super) async fn configure_topic(
    admin: &AdminClient<Logging>,
    client: &Arc<BaseConsumer<Logging>>,
    topic: &str,
    config: &BTreeMap<String, String>,
) -> Result<(), BusError> {
    let (asking, name) = (Arc::clone(client), topic.to_owned());
    blocking(move || check_topic(&asking, &name)).await?;
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (key, value) in config {
        change = change.set(key, value);
    }
    admin.alter_configs([&change], &request_options()).await.map_err(|error| bus_error(&error, topic))?;
    // The client library doesn't say whether the topic took it, so it is asked.
    let deadline = Instant::now() + CONFIGURED_LIMIT;
    while overrides(admin, topic).await? != *config {
        if Instant::now() > deadline {
            let problem = format!("the configuration was not taken: {}", given(config));
            return Err(BusError::InvalidTopic { topic: topic.to_owned(), problem });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

pub(super) async fn grow_topic(
    admin: &AdminClient<Logging>,
    client: &Arc<BaseConsumer<Logging>>,
    topic: &str,
    partitions: i32,
) -> Result<(), BusError> {
    check_name(topic)?;
    let wanted = usize::try_from(partitions).unwrap_or(0);
    let has = || {
        let (asking, name) = (Arc::clone(client), topic.to_owned());
        async move {
            let counts = blocking(move || partition_counts(&asking)).await?;
            counts.get(&name).copied().ok_or(BusError::UnknownTopicOrPartition(name))
        }
    };
    if has().await? >= partitions {
        return Ok(());
    }
    let grown =
        each(admin.create_partitions([&NewPartitions::new(topic, wanted)], &request_options()).await, topic);
    if let Err(error) = grown {
        // Somebody else may have been faster.
        return if has().await? >= partitions { Ok(()) } else { Err(error) };
    }
    let (client, name) = (Arc::clone(client), topic.to_owned());
    blocking(move || wait_until_ready(&client, &name, partitions)).await
}

/// The configuration of one topic where it differs from the defaults.
async fn overrides(admin: &AdminClient<Logging>, topic: &str) -> Result<BTreeMap<String, String>, BusError> {
    let resource = ResourceSpecifier::Topic(topic);
    let answers = admin.describe_configs([&resource], &request_options()).await;
    match answers.map_err(|error| bus_error(&error, topic))?.into_iter().next() {
        Some(Ok(resource)) => Ok(dynamic(resource)),
        Some(Err(code)) => Err(code_error(code, topic)),
        None => Err(BusError::UnknownTopicOrPartition(topic.to_owned())),
    }
}

fn dynamic(resource: ConfigResource) -> BTreeMap<String, String> {
    let entries = resource.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

pub(super) async fn delete_topic(admin: &AdminClient<Logging>, topic: &str) -> Result<(), BusError> {
    check_name(topic)?;
    each(admin.delete_topics(&[topic], &request_options()).await, topic).map_err(|error| match error {
        // librdkafka asks in a version whose answer has a code alone (2.12: DeleteTopics up to version 1).
        BusError::InvalidTopic { topic, .. } => {
            let problem =
                "the broker lets no client delete it; Farol's own topics are a matter of its settings";
            BusError::InvalidTopic { topic, problem: problem.to_owned() }
        }
        other => other,
    })
}

pub(super) async fn delete_group(admin: &AdminClient<Logging>, group: &str) -> Result<(), BusError> {
    each(admin.delete_groups(&[group], &request_options()).await, &format!("group {group}"))
}

pub(super) async fn topics(
    admin: &AdminClient<Logging>,
    client: &Arc<BaseConsumer<Logging>>,
) -> Result<Vec<TopicDescription>, BusError> {
    let asking = Arc::clone(client);
    let counts = blocking(move || partition_counts(&asking)).await?;
    let mut described = Vec::with_capacity(counts.len());
    let names: Vec<&String> = counts.keys().collect();
    for part in names.chunks(TOPICS_A_REQUEST) {
        let resources: Vec<_> = part.iter().map(|name| ResourceSpecifier::Topic(name.as_str())).collect();
        let answers = admin
            .describe_configs(&resources, &request_options())
            .await
            .map_err(|error| bus_error(&error, "the topics' configuration"))?;
        // A topic that was deleted in between has no answer, and is left out.
        for resource in answers.into_iter().flatten() {
            let OwnedResourceSpecifier::Topic(name) = &resource.specifier else { continue };
            let Some(partitions) = counts.get(name) else { continue };
            let (name, partitions) = (name.as_str().into(), *partitions);
            described.push(TopicDescription { name, partitions, config: dynamic(resource) });
        }
    }
    described.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(described)
}

/// The topic's bound on a record, if it can be had.
pub(super) async fn max_record_bytes(admin: &AdminClient<Logging>, topic: &str) -> Option<usize> {
    config(admin, topic, "max.message.bytes").await?.parse().ok()
}

/// Whether the topic keeps the newest record of each key only.
pub(super) async fn is_compacted(admin: &AdminClient<Logging>, topic: &str) -> bool {
    config(admin, topic, "cleanup.policy").await.is_some_and(|policy| policy.contains("compact"))
}

/// One setting of a topic, if it can be had.
async fn config(admin: &AdminClient<Logging>, topic: &str, key: &str) -> Option<String> {
    let resource = ResourceSpecifier::Topic(topic);
    let answers = admin.describe_configs([&resource], &request_options()).await.ok()?;
    answers.into_iter().flatten().next()?.get(key)?.value.clone()
}

/// Partitions that have no leader at the moment get one soon, so that is waited for.
pub(super) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
    let deadline = Instant::now() + CALL_LIMIT;
    loop {
        match offsets_now(client, partitions, spec) {
            Err(error) if error.is_retriable() && Instant::now() < deadline => {
                std::thread::sleep(RETRY_PAUSE);
            }
            done => return done,
        }
    }
}

fn offsets_now<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
    let asked = match spec {
        OffsetSpec::Earliest => Offset::Beginning,
        OffsetSpec::Latest => Offset::End,
        OffsetSpec::Timestamp(timestamp) => Offset::Offset(timestamp.max(0)),
    };
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let list = list(partitions.iter().map(|partition| (partition, asked)))?;
    let found = client.offsets_for_times(list, CALL_LIMIT).map_err(|error| {
        let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        bus_error(&error, &names.join(", "))
    })?;
    let mut offsets = BTreeMap::new();
    let mut beyond = Vec::new();
    for element in found.elements() {
        let partition = TopicPartition::new(element.topic(), element.partition());
        element.error().map_err(|error| bus_error(&error, &partition.to_string()))?;
        match element.offset() {
            Offset::Offset(offset) => drop(offsets.insert(partition, offset)),
            // No record is that young.
            _ => beyond.push(partition),
        }
    }
    if !beyond.is_empty() && spec != OffsetSpec::Latest {
        offsets.extend(offsets_now(client, &beyond, OffsetSpec::Latest)?);
    }
    Ok(offsets)
}

/// Every offset that the group of `asking` has committed.
pub(super) fn committed(
    client: &BaseConsumer<Logging>,
    asking: &BaseConsumer<Logging>,
) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in partition_counts(client)? {
        for partition in 0..partitions {
            all.add_partition(&topic, partition);
        }
    }
    if all.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let found = asking
        .committed_offsets(all, CALL_LIMIT)
        .map_err(|error| bus_error(&error, "the committed offsets"))?;
    let mut committed = BTreeMap::new();
    for element in found.elements() {
        let partition = TopicPartition::new(element.topic(), element.partition());
        element.error().map_err(|error| bus_error(&error, &partition.to_string()))?;
        if let Offset::Offset(offset) = element.offset() {
            committed.insert(partition, offset);
        }
    }
    Ok(committed)
}

/// Whether a topic is there. Asking doesn't make it.
pub(super) fn check_topic(client: &BaseConsumer<Logging>, topic: &str) -> Result<(), BusError> {
    check_name(topic).map_err(|_| BusError::UnknownTopicOrPartition(topic.to_owned()))?;
    let metadata =
        client.client().fetch_metadata(Some(topic), CALL_LIMIT).map_err(|error| bus_error(&error, topic))?;
    match metadata.topics().iter().find(|found| found.name() == topic) {
        Some(found) => match found.error() {
            None => Ok(()),
            Some(error) => Err(code_error(error.into(), topic)),
        },
        None => Err(BusError::UnknownTopicOrPartition(topic.to_owned())),
    }
}

/// Partitions with offsets, for librdkafka.
pub(super) fn list<'a>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, BusError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)
            .map_err(|error| bus_error(&error, &partition.to_string()))?;
    }
    Ok(list)
}

/// Whether a topic of this name is the cluster's own: Apache Kafka's and Farol's.
pub(super) fn is_internal(topic: &str) -> bool {
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"]
        .contains(&topic)
}

/// Topics other than the cluster's own, with their number of partitions.
fn partition_counts(client: &BaseConsumer<Logging>) -> Result<BTreeMap<String, i32>, BusError> {
    let metadata =
        client.client().fetch_metadata(None, CALL_LIMIT).map_err(|error| bus_error(&error, "the topics"))?;
    let topics = metadata.topics().iter().filter(|topic| !is_internal(topic.name()));
    Ok(topics
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        .collect())
}

/// Whether the broker that is asked knows a topic.
pub(super) fn has_topic(
    client: &BaseConsumer<Logging>,
    topic: &str,
    limit: Duration,
) -> Result<bool, BusError> {
    let asked = client.client().fetch_metadata(Some(topic), limit);
    let metadata = asked.map_err(|error| bus_error(&error, topic))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let error = found.and_then(|found| found.error()).map(Code::from);
    Ok(!matches!(error, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)))
}

/// Kafka answers a creation before every broker knows of it.
fn wait_until_ready(client: &BaseConsumer<Logging>, topic: &str, partitions: i32) -> Result<(), BusError> {
    let deadline = Instant::now() + TOPIC_READY_LIMIT;
    loop {
        let metadata = client
            .client()
            .fetch_metadata(Some(topic), CALL_LIMIT)
            .map_err(|error| bus_error(&error, topic))?;
        let led = |partition: &rdkafka::metadata::MetadataPartition| {
            partition.leader() >= 0
                && partition.error().is_none_or(|e| e == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let ready = found.map_or(0, |found| found.partitions().iter().filter(|p| led(p)).count());
        if i32::try_from(ready).is_ok_and(|ready| ready >= partitions) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(BusError::Unavailable(format!(
                "{topic} was made, but {ready} of its {partitions} partitions can be used"
            )));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Checked here as well, because the client library takes the name as a C string.
fn check_name(topic: &str) -> Result<(), BusError> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || matches!(topic, "." | "..")
        || topic.len() > MAX_NAME_BYTES
        || !topic.chars().all(usual)
    {
        return Err(BusError::InvalidTopic {
            topic: topic.to_owned(),
            problem: format!("a name is 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` and `-`"),
        });
    }
    Ok(())
}

/// The one result of a call about one thing.
fn each<T>(
    results: rdkafka::error::KafkaResult<Vec<Result<T, (String, Code)>>>,
    what: &str,
) -> Result<(), BusError> {
    let results = results.map_err(|error| bus_error(&error, what))?;
    match results.into_iter().find_map(Result::err) {
        Some((_, code)) => Err(code_error(code, what)),
        None => Ok(()),
    }
}

fn given(config: &BTreeMap<String, String>) -> String {
    config.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn request_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(CALL_LIMIT)).operation_timeout(Some(CALL_LIMIT))
}
