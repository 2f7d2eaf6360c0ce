//! Producing: what is taken, what is refused, and in which order.

use bytes::{Bytes, BytesMut};
use farol_log::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest};

use crate::client::{Server, batch, eventually, name, produce_request, values};

#[tokio::test]
async fn every_compression_is_kept_as_it_came() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for compression in Compression::ALL {
        let sent = batch(compression, &["one", "two", "three"]);
        let offset = client.produce("t", 0, sent.clone()).await.base_offset;
        let records = client.fetch("t", 0, offset).await.records.unwrap();
        assert_eq!(records[8..], sent[8..], "{compression:?}: only the offset is another");
        assert_eq!(values(Some(&records)), ["one", "two", "three"]);
    }
}

#[tokio::test]
async fn pipelined_batches_keep_their_order() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut correlation_ids = Vec::new();
    for number in 0..100 {
        // Every third one is validated on another thread, which takes longer.
        let padding = if number % 3 == 0 { 600_000 } else { 10 };
        let value = format!("{number}:{}", "x".repeat(padding));
        let request = produce_request("t", 0, batch(Compression::None, &[&value]));
        correlation_ids.push(client.send(9, &request).await);
    }
    for (number, correlation_id) in (0..).zip(correlation_ids) {
        let response: kafka_protocol::messages::ProduceResponse = client.receive(9, correlation_id).await;
        assert_eq!(response.responses[0].partition_responses[0].base_offset, number);
    }
    for offset in [0, 33, 99] {
        let records = client.fetch("t", 0, offset).await.records;
        assert!(values(records.as_ref())[0].starts_with(&format!("{offset}:")));
    }
}

fn damaged(at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&batch(Compression::None, &["value"])[..]);
    bytes[at] ^= 0x55;
    bytes.freeze()
}

/// A good batch but for its attributes.
fn with_attributes(attributes: i16) -> Bytes {
    changed(21, &attributes.to_be_bytes())
}

/// A good batch but for the bytes from `at` on.
fn changed(at: usize, to: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&batch(Compression::None, &["value"])[..]);
    bytes[at..at + to.len()].copy_from_slice(to);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[tokio::test]
async fn timestamps_of_the_future_are_refused_but_for_clocks_that_run_ahead_a_little() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let minute = 60_000;
    // Where the batch has its first and its largest timestamp.
    let stamped = |ms: i64| changed(27, &[ms.to_be_bytes(), ms.to_be_bytes()].concat());
    for ms in [now + 70 * minute, 4_070_908_800_000, i64::MAX] {
        let answer = client.produce("t", 0, stamped(ms)).await;
        assert_eq!(answer.error_code, ResponseError::InvalidTimestamp.code(), "{ms}");
        let said = answer.error_message.unwrap();
        assert!(said.contains("message.timestamp.after.max.ms is 3600000"), "{said:?}");
    }
    for ms in [now + 50 * minute, now, 0, -1] {
        assert_eq!(client.produce("t", 0, stamped(ms)).await.error_code, 0, "{ms}");
    }
}

fn with_magic(magic: u8) -> Bytes {
    let mut bytes = BytesMut::from(&batch(Compression::None, &["value"])[..]);
    bytes[16] = magic;
    bytes.freeze()
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_by_partition_with_code_and_reason() {
    let server = Server::start().await;
    server.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    server.topic("small", 1, &[("max.message.bytes", "1024")]);
    let mut client = server.client().await;
    let good = || batch(Compression::None, &["value"]);
    let without_key = {
        let mut builder = farol_log::BatchBuilder::default();
        builder.push(None, Some(b"v"), &[], 1).unwrap();
        builder.build().unwrap().bytes().clone()
    };
    for (topic, partition, records, error) in [
        ("t", 3, good(), ResponseError::UnknownTopicOrPartition),
        ("t", -1, good(), ResponseError::UnknownTopicOrPartition),
        ("missing", 0, good(), ResponseError::UnknownTopicOrPartition),
        ("__consumer_offsets", 0, good(), ResponseError::InvalidTopicException),
        ("t", 0, damaged(70), ResponseError::CorruptMessage),
        ("t", 0, damaged(45), ResponseError::CorruptMessage),
        ("t", 0, good().slice(..40), ResponseError::CorruptMessage),
        ("t", 0, good().slice(..65), ResponseError::CorruptMessage),
        ("t", 0, with_magic(0), ResponseError::UnsupportedForMessageFormat),
        ("t", 0, with_magic(1), ResponseError::UnsupportedForMessageFormat),
        ("t", 0, with_magic(3), ResponseError::CorruptMessage),
        ("t", 0, with_attributes(0x20), ResponseError::InvalidRecord),
        ("t", 0, with_attributes(0x07), ResponseError::UnsupportedCompressionType),
        ("t", 0, Bytes::new(), ResponseError::InvalidRecord),
        ("compacted", 0, without_key, ResponseError::InvalidRecord),
        ("small", 0, batch(Compression::None, &[&"x".repeat(2000)]), ResponseError::MessageTooLarge),
    ] {
        let refused = client.produce(topic, partition, records).await;
        assert_eq!(ResponseError::try_from_code(refused.error_code), Some(error), "{topic}/{partition}");
        assert!(refused.error_message.is_some_and(|message| !message.is_empty()), "{error:?}");
        assert_eq!(refused.base_offset, -1);
    }
    assert_eq!(client.produce("t", 0, good()).await.base_offset, 0, "nothing of it was appended");
}

#[tokio::test]
async fn the_records_that_are_to_blame_are_named_to_clients_that_understand_it() {
    let server = Server::start().await;
    server.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut client = server.client().await;
    let mut builder = farol_log::BatchBuilder::default();
    for key in [Some(&b"k"[..]), None, Some(&b"k"[..]), None] {
        builder.push(key, Some(b"v"), &[], 1).unwrap();
    }
    let records = builder.build().unwrap().bytes().clone();
    for version in 3..=12 {
        let response = client.call(version, &produce_request("compacted", 0, records.clone())).await;
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
        let named: Vec<i32> = refused.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!(named, if version >= 8 { vec![1, 3] } else { vec![] }, "version {version}");
    }
}

#[tokio::test]
async fn one_bad_partition_does_not_hold_up_the_others() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let data = |index, records| PartitionProduceData::default().with_index(index).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![
        data(0, batch(Compression::None, &["a"])),
        data(1, damaged(70)),
        data(2, batch(Compression::None, &["b"])),
    ]);
    let request = ProduceRequest::default().with_acks(1).with_topic_data(vec![topic]);
    let response = client.call(9, &request).await;
    let codes: Vec<i16> = response.responses[0].partition_responses.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, ResponseError::CorruptMessage.code(), 0]);
    assert_eq!(values(client.fetch("t", 2, 0).await.records.as_ref()), ["b"]);
}

#[tokio::test]
async fn acks_0_is_silent_and_a_refusal_ends_the_connection() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let silent = |records| produce_request("t", 0, records).with_acks(0);
    client.send(9, &silent(batch(Compression::None, &["quiet"]))).await;
    // The next answer is the next request's.
    client.call(0, &ApiVersionsRequest::default()).await;
    eventually("the record is there", async || {
        server.broker.topic("t").unwrap().partition(0).unwrap().end_offset() == 1
    })
    .await;
    client.send(9, &silent(damaged(70))).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn wrong_acks_are_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = produce_request("t", 0, batch(Compression::None, &["a"])).with_acks(2);
    let response = client.call(9, &request).await;
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::InvalidRequiredAcks.code());
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0);
}

#[tokio::test]
async fn a_topic_may_give_records_the_time_of_their_append() {
    let server = Server::start().await;
    server.topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut client = server.client().await;
    let answer = client.produce("stamped", 0, batch(Compression::Zstd, &["a"])).await;
    assert!(answer.log_append_time_ms > 1_700_000_000_000, "{answer:?}");
    let records = client.fetch("stamped", 0, 0).await.records.unwrap();
    let batch = farol_log::Batch::validate(records, &farol_log::BatchLimits::default()).unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!(record.timestamp_ms, answer.log_append_time_ms);
    let plain = client.produce("t", 0, crate::client::batch(Compression::None, &["a"])).await;
    assert_eq!(plain.log_append_time_ms, -1);
}
