//! Connections: their bounds, and what the server counts of them.

use std::time::Duration;

use farol_broker::kafka::KafkaLimits;
use farol_log::Compression;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiVersionsRequest, HeartbeatRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Server, batch, eventually, fetch_request, name, produce_request};

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_counted_and_places_come_back() {
    let limits = KafkaLimits { connections: 2, ..KafkaLimits::default() };
    let server = Server::start_limited(limits).await;
    let numbers = server.handle.numbers();
    let mut first = server.client().await;
    let mut second = server.client().await;
    first.call(0, &ApiVersionsRequest::default()).await;
    second.call(0, &ApiVersionsRequest::default()).await;
    let mut third = server.client().await;
    assert!(third.is_closed().await);
    assert_eq!((numbers().connections, numbers().connections_refused), (2, 1));
    drop(first);
    eventually("the place is free", async || numbers().connections == 1).await;
    let mut fourth = server.client().await;
    fourth.call(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn failures_are_counted_by_api_and_code_wherever_they_stand_in_an_answer() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let records = || batch(Compression::None, &["a"]);
    client.call(9, &produce_request("t", 0, records())).await;
    client.call(9, &produce_request("missing", 0, records())).await;
    client.call(12, &fetch_request("t", 0, 100)).await;
    let missing = MetadataRequestTopic::default().with_name(Some(name("missing")));
    client.call(9, &MetadataRequest::default().with_topics(Some(vec![missing]))).await;
    let nobody = StrBytes::from_static_str("nobody");
    let heartbeat =
        HeartbeatRequest::default().with_member_id(nobody).with_group_id(StrBytes::from("g").into());
    client.call(4, &heartbeat).await;
    client.call(4, &heartbeat).await;
    // A producer with acks=0 learns of it by the end of the connection.
    client.send(9, &produce_request("missing", 0, records()).with_acks(0)).await;
    assert!(client.is_closed().await);

    let errors = server.handle.numbers()().errors;
    let told = errors.iter().map(|error| (error.api.as_str(), error.name.as_str(), error.told));
    let unknown = "UnknownTopicOrPartition";
    let expected = [
        ("Produce", unknown, 2),
        ("Fetch", "OffsetOutOfRange", 1),
        ("Metadata", unknown, 1),
        ("Heartbeat", "UnknownMemberId", 2),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn requests_are_timed_by_api_until_their_answers_are_sent() {
    const WAIT: Duration = Duration::from_millis(100);
    let server = Server::start().await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.call(0, &ApiVersionsRequest::default()).await;
    }
    let silent = produce_request("t", 0, batch(Compression::None, &["a"])).with_acks(0);
    client.send(9, &silent).await;
    let poll = fetch_request("t", 1, 0).with_min_bytes(1).with_max_wait_ms(100);
    client.call(12, &poll).await;

    let durations = |api: &str| {
        let apis = server.handle.numbers()().apis;
        apis.into_iter().find(|row| row.name == api).map(|row| row.durations).unwrap_or_default()
    };
    // The client may have its answer before that is counted.
    eventually("all are counted", async || durations("Fetch").count() == 1).await;
    assert_eq!(durations("ApiVersions").count(), 3);
    assert_eq!(durations("Produce").count(), 1, "one that isn't answered is timed too");
    assert!(durations("Fetch").total >= WAIT, "{:?}", durations("Fetch"));
    assert!(durations("ApiVersions").total < Duration::from_secs(30), "{:?}", durations("ApiVersions"));
}
