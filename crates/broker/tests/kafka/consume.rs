//! Fetching: the long poll, bounds, sessions.

use std::time::{Duration, Instant};

use farol_log::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};

use crate::client::{Server, batch, eventually, fetch_request, name, soon, values};

fn partitions(offsets: &[(i32, i64)]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    };
    let partitions = offsets.iter().map(partition).collect();
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(partitions);
    FetchRequest::default().with_max_bytes(1 << 24).with_topics(vec![topic])
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_next_append() {
    let server = Server::start().await;
    let mut reader = server.client().await;
    let mut writer = server.client().await;
    let waiting = fetch_request("t", 2, 0).with_min_bytes(1).with_max_wait_ms(60_000);
    let began = Instant::now();
    let correlation_id = reader.send(12, &waiting).await;
    writer.produce("t", 1, batch(Compression::None, &["another partition"])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.produce("t", 2, batch(Compression::None, &["news"])).await;
    let response: FetchResponse = reader.receive(12, correlation_id).await;
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()), ["news"]);
}

#[tokio::test]
async fn a_long_poll_gathers_until_there_is_enough_or_its_time_is_up() {
    let server = Server::start().await;
    let mut reader = server.client().await;
    let mut writer = server.client().await;
    let one = batch(Compression::None, &["0123456789"]);
    let enough = i32::try_from(one.len() * 3).unwrap();
    let waiting = fetch_request("t", 0, 0).with_min_bytes(enough).with_max_wait_ms(60_000);
    let correlation_id = reader.send(12, &waiting).await;
    for _ in 0..3 {
        writer.produce("t", 0, one.clone()).await;
    }
    let response: FetchResponse = reader.receive(12, correlation_id).await;
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()).len(), 3);

    let began = Instant::now();
    let waiting = fetch_request("t", 0, 0).with_min_bytes(enough * 10).with_max_wait_ms(200);
    let response = reader.call(12, &waiting).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()).len(), 3, "what there is");
}

#[tokio::test]
async fn an_offset_that_is_not_there_and_a_missing_partition_are_told_at_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = partitions(&[(0, 5), (9, 0), (1, 0)]).with_min_bytes(1).with_max_wait_ms(60_000);
    let response = soon(client.call(12, &request)).await;
    let codes: Vec<i16> = response.responses[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(
        codes,
        [ResponseError::OffsetOutOfRange.code(), ResponseError::UnknownTopicOrPartition.code(), 0]
    );
    assert_eq!(response.responses[0].partitions[0].high_watermark, -1);
}

#[tokio::test]
async fn bounds_hold_but_one_batch_always_comes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let value = "x".repeat(10_000);
    for partition in 0..3 {
        for _ in 0..5 {
            client.produce("t", partition, batch(Compression::None, &[&value])).await;
        }
    }
    let lengths = |response: FetchResponse| -> Vec<usize> {
        let partitions = &response.responses[0].partitions;
        partitions.iter().map(|p| values(p.records.as_ref()).len()).collect()
    };
    let all = [(0, 0), (1, 0), (2, 0)];
    let tiny = client.call(12, &partitions(&all).with_max_bytes(1)).await;
    assert_eq!(lengths(tiny), [1, 0, 0]);
    let some = client.call(12, &partitions(&all).with_max_bytes(75_000)).await;
    assert_eq!(lengths(some), [5, 2, 0]);
    let mut request = partitions(&all);
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = 25_000;
    }
    assert_eq!(lengths(client.call(12, &request).await), [2, 2, 2]);
}

#[tokio::test]
async fn much_that_is_waiting_comes_whole_from_every_offset_however_slowly_it_is_taken() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut expected = Vec::new();
    for n in 0..400 {
        let value = format!("{n}{}", "x".repeat(2_000));
        client.produce("t", n % 2, batch(Compression::None, &[&value])).await;
        if n % 2 == 0 {
            expected.push(value);
        }
    }
    // So much is sent from the file.
    for offset in [0, 1, 77, 150, 199] {
        let records = client.fetch("t", 0, i64::try_from(offset).unwrap()).await.records;
        assert_eq!(values(records.as_ref()), expected[offset..]);
    }
    // Far more in one connection's answers than its socket holds, none of them taken before all are asked for.
    let both = partitions(&[(0, 0), (1, 0)]);
    let mut asked = Vec::new();
    for _ in 0..30 {
        asked.push(client.send(12, &both).await);
    }
    for correlation_id in asked {
        let response: FetchResponse = client.receive(12, correlation_id).await;
        let partitions = &response.responses[0].partitions;
        assert_eq!(values(partitions[0].records.as_ref()), expected);
        assert_eq!(values(partitions[1].records.as_ref()).len(), 200);
    }
}

#[tokio::test]
async fn a_session_tells_only_what_has_changed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = client.call(12, &partitions(&[(0, 0), (1, 0), (2, 0)]).with_session_epoch(0)).await;
    let id = first.session_id;
    assert_ne!(id, 0);
    assert_eq!(first.responses[0].partitions.len(), 3, "everything at first");

    let next =
        |epoch| FetchRequest::default().with_max_bytes(1 << 20).with_session_id(id).with_session_epoch(epoch);
    let quiet = client.call(12, &next(1)).await;
    assert!(quiet.responses.is_empty());
    client.produce("t", 1, batch(Compression::None, &["a"])).await;
    let news = client.call(12, &next(2)).await;
    assert_eq!(news.responses[0].partitions.len(), 1);
    assert_eq!(news.responses[0].partitions[0].partition_index, 1);

    // The client says where it reads on, and that it reads partition 0 no more.
    let moved = partitions(&[(1, 1)]);
    let forgotten = ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![0]);
    let request = next(3).with_topics(moved.topics).with_forgotten_topics_data(vec![forgotten]);
    assert!(client.call(12, &request).await.responses.is_empty());
    client.produce("t", 0, batch(Compression::None, &["unread"])).await;
    client.produce("t", 2, batch(Compression::None, &["b"])).await;
    let news = client.call(12, &next(4)).await;
    assert_eq!(news.responses[0].partitions.len(), 1);
    assert_eq!(values(news.responses[0].partitions[0].records.as_ref()), ["b"]);

    // Another connection goes on with it; a wrong epoch and an ended session are told.
    let mut other = server.client().await;
    assert_eq!(other.call(12, &next(5)).await.error_code, 0);
    assert_eq!(other.call(12, &next(5)).await.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    assert_eq!(other.call(12, &partitions(&[]).with_session_id(id)).await.session_id, 0);
    assert_eq!(other.call(12, &next(6)).await.error_code, ResponseError::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn a_stop_answers_long_polls_and_lets_appends_end() {
    let server = Server::start().await;
    let mut reader = server.client().await;
    let mut writer = server.client().await;
    let waiting = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(60_000);
    let fetch = reader.send(12, &waiting).await;
    eventually("the fetch has arrived", async || server.handle.numbers()().apis.len() == 1).await;
    let request = crate::client::produce_request("t", 1, batch(Compression::None, &["a"]));
    writer.call(9, &request).await;
    server.stop.cancel();
    let response: FetchResponse = reader.receive(12, fetch).await;
    assert_eq!(response.responses[0].partitions[0].high_watermark, 0);
    assert!(reader.is_closed().await);
    assert_eq!(soon(server.handle.join()).await, 0, "nothing had to be cut off");
}
