//! Peers that break the rules, beside one that keeps them and must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use farol_broker::kafka::KafkaLimits;
use farol_log::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchResponse, GroupId,
    JoinGroupRequest, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Server, batch, eventually, fetch_request, name, soon, values};

/// Produces and consumes until it is told to end; fails if anything is wrong or takes too long.
struct Witness {
    end: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    fn start(server: &Server) -> Self {
        Self::start_with(server, 0)
    }

    /// One whose batches have so many bytes more.
    fn start_with(server: &Server, padding: usize) -> Self {
        let (end, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (address, ending, counting) = (server.address, Arc::clone(&end), Arc::clone(&rounds));
        let task = tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for number in 0.. {
                let value = format!("good-{number}{}", "x".repeat(padding));
                let began = Instant::now();
                let answer = client.produce("t", 1, batch(Compression::None, &[&value])).await;
                assert_eq!((answer.error_code, answer.base_offset), (0, number));
                let read = client.fetch("t", 1, number).await;
                assert_eq!(values(read.records.as_ref()), [value]);
                assert!(began.elapsed() < Duration::from_secs(10), "held up for {:?}", began.elapsed());
                counting.fetch_add(1, Ordering::Relaxed);
                if ending.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self { end, rounds, task }
    }

    async fn finish(self) {
        let rounds = || self.rounds.load(Ordering::Relaxed);
        let before = rounds();
        eventually("the good client still gets on", async || rounds() > before || self.task.is_finished())
            .await;
        self.end.store(true, Ordering::Relaxed);
        soon(self.task).await.unwrap();
    }
}

#[tokio::test]
async fn lengths_that_lie_and_garbage_end_their_own_connection_only() {
    // Random bytes then hardly ever begin with a length that a frame may have.
    let server =
        Server::start_limited(KafkaLimits { request_bytes: 1 << 20, ..KafkaLimits::default() }).await;
    let witness = Witness::start(&server);
    let mut rng = StdRng::seed_from_u64(20250916);
    let mut starts: Vec<Vec<u8>> = [i32::MIN, -1, 0, 1, 7, 104_857_601, i32::MAX]
        .iter()
        .map(|length| [&length.to_be_bytes()[..], b"rubbish and more rubbish"].concat())
        .collect();
    starts.push(b"GET / HTTP/1.1\r\nHost: farol\r\n\r\n".to_vec());
    starts.push(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    starts.extend((0..50).map(|_| (0..200).map(|_| rng.random_range(1..=255u8)).collect::<Vec<u8>>()));
    for bytes in starts {
        let mut client = server.client().await;
        // The server may have ended the connection before all of it is sent.
        let _ = client.stream.write_all(&bytes).await;
        assert!(client.is_closed().await, "{:02x?}", &bytes[..bytes.len().min(16)]);
    }
    witness.finish().await;
    assert!(server.handle.numbers()().invalid_requests >= 50);
}

#[tokio::test]
async fn random_bytes_behind_a_valid_header_of_every_api_and_version_do_no_harm() {
    let server = Server::start().await;
    let witness = Witness::start(&server);
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let served = server.client().await.call(0, &ApiVersionsRequest::default()).await.api_keys;
    assert!(served.len() > 20);
    for api in served {
        for version in api.min_version..=api.max_version {
            let key = ApiKey::try_from(api.api_key).unwrap();
            for length in [0, 1, 3, 17, 300, 5000] {
                let mut content = BytesMut::new();
                content.put_i16(api.api_key);
                content.put_i16(version);
                content.put_i32(1);
                content.put_i16(-1);
                if key.request_header_version(version) >= 2 {
                    content.put_u8(0);
                }
                content.extend((0..length).map(|_| rng.random::<u8>()));
                let mut client = server.client().await;
                client.stream.write_i32(i32::try_from(content.len()).unwrap()).await.unwrap();
                client.stream.write_all(&content).await.unwrap();
                // Answered, refused or waited for: all is well as long as nobody else notices.
                drop(client);
            }
        }
    }
    witness.finish().await;
    eventually("only the witness's connection was left, and it is gone", async || {
        server.handle.numbers()().connections == 0
    })
    .await;
    assert_eq!(server.handle.numbers()().in_flight_bytes, 0);
}

#[tokio::test]
async fn whoever_says_nothing_keeps_nobody_out() {
    const PLACES: usize = 50;
    let server = Server::start_limited(KafkaLimits { connections: PLACES, ..KafkaLimits::default() }).await;
    let witness = Witness::start(&server);
    eventually("the good client has its place", async || witness.rounds.load(Ordering::Relaxed) > 0).await;
    let numbers = server.handle.numbers();
    let (mut silent, mut heard) = (Vec::new(), Vec::new());
    for round in 1..=3 {
        for number in 0..2 * PLACES {
            let mut client = server.client().await;
            if number % 2 == 0 {
                // Half a request is nothing yet.
                client.stream.write_i32(100).await.unwrap();
            }
            silent.push(client);
        }
        eventually("the rest has made room", async || {
            (numbers().connections, numbers().made_room)
                == (PLACES, (silent.len() + heard.len() + 1 - PLACES) as u64)
        })
        .await;
        let mut client = server.client().await;
        client.call(0, &ApiVersionsRequest::default()).await;
        heard.push(client);
        assert_eq!(numbers().connections, PLACES, "round {round}");
    }
    assert!(silent[0].is_closed().await);
    for client in &mut heard {
        client.call(0, &ApiVersionsRequest::default()).await;
    }
    witness.finish().await;
    assert_eq!(numbers().connections_refused, 0);
}

#[tokio::test]
async fn whoever_sends_by_drops_loses_the_connection() {
    let limits = KafkaLimits { transfer: Duration::from_millis(500), ..KafkaLimits::default() };
    let server = Server::start_limited(limits).await;
    let witness = Witness::start(&server);
    let mut slow = Vec::new();
    for length in [8, 1000, 60_000] {
        let mut client = server.client().await;
        client.stream.write_i32(length).await.unwrap();
        slow.push(client);
    }
    let began = Instant::now();
    for mut client in slow {
        let dropped = async {
            while client.stream.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        soon(dropped).await;
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    witness.finish().await;
    eventually("they are counted", async || server.handle.numbers()().stalled_requests >= 2).await;
}

#[tokio::test]
async fn whoever_does_not_read_its_answers_holds_little_and_not_for_long() {
    let limits = KafkaLimits {
        transfer: Duration::from_millis(500),
        fetch_bytes: 4 << 20,
        answers_in_flight_bytes: 8 << 20,
        ..KafkaLimits::default()
    };
    let server = Server::start_limited(limits).await;
    let mut writer = server.client().await;
    let value = "x".repeat(900_000);
    for _ in 0..8 {
        assert_eq!(writer.produce("t", 0, batch(Compression::None, &[&value])).await.error_code, 0);
    }
    let witness = Witness::start(&server);
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut client = server.client().await;
        for _ in 0..20 {
            let mut request = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(60_000);
            request.topics[0].partitions[0].partition_max_bytes = 100 << 20;
            client.send(12, &request).await;
        }
        deaf.push(client);
    }
    let numbers = server.handle.numbers();
    eventually("they are dropped", async || {
        assert!(numbers().in_flight_bytes <= 8 << 20, "{}", numbers().in_flight_bytes);
        numbers().stalled_answers == 10
    })
    .await;
    witness.finish().await;
    eventually("nothing is held", async || numbers().in_flight_bytes == 0).await;
}

#[tokio::test]
async fn a_batch_for_which_slow_readers_leave_no_room_is_waited_for() {
    // Room for one of these batches, not for two.
    let limits = KafkaLimits { answers_in_flight_bytes: 2 << 20, ..KafkaLimits::default() };
    let server = Server::start_limited(limits).await;
    let mut writer = server.client().await;
    let value = "x".repeat(900_000);
    assert_eq!(writer.produce("t", 0, batch(Compression::None, &[&value])).await.error_code, 0);
    let mut deaf = server.client().await;
    for _ in 0..60 {
        deaf.send(12, &fetch_request("t", 0, 0)).await;
    }
    let numbers = server.handle.numbers();
    // When its socket is full, one answer waits, and only one, however many were asked for.
    let fetches = || {
        let apis = server.handle.numbers()().apis;
        apis.iter().find(|api| api.name == "Fetch").map_or(0, |api| api.requests)
    };
    eventually("its socket is full", async || {
        let (asked, sent) = (fetches(), numbers().bytes_out);
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked == fetches() && sent == numbers().bytes_out && numbers().in_flight_bytes >= 900_000
    })
    .await;
    assert!(numbers().in_flight_bytes <= 2 << 20, "{}", numbers().in_flight_bytes);
    let mut reader = server.client().await;
    let answer = reader.call(12, &fetch_request("t", 0, 0).with_max_wait_ms(200).with_min_bytes(1)).await;
    let none = &answer.responses[0].partitions[0];
    assert_eq!((none.error_code, none.high_watermark), (0, 1));
    assert!(none.records.as_ref().is_none_or(bytes::Bytes::is_empty), "there was no room for it");
    let waiting = fetch_request("t", 0, 0).with_max_wait_ms(60_000).with_min_bytes(1);
    let correlation_id = reader.send(12, &waiting).await;
    drop(deaf);
    let answer = reader.receive::<FetchResponse>(12, correlation_id).await;
    assert_eq!(values(answer.responses[0].partitions[0].records.as_ref()), [value]);
}

#[tokio::test]
async fn long_polls_that_name_a_partition_often_wait_for_it_once_and_go_at_once() {
    const TIMES: usize = 50_000;
    let server = Server::start().await;
    let witness = Witness::start(&server);
    let mut waiting = fetch_request("t", 0, 0).with_min_bytes(i32::MAX).with_max_wait_ms(60_000);
    let partition = waiting.topics[0].partitions[0].clone();
    waiting.topics[0].partitions = vec![partition; TIMES];
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut client = server.client().await;
        client.send(12, &waiting).await;
        readers.push(client);
    }
    let fetches = || {
        let apis = server.handle.numbers()().apis;
        apis.iter().find(|api| api.name == "Fetch").map_or(0, |api| api.requests)
    };
    eventually("all have come", async || fetches() >= 8).await;
    let mut writer = server.client().await;
    writer.produce("t", 0, batch(Compression::None, &["a"])).await;
    drop(readers);
    witness.finish().await;
    let answer = writer.call(12, &waiting.with_max_wait_ms(0)).await;
    assert_eq!(answer.responses[0].partitions.len(), 1);
    assert_eq!(values(answer.responses[0].partitions[0].records.as_ref()), ["a"]);
}

/// Joins a group of one with so many bytes of metadata, and waits to be its member.
async fn join(client: &mut Client, group: &str, metadata_bytes: usize) {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(vec![7; metadata_bytes].into());
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    // A version that doesn't ask to come again with a member id.
    assert_eq!(client.call(3, &request).await.error_code, 0);
}

fn group(name: &'static str) -> GroupId {
    GroupId(StrBytes::from_static_str(name))
}

#[tokio::test]
async fn what_a_request_names_often_is_answered_once() {
    const TIMES: usize = 20_000;
    let server = Server::start().await;
    let mut client = server.client().await;
    join(&mut client, "g", 1_000).await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; TIMES]);
    assert_eq!(client.call(4, &request).await.results.len(), 1);
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g"); TIMES]);
    assert_eq!(client.call(5, &request).await.groups.len(), 1);
    let topic = MetadataRequestTopic::default().with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic; TIMES]));
    assert_eq!(client.call(9, &request).await.topics.len(), 1);

    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![1; TIMES]);
    let wanted = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted.clone(), wanted]);
    let groups = client.call(8, &request).await.groups;
    assert_eq!((groups.len(), groups[0].topics.len(), groups[0].topics[0].partitions.len()), (1, 1, 1));

    // Here each entry has its answer, as in Kafka, but only the first is searched for.
    let partition = ListOffsetsPartition::default().with_timestamp(0);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition; 3]);
    let answers = client.call(7, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
    let codes: Vec<i16> = answers.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    let invalid = ResponseError::InvalidRequest.code();
    assert_eq!(codes, [0, invalid, invalid]);
}

#[tokio::test]
async fn whoever_asks_for_more_than_there_is_room_for_loses_the_connection_and_nobody_else_does() {
    let limits = KafkaLimits {
        answer_bytes: 1 << 20,
        answers_in_flight_bytes: 8 << 20,
        transfer: Duration::from_secs(2),
        ..KafkaLimits::default()
    };
    let server = Server::start_limited(limits).await;
    let witness = Witness::start(&server);
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let mut client = server.client().await;
        join(&mut client, name, 400_000).await;
        members.push(client);
    }
    let numbers = server.handle.numbers();
    let mut greedy = server.client().await;
    let all = DescribeGroupsRequest::default().with_groups(["a", "b", "c"].map(group).to_vec());
    greedy.send(5, &all).await;
    assert!(greedy.is_closed().await, "1.2 MB in one answer");
    assert_eq!(numbers().answers_refused, 1);
    // Many who don't take what they have asked for: a quarter of the bytes is all that they hold together.
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut client = server.client().await;
        for _ in 0..60 {
            client.send(5, &DescribeGroupsRequest::default().with_groups(vec![group("a")])).await;
        }
        deaf.push(client);
    }
    eventually("they are dropped", async || {
        assert!(numbers().in_flight_bytes <= 2 << 20, "{}", numbers().in_flight_bytes);
        numbers().answers_refused + numbers().stalled_answers == 11
    })
    .await;
    drop(members);
    witness.finish().await;
    eventually("nothing is held", async || numbers().in_flight_bytes == 0).await;
}

#[tokio::test]
async fn slow_senders_of_large_requests_hold_up_only_each_other_and_not_for_long() {
    let limits = KafkaLimits {
        requests_in_flight_bytes: 16 << 20,
        transfer: Duration::from_secs(3),
        ..KafkaLimits::default()
    };
    let server = Server::start_limited(limits).await;
    // Far beyond what is free of any budget.
    let witness = Witness::start_with(&server, 200_000);
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        slow.push(tokio::spawn(async move {
            let bytes = 7 << 20;
            client.stream.write_i32(bytes).await.unwrap();
            let most = vec![0u8; usize::try_from(bytes).unwrap() - 10_000];
            // Those who find no room are cut in the midst of it.
            let _ = client.stream.write_all(&most).await;
            while client.stream.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }
    for client in slow {
        soon(client).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    witness.finish().await;
    let numbers = server.handle.numbers();
    eventually("all are counted", async || numbers().stalled_requests == 4).await;
    assert_eq!(numbers().in_flight_bytes, 0);
}
