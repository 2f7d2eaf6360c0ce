//! Every API that is served, in every version.

use std::collections::BTreeMap;

use farol_broker::kafka::KafkaSettings;
use farol_log::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ListOffsetsRequest, MetadataRequest, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::AsyncWriteExt;

use crate::client::{Server, batch, fetch_request, name, produce_request, values};

#[tokio::test]
async fn api_versions_tells_what_is_served_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    for version in 0..=4 {
        let response = client.call(version, &request).await;
        assert_eq!(response.error_code, 0);
        let ranges: BTreeMap<i16, (i16, i16)> =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        assert_eq!(ranges[&(ApiKey::Produce as i16)].0, 0, "or librdkafka won't compress (KAFKA-18659)");
        assert!(ranges[&(ApiKey::Fetch as i16)].1 >= 13);
        assert_eq!(ranges.len(), response.api_keys.len());
    }
}

#[tokio::test]
async fn a_version_of_api_versions_that_is_not_served_is_answered_in_version_0() {
    let server = Server::start().await;
    let mut client = server.client().await;
    // Version 99, correlation id 7; a body that only its sender understands.
    let frame = [0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 7, 1, 2, 3, 4];
    client.stream.write_all(&frame).await.unwrap();
    let mut frame = client.frame().await.unwrap();
    assert_eq!(ResponseHeader::decode(&mut frame, 0).unwrap().correlation_id, 7);
    let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
    assert!(!response.api_keys.is_empty());
    // And the connection is good for another try.
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).await.error_code, 0);
}

#[tokio::test]
async fn what_nobody_serves_ends_the_connection() {
    let server = Server::start().await;
    for (key, version) in [(0i16, 0i16), (1, 3), (1, 99), (3, -1), (999, 0), (-1, 0)] {
        let mut client = server.client().await;
        let mut frame = vec![0, 0, 0, 10];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0xff, 0xff]);
        client.stream.write_all(&frame).await.unwrap();
        assert!(client.is_closed().await, "API key {key} version {version}");
    }
    let stats = server.handle.numbers()();
    assert_eq!(stats.invalid_requests, 6, "{stats:?}");
}

#[tokio::test]
async fn metadata_describes_topics_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 0..=13 {
        let wanted = |topic: &str| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted("t"), wanted("missing")]));
        let response = client.call(version, &request).await;
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(response.brokers[0].host, StrBytes::from_static_str("127.0.0.1"));
        assert_eq!(response.brokers[0].port, i32::from(server.address.port()));
        assert_eq!(response.topics[0].partitions.len(), 3);
        assert_eq!(response.topics[0].partitions[2].leader_id, response.brokers[0].node_id);
        assert_eq!(response.topics[1].error_code, ResponseError::UnknownTopicOrPartition.code());
        if version >= 10 {
            assert_eq!(response.topics[0].topic_id, server.broker.topic("t").unwrap().id());
        }
        let all = MetadataRequest::default().with_topics((version == 0).then(Vec::new));
        let all = client.call(version, &all).await;
        assert!(all.topics.iter().any(|topic| topic.name == Some(name("__consumer_offsets"))), "{version}");
    }
    let id = server.broker.topic("t").unwrap().id();
    let by_id = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let request = MetadataRequest::default()
        .with_topics(Some(vec![by_id(id), by_id(uuid::Uuid::from_u128(1))]))
        .with_allow_auto_topic_creation(false);
    let response = client.call(12, &request).await;
    assert_eq!(response.topics[0].name, Some(name("t")));
    assert_eq!(response.topics[1].error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn metadata_tells_what_is_allowed_if_asked() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for asked in [false, true] {
        let request = MetadataRequest::default()
            .with_topics(None)
            .with_include_topic_authorized_operations(asked)
            .with_include_cluster_authorized_operations(asked);
        let response = client.call(8, &request).await;
        let unknown = i32::MIN;
        let (topics, cluster) =
            if asked { (0b1101_1111_1000, 0b1_1111_1010_0000) } else { (unknown, unknown) };
        assert!(response.topics.iter().all(|topic| topic.topic_authorized_operations == topics));
        assert_eq!(response.cluster_authorized_operations, cluster);
    }
}

#[tokio::test]
async fn topics_are_made_on_demand_only_if_that_is_set() {
    for auto_create_topics in [false, true] {
        let settings = KafkaSettings { auto_create_topics, ..KafkaSettings::default() };
        let server = Server::start_with(settings).await;
        let mut client = server.client().await;
        let wanted = |topic: &str| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = |allowed| {
            MetadataRequest::default()
                .with_topics(Some(vec![wanted("new"), wanted("bad name"), wanted("__own")]))
                .with_allow_auto_topic_creation(allowed)
        };
        let refused = client.call(9, &request(false)).await;
        assert_eq!(refused.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
        let response = client.call(9, &request(true)).await;
        assert_eq!(response.topics[0].error_code == 0, auto_create_topics);
        assert_eq!(server.broker.topic("new").is_ok(), auto_create_topics);
        assert_ne!(response.topics[1].error_code, 0);
        assert_eq!(response.topics[2].error_code, ResponseError::UnknownTopicOrPartition.code());
    }
}

#[tokio::test]
async fn records_come_back_in_every_version_of_produce_and_fetch() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = server.broker.topic("t").unwrap().id();
    for version in 3..=13 {
        let mut request = produce_request("t", 0, batch(Compression::None, &["a", "b"]));
        if version >= 13 {
            request.topic_data[0].name = name("");
            request.topic_data[0].topic_id = id;
        }
        let response = client.call(version, &request).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, i64::from(version - 3) * 2));
    }
    for version in 4..=17 {
        let mut request = fetch_request("t", 0, 20);
        if version >= 13 {
            request.topics[0].topic = name("");
            request.topics[0].topic_id = id;
        }
        let response = client.call(version, &request).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(
            (partition.error_code, partition.high_watermark, partition.last_stable_offset),
            (0, 22, 22)
        );
        assert_eq!(values(partition.records.as_ref()), ["a", "b"], "version {version}");
        let topic = &response.responses[0];
        assert!(if version >= 13 { topic.topic_id == id } else { topic.topic == name("t") });
    }
}

#[tokio::test]
async fn offsets_are_found_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.produce("t", 1, batch(Compression::Lz4, &["a", "b", "c"])).await;
    for version in 1..=10 {
        let at = |partition, timestamp| {
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp)
        };
        let partitions = vec![
            at(1, -1),
            at(1, -2),
            at(1, -3),
            at(1, 1_600_000_000_000),
            at(1, 1_800_000_000_000),
            at(0, -1),
            at(7, -1),
            at(1, -99),
        ];
        let (mut found, mut timestamps) = (Vec::new(), Vec::new());
        for partition in partitions {
            let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let answer = client.call(version, &request).await.topics[0].partitions[0].clone();
            found.push((answer.error_code, answer.offset));
            timestamps.push(answer.timestamp);
        }
        let missing = ResponseError::UnknownTopicOrPartition.code();
        let unsupported = ResponseError::UnsupportedVersion.code();
        assert_eq!(
            found,
            [(0, 3), (0, 0), (0, 0), (0, 0), (0, -1), (0, 0), (missing, -1), (unsupported, -1)],
            "version {version}"
        );
        assert_eq!(timestamps[3], 1_700_000_000_000);
    }
}
