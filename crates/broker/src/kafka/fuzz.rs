//! Mutated requests through the whole server: frames, headers, shapes, the codec and every handler, on a real broker.
//!
//! Plain seeded mutation of valid requests, run by the ordinary tests for [`DEFAULT_SECONDS`] (`FAROL_FUZZ_SECONDS` says
//! otherwise, `FAROL_FUZZ_SEED` repeats a run). Guidance by coverage is given up for it: a fuzzer with that needs an
//! instrumented build of its own and a tool to be installed, and the layouts are known here, so mutations can aim at lengths
//! and counts, which are what a decoder of length-prefixed fields gets wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest, ApiVersionsRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest,
    DescribeTransactionsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest, TopicName, TxnOffsetCommitRequest,
};
use kafka_protocol::messages::{create_topics_request, fetch_request, list_offsets_request, produce_request};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::apis::Apis;
use super::connection::{self, Connection};
use super::outlet::Copying;
use super::sasl::Authentication;
use super::{KafkaLimits, KafkaSettings, Server};
use crate::broker::{Broker, BrokerOptions};

const DEFAULT_SECONDS: u64 = 5;
/// Memory that the process may use at the end, with everything that the other tests of the binary hold.
const MAX_RESIDENT_KIB: u64 = 1024 * 1024;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn connection_to(server: &Server, address: SocketAddr) -> Arc<Connection> {
    let place = server.admission.admit(address.ip()).ok().unwrap();
    Arc::new(Connection::new(address, address, Authentication::Done, place))
}

/// A frame without its length, in every version that the codec can encode.
fn frames<Q: Request>(request: &Q, into: &mut Vec<Vec<u8>>) {
    let key = kafka_protocol::messages::ApiKey::try_from(Q::KEY).unwrap();
    for version in Q::VERSIONS.min..=Q::VERSIONS.max {
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("fuzz")));
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes, key.request_header_version(version)).unwrap();
        if request.encode(&mut bytes, version).is_ok() {
            into.push(bytes.to_vec());
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let topic = || TopicName(StrBytes::from_static_str("t"));
    let mut builder = farol_log::BatchBuilder::default();
    builder.push(Some(b"key"), Some(b"value"), &[], 1).unwrap();
    let records = builder.build().unwrap().bytes().clone();
    let mut all = Vec::new();
    let part = produce_request::PartitionProduceData::default().with_records(Some(records));
    let data =
        produce_request::TopicProduceData::default().with_name(topic()).with_partition_data(vec![part]);
    frames(&ProduceRequest::default().with_acks(1).with_topic_data(vec![data]), &mut all);
    let part = fetch_request::FetchPartition::default().with_partition_max_bytes(1000);
    let data = fetch_request::FetchTopic::default().with_topic(topic()).with_partitions(vec![part]);
    frames(&FetchRequest::default().with_topics(vec![data]).with_session_epoch(0), &mut all);
    let part = list_offsets_request::ListOffsetsPartition::default().with_timestamp(5);
    let data =
        list_offsets_request::ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![part]);
    frames(&ListOffsetsRequest::default().with_topics(vec![data]), &mut all);
    let made = create_topics_request::CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let made = CreateTopicsRequest::default().with_topics(vec![made]).with_validate_only(true);
    frames(&made, &mut all);
    macro_rules! plain {
        ($($request:ty),* $(,)?) => { $(frames(&<$request>::default(), &mut all);)* };
    }
    plain!(
        AddOffsetsToTxnRequest,
        AddPartitionsToTxnRequest,
        AlterConfigsRequest,
        ApiVersionsRequest,
        CreatePartitionsRequest,
        DeleteGroupsRequest,
        DeleteRecordsRequest,
        DeleteTopicsRequest,
        DescribeAclsRequest,
        DescribeClusterRequest,
        DescribeConfigsRequest,
        DescribeGroupsRequest,
        DescribeLogDirsRequest,
        DescribeProducersRequest,
        DescribeTopicPartitionsRequest,
        DescribeTransactionsRequest,
        EndTxnRequest,
        FindCoordinatorRequest,
        HeartbeatRequest,
        IncrementalAlterConfigsRequest,
        InitProducerIdRequest,
        JoinGroupRequest,
        LeaveGroupRequest,
        ListGroupsRequest,
        ListTransactionsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetDeleteRequest,
        OffsetFetchRequest,
        OffsetForLeaderEpochRequest,
        SaslAuthenticateRequest,
        SaslHandshakeRequest,
        SyncGroupRequest,
        TxnOffsetCommitRequest,
    );
    all
}

/// Lengths and counts at which decoders go wrong.
const BOUNDARIES: [i32; 10] = [-2, -1, 0, 1, 127, 128, 0x7fff, 0xffff, i32::MAX, i32::MIN];

fn mutate(rng: &mut StdRng, frame: &mut Vec<u8>) {
    // Mostly behind the key and version, so that the request is one that is served.
    let from = if rng.random_bool(0.9) { 8.min(frame.len()) } else { 0 };
    for _ in 0..rng.random_range(1..5) {
        if frame.len() <= from {
            return;
        }
        let at = rng.random_range(from..frame.len());
        match rng.random_range(0..7) {
            0 => frame[at] ^= 1 << rng.random_range(0..8),
            1 => frame[at] = rng.random(),
            2 => frame.truncate(at),
            3 => {
                let bytes = BOUNDARIES[rng.random_range(0..BOUNDARIES.len())].to_be_bytes();
                let count = rng.random_range(1..=4);
                for (place, byte) in frame[at..].iter_mut().zip(&bytes[4 - count..]) {
                    *place = *byte;
                }
            }
            // The largest variable-length integers there are.
            4 => frame[at..].iter_mut().take(5).for_each(|byte| *byte = 0xff),
            5 => {
                let more: Vec<u8> = (0..rng.random_range(1..40)).map(|_| rng.random()).collect();
                frame.splice(at..at, more);
            }
            _ => {
                let end = rng.random_range(at..frame.len());
                let again = frame[at..end].to_vec();
                frame.splice(at..at, again);
            }
        }
    }
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_corpus_has_every_api_that_is_served() {
    let corpus = corpus();
    for row in Apis::new().rows() {
        let key = (row.key as i16).to_be_bytes();
        assert!(corpus.iter().any(|frame| frame.starts_with(&key)), "{:?}", row.key);
    }
}

#[tokio::test]
async fn mutated_requests_neither_panic_nor_take_memory_nor_hold_up_a_good_client() {
    let seconds = from_environment("FAROL_FUZZ_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let seed = from_environment("FAROL_FUZZ_SEED").unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: FAROL_FUZZ_SEED={seed} repeats this run");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerOptions::new(folder.path())).unwrap();
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    let limits =
        KafkaLimits { request_bytes: 1 << 20, control_request_bytes: 1 << 20, ..KafkaLimits::default() };
    let settings = KafkaSettings { limits, ..KafkaSettings::default() };
    let address: SocketAddr = ([127, 0, 0, 1], 9).into();
    let server = Arc::new(Server::new(broker.clone(), settings, address, CancellationToken::new()));
    let corpus = corpus();
    let good = corpus.iter().find(|frame| frame.starts_with(&[0, 18, 0, 0])).unwrap().clone();

    let (mut connections, mut requests) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let mut stream = BytesMut::new();
        for _ in 0..rng.random_range(1..4) {
            let mut frame = corpus[rng.random_range(0..corpus.len())].clone();
            mutate(&mut rng, &mut frame);
            stream.put_i32(i32::try_from(frame.len()).unwrap());
            stream.put_slice(&frame);
            requests += 1;
        }
        let connection = connection_to(&server, address);
        // A wait that a request asks for ends with its stream.
        let served =
            connection::serve(Arc::clone(&server), connection, &stream[..], Copying::new(tokio::io::sink()));
        let ended = tokio::time::timeout(Duration::from_secs(20), served).await;
        assert!(ended.is_ok(), "seed {seed}: connection {connections} doesn't end: {stream:02x?}");
        connections += 1;
        if connections % 100 == 0 {
            let mut stream = BytesMut::new();
            stream.put_i32(i32::try_from(good.len()).unwrap());
            stream.put_slice(&good);
            let (client, other) = tokio::io::duplex(1 << 16);
            let (mut read, mut write) = tokio::io::split(client);
            let (server_read, server_write) = tokio::io::split(other);
            let connection = connection_to(&server, address);
            let served = tokio::spawn(connection::serve(
                Arc::clone(&server),
                connection,
                server_read,
                Copying::new(server_write),
            ));
            tokio::io::AsyncWriteExt::write_all(&mut write, &stream).await.unwrap();
            let answer =
                tokio::time::timeout(Duration::from_secs(20), tokio::io::AsyncReadExt::read_i32(&mut read));
            assert!(answer.await.unwrap().unwrap() > 100, "seed {seed}");
            served.abort();
        }
    }
    println!("{requests} requests in {connections} connections");
    assert!(connections > 100, "too few to say anything");
    assert_eq!(server.admission.request_bytes_taken(), 0, "seed {seed}: shares of the budget are lost");
    assert_eq!(server.admission.answer_bytes_taken(), 0, "seed {seed}: shares of the budget are lost");
    if let Some(resident) = resident_kib() {
        assert!(resident < MAX_RESIDENT_KIB, "seed {seed}: {resident} KiB");
    }
    broker.close().await.unwrap();
}
