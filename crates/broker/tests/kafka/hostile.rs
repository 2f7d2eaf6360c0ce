//! Peers that break the rules, beside one that keeps them and must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use farol_broker::kafka::KafkaLimits;
use farol_log::Compression;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Server, batch, eventually, fetch_request, soon, values};

/// Produces and consumes until it is told to end; fails if anything is wrong or takes too long.
struct Witness {
    end: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    fn start(server: &Server) -> Self {
        let (end, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (address, ending, counting) = (server.address, Arc::clone(&end), Arc::clone(&rounds));
        let task = tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for number in 0.. {
                let value = format!("good-{number}");
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
            let mut request = fetch_request("t", 0, 0);
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
