//! Connections: their bounds.

use farol_broker::kafka::KafkaLimits;
use kafka_protocol::messages::ApiVersionsRequest;

use crate::client::{Server, eventually};

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
