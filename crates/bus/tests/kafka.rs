//! The Kafka engine keeps every promise of the conformance suite, over Farol's own Kafka port (`port`) and against an Apache
//! Kafka (`apache`), whose address is in `FAROL_TEST_KAFKA` (it should compact often: `log.cleaner.backoff.ms=200`). The tests
//! that need one are ignored by a plain `cargo test`; `scripts/test-engines` starts one and runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod conformance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conformance::Engine;
use farol_broker::kafka::{KafkaHandle, KafkaSettings, serve};
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::kafka::{CALL_LIMIT, KafkaBus, KafkaOptions};
use farol_bus::{Bus, BusError, ConsumerSettings, TopicPartition};
use farol_log::{Batch, BatchBuilder, BatchLimits, Compression};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn client(brokers: &str) -> Arc<KafkaBus> {
    KafkaBus::new(KafkaOptions::new(brokers, "conformance")).unwrap()
}

/// Farol's broker in this process, and the engine as its client over the loopback.
struct OverThePort {
    dir: TempDir,
    embedded: Arc<EmbeddedBus>,
    server: Option<(KafkaHandle, CancellationToken)>,
    bus: Arc<KafkaBus>,
}

async fn over_the_port() -> OverThePort {
    let dir = tempfile::tempdir().unwrap();
    let (embedded, server) = open(&dir, "127.0.0.1:0").await;
    let bus = client(&server.0.local_addr().to_string());
    OverThePort { dir, embedded, server: Some(server), bus }
}

async fn open(dir: &TempDir, address: &str) -> (Arc<EmbeddedBus>, (KafkaHandle, CancellationToken)) {
    let mut options = EmbeddedOptions::new(dir.path());
    options.maintenance_interval = Duration::from_millis(50);
    let (embedded, _) = EmbeddedBus::open(options).unwrap();
    let (listener, stop) = (TcpListener::bind(address).await.unwrap(), CancellationToken::new());
    let handle = serve(embedded.broker().clone(), KafkaSettings::default(), listener, stop.clone()).unwrap();
    (embedded, (handle, stop))
}

impl OverThePort {
    async fn stop(&mut self) {
        let (handle, stop) = self.server.take().unwrap();
        stop.cancel();
        handle.join().await;
        self.embedded.close().await.unwrap();
    }

    async fn start(&mut self, address: &str) {
        let (embedded, server) = open(&self.dir, address).await;
        (self.embedded, self.server) = (embedded, Some(server));
    }
}

impl Engine for OverThePort {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.stop().await;
        self.start("127.0.0.1:0").await;
        let (handle, _) = self.server.as_ref().unwrap();
        self.bus = client(&handle.local_addr().to_string());
    }

    async fn delete_topic(&self, topic: &str) {
        self.bus.delete_topic(topic).await.unwrap();
    }

    fn impatient(&self, settings: ConsumerSettings) -> ConsumerSettings {
        impatient(settings, conformance::IMPATIENT)
    }
}

struct Apache {
    brokers: String,
    bus: Arc<KafkaBus>,
}

async fn apache() -> Apache {
    let brokers =
        std::env::var("FAROL_TEST_KAFKA").expect("FAROL_TEST_KAFKA is the address of an Apache Kafka");
    let bus = client(&brokers);
    Apache { brokers, bus }
}

impl Engine for Apache {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.bus = client(&self.brokers);
    }

    async fn delete_topic(&self, topic: &str) {
        self.bus.delete_topic(topic).await.unwrap();
    }

    /// Apache Kafka takes no shorter session.
    fn impatient(&self, settings: ConsumerSettings) -> ConsumerSettings {
        impatient(settings, Duration::from_secs(6))
    }
}

/// Kafka's clients take no interval between polls that is shorter than the session.
fn impatient(mut settings: ConsumerSettings, interval: Duration) -> ConsumerSettings {
    (settings.session_timeout, settings.max_poll_interval) = (interval, interval);
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_is_missed_at_once_and_one_that_comes_back_is_found() {
    let mut engine = over_the_port().await;
    let options = KafkaOptions {
        // A send is given up after this time; before the broker goes, a busy machine must get one through in it.
        send_limit: Duration::from_secs(5),
        ..KafkaOptions::new(engine.bus.brokers(), "conformance")
    };
    let address = options.brokers.clone();
    let bus: Arc<dyn Bus> = KafkaBus::new(options).unwrap();
    let topic = conformance::topic(&bus, "away", 1, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    producer.send(&topic, vec![conformance::numbered(1)]).await.unwrap();
    let mut consumer = conformance::reader(&bus, &topic).await;
    conformance::read(&mut consumer, 1).await;

    engine.stop().await;
    let missed =
        tokio::time::timeout(conformance::LIMIT, consumer.poll(Duration::from_secs(600))).await.unwrap();
    assert!(matches!(missed, Err(BusError::Unreachable)), "{missed:?}");
    let sent = producer.send(&topic, vec![conformance::numbered(2)]).await;
    assert!(matches!(sent, Err(BusError::Unavailable(_))), "{sent:?}");
    assert!(engine.bus.check(Duration::from_secs(1)).await.unwrap_err().is_retriable());

    engine.start(&address).await;
    conformance::eventually("the producer is through again", || async {
        producer.send(&topic, vec![conformance::numbered(3)]).await.ok()
    })
    .await;
    // The same consumer goes on where it was. The record in between was given up, and may have been stored all the same.
    let mut numbers = Vec::new();
    conformance::eventually_read(&mut consumer, |record| {
        numbers.push(conformance::number(record));
        numbers.last() == Some(&3)
    })
    .await;
    assert!(numbers == [3] || numbers == [2, 3], "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_whose_name_is_no_text_is_read_by_both_engines_alike() {
    let engine = over_the_port().await;
    let (over_the_port, embedded): (Arc<dyn Bus>, Arc<dyn Bus>) = (engine.bus(), engine.embedded.clone());
    let topic = conformance::topic(&over_the_port, "headers", 1, &[]).await;
    let mut builder = BatchBuilder::new(Compression::None);
    let headers = [("NAME", Some(&b"value"[..])), ("empty", None)];
    builder.push(None, Some(b"1"), &headers, 0).unwrap();
    let mut bytes = builder.build().unwrap().bytes().to_vec();
    let name = memchr::memmem::find(&bytes, b"NAME").unwrap();
    bytes[name] = 0xff;
    // The checksum is of all that follows it.
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    let batch = Batch::validate(bytes.into(), &BatchLimits::default()).unwrap();
    engine.embedded.broker().produce(&TopicPartition::new(topic.as_str(), 0), batch).await.unwrap();

    for bus in [embedded, over_the_port] {
        let read = conformance::read(&mut conformance::reader(&bus, &topic).await, 1).await;
        let expected =
            [("\u{fffd}AME".to_owned(), "value".into()), ("empty".to_owned(), bytes::Bytes::new())];
        assert_eq!(read[0].1.headers, expected);
    }
}

/// Against librdkafka's own imitation of a cluster, which refuses what it is told to.
#[tokio::test]
async fn why_a_broker_refuses_records_is_told() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let options = KafkaOptions {
        send_limit: Duration::from_secs(5),
        ..KafkaOptions::new(cluster.bootstrap_servers(), "conformance")
    };
    let bus = KafkaBus::new(options).unwrap();
    let refused = async |api, errors: &[RDKafkaRespErr]| {
        cluster.request_errors(api, errors);
        let producer = bus.producer_for_once("p").unwrap();
        let sent = producer.send("t", vec![conformance::numbered(1)]).await;
        cluster.clear_request_errors(api);
        sent.unwrap_err()
    };
    let forbidden =
        refused(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    assert_eq!(forbidden.await.to_string(), "t: the broker doesn't allow it to this user");
    // As often as is tried; after that, time would be up without a reason.
    let no_disk = RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR;
    for (api, times) in [(RDKafkaApiKey::Produce, 5), (RDKafkaApiKey::InitProducerId, 100)] {
        let error = refused(api, &vec![no_disk; times]).await;
        assert!(matches!(error, BusError::Poisoned { .. }), "{api:?}: {error}");
        assert!(error.to_string().contains("the broker can't write to its disk"), "{api:?}: {error}");
    }
    let producer = bus.producer_for_once("p").unwrap();
    producer.send("t", vec![conformance::numbered(1)]).await.unwrap();
}

/// librdkafka keeps whoever commits waiting for longer than a minute if the coordinator dies while the commit is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_coordinator_dies_ends_without_an_answer_and_the_next_one_counts() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let bus: Arc<dyn Bus> = client(&cluster.bootstrap_servers());
    let partition = TopicPartition::new("t", 0);
    let commit = |offset| BTreeMap::from([(partition.clone(), offset)]);
    let mut member = conformance::member(&bus, "m", "g", "t").await;
    conformance::assigned(&mut member).await;
    member.commit(commit(1)).await.unwrap();
    cluster.broker_round_trip_time(1, Duration::from_secs(5)).unwrap();
    let dies = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.broker_down(1).unwrap();
    };
    let (unanswered, ()) = tokio::join!(tokio::time::timeout(CALL_LIMIT * 3, member.commit(commit(2))), dies);
    let error = unanswered.expect("it ends").unwrap_err();
    assert!(error.is_retriable(), "{error}");
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    cluster.broker_up(1).unwrap();
    // It may have been thrown out, and comes back.
    while let Err(error) = member.commit(commit(3)).await {
        assert!(error.is_retriable() || matches!(error, BusError::Fenced(_)), "{error}");
        if let Err(error) = member.poll(Duration::from_millis(100)).await {
            assert!(error.is_retriable(), "{error}");
        }
    }
    member.close().await.unwrap();
    let mut next = conformance::member(&bus, "n", "g", "t").await;
    assert_eq!(conformance::assigned(&mut next).await.partitions, [(partition, 3)]);
}

mod port {
    use super::{conformance, conformance::conformance_suite, over_the_port};

    conformance_suite!(over_the_port);
}

mod apache_kafka {
    use super::{apache, conformance, conformance::conformance_suite};

    conformance_suite!(apache, [ignore = "needs an Apache Kafka: scripts/test-engines"]);
}
