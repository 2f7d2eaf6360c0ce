//! Topics and their configuration, over the wire.

use std::collections::{BTreeMap, BTreeSet};

use farol_broker::kafka::KafkaSettings;
use farol_log::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeTopicPartitionsRequest, GroupId, IncrementalAlterConfigsRequest,
    OffsetCommitRequest, OffsetForLeaderEpochRequest, alter_configs_request,
    describe_topic_partitions_request, incremental_alter_configs_request, offset_commit_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, Server, batch, name};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn wanted(topic: &str, partitions: i32, config: &[(&str, &str)]) -> CreatableTopic {
    let config = config.iter().map(|(key, value)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    });
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(config.collect())
}

/// The error of each topic.
async fn create(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatableTopic>,
) -> Vec<Option<ResponseError>> {
    let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(1000);
    let response = client.call(version, &request).await;
    response.topics.iter().map(|topic| ResponseError::try_from_code(topic.error_code)).collect()
}

#[tokio::test]
async fn topics_are_made_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 2..=7 {
        let topic = format!("made-{version}");
        let request = CreateTopicsRequest::default().with_topics(vec![wanted(
            &topic,
            2,
            &[("retention.ms", "60000"), ("min.insync.replicas", "2")],
        )]);
        let response = client.call(version, &request).await;
        let result = &response.topics[0];
        assert_eq!(result.error_code, 0, "version {version}: {result:?}");
        let made = server.broker.topic(&topic).unwrap();
        assert_eq!(made.partition_count(), 2);
        assert_eq!(made.overrides()["min.insync.replicas"], "2", "kept");
        if version >= 5 {
            assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
            let configs = result.configs.as_ref().unwrap();
            assert!(configs.iter().any(|c| &*c.name == "retention.ms" && c.config_source == 1));
        }
        assert_eq!(result.topic_id, if version >= 7 { made.id() } else { uuid::Uuid::nil() });
    }
}

#[tokio::test]
async fn topics_that_cannot_be_made_are_refused_with_their_reason() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let at = |index, broker| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(broker)])
    };
    let assigned =
        |assignments| wanted("assigned", -1, &[]).with_replication_factor(-1).with_assignments(assignments);
    let errors = create(
        &mut client,
        6,
        vec![
            wanted("t", 1, &[]),
            wanted("bad name", 1, &[]),
            wanted("none", 0, &[]),
            wanted("many", 5000, &[]),
            wanted("copies", 1, &[]).with_replication_factor(3),
            wanted("unknown", 1, &[("remote.storage.enable", "true")]),
            wanted("wrong", 1, &[("retention.ms", "soon")]),
            assigned(vec![at(0, 2)]),
            wanted("twice", 1, &[]),
            wanted("twice", 1, &[]),
            wanted("__consumer_offsets", 1, &[]),
        ],
    )
    .await;
    use ResponseError::*;
    assert_eq!(
        errors,
        [
            Some(TopicAlreadyExists),
            Some(InvalidTopicException),
            Some(InvalidPartitions),
            Some(InvalidPartitions),
            Some(InvalidReplicationFactor),
            Some(InvalidConfig),
            Some(InvalidConfig),
            Some(InvalidReplicaAssignment),
            Some(InvalidRequest),
            Some(InvalidRequest),
            Some(TopicAlreadyExists)
        ]
    );
    assert_eq!(create(&mut client, 6, vec![assigned(vec![at(1, 1), at(0, 1)])]).await, [None]);
    assert_eq!(server.broker.topic("assigned").unwrap().partition_count(), 2);
    let only_checked =
        CreateTopicsRequest::default().with_topics(vec![wanted("checked", 1, &[])]).with_validate_only(true);
    assert_eq!(client.call(6, &only_checked).await.topics[0].error_code, 0);
    assert!(server.broker.topic("checked").is_err());
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 1..=6 {
        server.topic("gone", 2, &[]);
        let id = server.broker.topic("gone").unwrap().id();
        client.produce("gone", 0, batch(Compression::None, &["a"])).await;
        let request = if version < 6 {
            DeleteTopicsRequest::default().with_topic_names(vec![name("gone"), name("missing")])
        } else {
            let by_id = |id| DeleteTopicState::default().with_name(None).with_topic_id(id);
            DeleteTopicsRequest::default().with_topics(vec![by_id(id), by_id(uuid::Uuid::from_u128(3))])
        };
        let response = client.call(version, &request).await;
        assert_eq!(response.responses[0].error_code, 0, "version {version}");
        assert_eq!(response.responses[0].name, Some(name("gone")));
        let missing =
            if version < 6 { ResponseError::UnknownTopicOrPartition } else { ResponseError::UnknownTopicId };
        assert_eq!(response.responses[1].error_code, missing.code());
        assert!(server.broker.topic("gone").is_err());
        let refused = client.produce("gone", 0, batch(Compression::None, &["a"])).await;
        assert_eq!(refused.error_code, ResponseError::UnknownTopicOrPartition.code());
    }
}

#[tokio::test]
async fn what_groups_have_committed_of_a_topic_goes_with_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    server.topic("gone", 1, &[]);
    for topic in ["gone", "t"] {
        let partition =
            offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
        let topic = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("readers")))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        assert_eq!(client.call(8, &request).await.topics[0].partitions[0].error_code, 0);
    }
    assert_eq!(server.broker.committed("readers").len(), 2);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("gone")]);
    assert_eq!(client.call(5, &request).await.responses[0].error_code, 0);
    let left: Vec<String> =
        server.broker.committed("readers").keys().map(|partition| partition.topic.to_string()).collect();
    assert_eq!(left, ["t"]);
}

#[tokio::test]
async fn own_and_managed_topics_are_protected() {
    let settings =
        KafkaSettings { managed_topics: BTreeSet::from(["t".to_owned()]), ..KafkaSettings::default() };
    let server = Server::start_with(settings).await;
    let mut client = server.client().await;
    let request =
        DeleteTopicsRequest::default().with_topic_names(vec![name("t"), name("__consumer_offsets")]);
    let response = client.call(5, &request).await;
    assert_eq!(response.responses[0].error_code, ResponseError::PolicyViolation.code());
    assert!(response.responses[0].error_message.as_ref().unwrap().contains("settings"));
    assert_eq!(response.responses[1].error_code, ResponseError::InvalidTopicException.code());
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![CreatePartitionsTopic::default().with_name(name("t")).with_count(5)]);
    let response = client.call(3, &request).await;
    assert_eq!(response.results[0].error_code, ResponseError::PolicyViolation.code());
    assert_eq!(
        alter(&mut client, 1, 2, "t", &[("retention.ms", 0, "5")]).await,
        Some(ResponseError::PolicyViolation)
    );
    assert_eq!(
        alter(&mut client, 1, 2, "__consumer_offsets", &[("retention.ms", 0, "5")]).await,
        Some(ResponseError::InvalidTopicException)
    );
    assert_eq!(client.produce("t", 0, batch(Compression::None, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn partitions_are_added_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 0..=3 {
        let more = |count| {
            CreatePartitionsTopic::default().with_name(name("t")).with_count(count).with_assignments(None)
        };
        let assigned = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(9)]);
        let count = i32::from(version) + 4;
        for (topic, error) in [
            (more(3), ResponseError::InvalidPartitions),
            (more(count).with_name(name("missing")), ResponseError::UnknownTopicOrPartition),
            (more(count).with_assignments(Some(vec![assigned])), ResponseError::InvalidReplicaAssignment),
        ] {
            let request = CreatePartitionsRequest::default().with_topics(vec![topic]);
            assert_eq!(client.call(version, &request).await.results[0].error_code, error.code());
        }
        let request = CreatePartitionsRequest::default().with_topics(vec![more(count)]);
        let checked = client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!(
            (checked.results[0].error_code, server.broker.topic("t").unwrap().partition_count()),
            (0, count - 1)
        );
        assert_eq!(client.call(version, &request).await.results[0].error_code, 0);
        let answer = client.produce("t", count - 1, batch(Compression::None, &["a"])).await;
        assert_eq!(answer.base_offset, 0);
    }
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset_in_every_version() {
    let server = Server::start().await;
    server.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut client = server.client().await;
    for _ in 0..10 {
        client.produce("t", 0, batch(Compression::None, &["a"])).await;
    }
    for version in 0..=2 {
        let delete = |topic: &str, offset| {
            let partition = DeleteRecordsPartition::default().with_offset(offset);
            let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        };
        let upto = i64::from(version) + 2;
        let response = client.call(version, &delete("t", upto)).await;
        let result = &response.topics[0].partitions[0];
        assert_eq!((result.error_code, result.low_watermark), (0, upto));
        let gone = client.fetch("t", 0, upto - 1).await;
        assert_eq!(gone.error_code, ResponseError::OffsetOutOfRange.code());
        assert_eq!(client.fetch("t", 0, upto).await.log_start_offset, upto);
        for (topic, offset, error) in [
            ("t", 11, ResponseError::OffsetOutOfRange),
            ("t", -2, ResponseError::OffsetOutOfRange),
            ("missing", 0, ResponseError::UnknownTopicOrPartition),
            ("compacted", 0, ResponseError::PolicyViolation),
            ("__consumer_offsets", 0, ResponseError::InvalidTopicException),
        ] {
            let response = client.call(version, &delete(topic, offset)).await;
            assert_eq!(response.topics[0].partitions[0].error_code, error.code(), "{topic} {offset}");
        }
        if version == 2 {
            let response = client.call(version, &delete("t", -1)).await;
            assert_eq!(response.topics[0].partitions[0].low_watermark, 10, "to the end");
        }
    }
}

/// The configuration of a resource, by key.
async fn configs(
    client: &mut Client,
    version: i16,
    resource_type: i8,
    resource: &str,
) -> Result<BTreeMap<String, DescribeConfigsResourceResult>, ResponseError> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    let response = client.call(version, &request).await;
    let result = &response.results[0];
    match ResponseError::try_from_code(result.error_code) {
        Some(error) => Err(error),
        None => Ok(result.configs.iter().map(|one| (one.name.to_string(), one.clone())).collect()),
    }
}

/// Changes keys: 0 sets, 1 unsets, 2 adds to a list, 3 takes from it.
async fn alter(
    client: &mut Client,
    version: i16,
    resource_type: i8,
    resource: &str,
    changes: &[(&str, i8, &str)],
) -> Option<ResponseError> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let changes = changes.iter().map(|(key, operation, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value((*operation != 1).then(|| text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(changes.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(version, &request).await;
    ResponseError::try_from_code(response.responses[0].error_code)
}

#[tokio::test]
async fn configuration_is_described_and_changed_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 1..=4 {
        let configs = configs(&mut client, version, 2, "t").await.unwrap();
        let retention = &configs["retention.ms"];
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("-1"), 5));
        assert_eq!(retention.synonyms.len(), 1);
        assert!(!retention.read_only);
        if version >= 3 {
            assert_eq!(retention.config_type, 5);
            assert!(retention.documentation.as_ref().is_some_and(|text| !text.is_empty()));
        }
    }
    for version in 0..=1 {
        let changes = [("retention.ms", 0, "1000"), ("cleanup.policy", 2, "compact"), ("flush.ms", 0, "7")];
        assert_eq!(alter(&mut client, version, 2, "t", &changes).await, None);
        let changed = configs(&mut client, 4, 2, "t").await.unwrap();
        assert_eq!(changed["retention.ms"].value.as_deref(), Some("1000"));
        assert_eq!((changed["retention.ms"].config_source, changed["retention.ms"].synonyms.len()), (1, 2));
        assert_eq!(changed["cleanup.policy"].value.as_deref(), Some("delete,compact"));
        assert_eq!(changed["flush.ms"].value.as_deref(), Some("7"));
        assert_eq!(changed["segment.ms"].value.as_deref(), Some("250"), "a quarter of the retention");
        let back = [("retention.ms", 1, ""), ("cleanup.policy", 3, "compact"), ("flush.ms", 1, "")];
        assert_eq!(alter(&mut client, version, 2, "t", &back).await, None);
        let changed = configs(&mut client, 4, 2, "t").await.unwrap();
        assert_eq!(changed["retention.ms"].value.as_deref(), Some("-1"));
        assert_eq!(changed["cleanup.policy"].value.as_deref(), Some("delete"));
    }
    for version in 0..=2 {
        use alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let set =
            AlterableConfig::default().with_name(text("max.message.bytes")).with_value(Some(text("2048")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![set]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.call(version, &request).await.responses[0].error_code, 0);
        let overrides = server.broker.topic("t").unwrap().overrides().clone();
        assert_eq!(
            overrides,
            BTreeMap::from([("max.message.bytes".to_owned(), "2048".to_owned())]),
            "all replaced"
        );
    }
}

#[tokio::test]
async fn wrong_changes_of_configuration_are_refused_and_change_nothing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    use ResponseError::*;
    for (resource_type, resource, change, error) in [
        (2, "t", ("retention.ms", 0, "soon"), InvalidConfig),
        (2, "t", ("nothing.known", 0, "1"), InvalidConfig),
        (2, "t", ("retention.ms", 2, "5"), InvalidConfig),
        (2, "t", ("retention.ms", 9, "5"), InvalidRequest),
        (2, "missing", ("retention.ms", 0, "5"), UnknownTopicOrPartition),
        (4, "1", ("num.partitions", 0, "5"), InvalidRequest),
        (8, "1", ("root", 0, "DEBUG"), InvalidRequest),
    ] {
        assert_eq!(
            alter(&mut client, 1, resource_type, resource, &[change]).await,
            Some(error),
            "{change:?}"
        );
    }
    assert!(server.broker.topic("t").unwrap().overrides().is_empty());
}

#[tokio::test]
async fn the_broker_is_described_and_cannot_be_changed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 1..=4 {
        let described = configs(&mut client, version, 4, "1").await.unwrap();
        assert!(described.values().all(|value| value.read_only));
        assert_eq!(described["auto.create.topics.enable"].value.as_deref(), Some("false"));
        let listener = format!("PLAINTEXT://{}", server.address);
        assert_eq!(described["advertised.listeners"].value.as_deref(), Some(listener.as_str()));
        assert_eq!(configs(&mut client, version, 4, "7").await.err(), Some(ResponseError::InvalidRequest));
        assert_eq!(
            configs(&mut client, version, 2, "missing").await.err(),
            Some(ResponseError::UnknownTopicOrPartition)
        );
    }
    for version in 0..=2 {
        let cluster = client.call(version, &DescribeClusterRequest::default()).await;
        assert_eq!(cluster.brokers.len(), 1);
        assert_eq!(cluster.controller_id, cluster.brokers[0].broker_id);
        assert_eq!(cluster.brokers[0].port, i32::from(server.address.port()));
        assert_eq!(&*cluster.cluster_id, server.broker.cluster_id().simple().to_string());
    }
    for version in 1..=3 {
        let acls = client.call(version, &DescribeAclsRequest::default()).await;
        assert_eq!(acls.error_code, ResponseError::SecurityDisabled.code());
    }
}

#[tokio::test]
async fn log_folders_are_described_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.produce("t", 1, batch(Compression::None, &["a"])).await;
    for version in 1..=4 {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let response = client.call(version, &request).await;
        let topics = &response.results[0].topics;
        let described = topics.iter().find(|topic| topic.name == name("t")).unwrap();
        let sizes: Vec<i64> = described.partitions.iter().map(|partition| partition.partition_size).collect();
        assert!(sizes[0] == 0 && sizes[1] > 61 && sizes[2] == 0, "{sizes:?}");
        assert!(topics.len() > 1);
    }
}

#[tokio::test]
async fn the_one_epoch_ends_where_the_partition_does() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.produce("t", 0, batch(Compression::None, &["a", "b"])).await;
    for version in 2..=4 {
        let ask = |partition, current, epoch| {
            OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch)
        };
        let partitions = vec![ask(0, -1, 0), ask(0, 0, 1), ask(9, -1, 0), ask(0, 4, 0)];
        let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(partitions);
        let response =
            client.call(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
        let answers: Vec<(i16, i32, i64)> = response.topics[0]
            .partitions
            .iter()
            .map(|one| (one.error_code, one.leader_epoch, one.end_offset))
            .collect();
        let missing = ResponseError::UnknownTopicOrPartition.code();
        let unknown = ResponseError::UnknownLeaderEpoch.code();
        assert_eq!(answers, [(0, 0, 2), (0, -1, -1), (missing, -1, -1), (unknown, -1, -1)]);
    }
}

#[tokio::test]
async fn topic_partitions_come_page_by_page() {
    let server = Server::start().await;
    server.topic("a", 2, &[]);
    server.topic("b", 4, &[]);
    let mut client = server.client().await;
    let topic =
        |topic: &str| describe_topic_partitions_request::TopicRequest::default().with_name(name(topic));
    let mut request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic("b"), topic("a"), topic("missing")])
        .with_response_partition_limit(3);
    let mut seen = Vec::new();
    loop {
        let response = client.call(0, &request).await;
        for topic in &response.topics {
            let topic_name = topic.name.as_ref().unwrap().to_string();
            if topic.error_code != 0 {
                assert_eq!(topic.error_code, ResponseError::UnknownTopicOrPartition.code());
                seen.push((topic_name, -1));
                continue;
            }
            // The Java client can't read the topic otherwise.
            assert!(topic.partitions.iter().all(|p| p.eligible_leader_replicas.is_some()));
            seen.extend(topic.partitions.iter().map(|p| (topic_name.clone(), p.partition_index)));
        }
        let Some(cursor) = response.next_cursor else { break };
        request.cursor = Some(
            describe_topic_partitions_request::Cursor::default()
                .with_topic_name(cursor.topic_name)
                .with_partition_index(cursor.partition_index),
        );
    }
    let expected = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("missing", -1)];
    assert_eq!(seen, expected.map(|(topic, index)| (topic.to_owned(), index)));
}
