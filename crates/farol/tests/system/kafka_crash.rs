//! `kill -9` in a loop under idempotent Kafka producers with `acks=all`, which live through it: nothing that was
//! acknowledged is lost, nothing is stored twice, and each partition keeps the producer's order.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use crate::farol::{SOON, folder};
use crate::kafka_broker::{client, create_topic, free_port, start};

const TOPIC: &str = "numbers";
const PARTITIONS: i32 = 3;
const PRODUCERS: u64 = 2;
const ROUNDS: usize = 8;
/// Long enough that no record is given up while the broker is away.
const MESSAGE_TIMEOUT_MS: &str = "300000";

/// A record says who sent it and the how-manieth of its producer and partition it is.
type Sent = (u64, i32, u64);

/// What the broker acknowledged, and what a producer gave up.
#[derive(Default)]
struct Deliveries {
    acknowledged: Mutex<BTreeSet<Sent>>,
    refused: Mutex<Vec<KafkaError>>,
}

struct Watch(Arc<Deliveries>);

impl ClientContext for Watch {}

impl ProducerContext for Watch {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        match result {
            Ok(_) => drop(self.0.acknowledged.lock().unwrap().insert(*sent)),
            Err((error, _)) => self.0.refused.lock().unwrap().push(error.clone()),
        }
    }
}

/// Sends numbered records to every partition until told to stop, and then waits for the last acknowledgement.
/// Gives how many it sent to each.
fn produce(address: &str, producer_number: u64, deliveries: Arc<Deliveries>, stop: &AtomicBool) -> u64 {
    let producer: ThreadedProducer<Watch> = client(address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .set("retry.backoff.ms", "20")
        .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
        .create_with_context(Watch(deliveries))
        .unwrap();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            let sent = (producer_number, partition, number);
            let (key, value) = (producer_number.to_be_bytes(), number.to_be_bytes());
            let mut record = BaseRecord::with_opaque_to(TOPIC, Box::new(sent))
                .partition(partition)
                .key(&key)
                .payload(&value);
            // The producer's queue is full while the broker is away: wait for it to drain.
            while let Err((error, unsent)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                std::thread::sleep(Duration::from_millis(10));
                record = unsent;
            }
        }
        number += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    producer.flush(SOON).unwrap();
    number
}

/// Everything that a partition holds, in the order of the log.
fn stored(address: &str, partition: i32) -> Vec<Sent> {
    let consumer: BaseConsumer =
        client(address).set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let (low, high) = consumer.fetch_watermarks(TOPIC, partition, SOON).unwrap();
    assert_eq!(low, 0);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let (mut records, mut next) = (Vec::new(), 0);
    let deadline = Instant::now() + SOON;
    while next < high {
        assert!(Instant::now() < deadline, "read {next} of {high} records of partition {partition}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let number = |bytes: Option<&[u8]>| u64::from_be_bytes(bytes.unwrap().try_into().unwrap());
        records.push((number(message.key()), partition, number(message.payload())));
        next = message.offset() + 1;
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_under_idempotent_producers_nothing_acknowledged_is_lost_nothing_doubled_and_order_is_kept()
 {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = folder();
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = start(folder.path(), &address).await;
    create_topic(&address, TOPIC, PARTITIONS).await;

    let (deliveries, stop) = (Arc::new(Deliveries::default()), Arc::new(AtomicBool::new(false)));
    let total = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let (address, deliveries) = (address.clone(), Arc::clone(&deliveries));
            let (stop, total) = (Arc::clone(&stop), Arc::clone(&total));
            std::thread::spawn(move || {
                total.fetch_add(produce(&address, number, deliveries, &stop), Ordering::Relaxed);
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..900))).await;
        server.kill();
        server = start(folder.path(), &address).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || producers.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();

    let refused = std::mem::take(&mut *deliveries.refused.lock().unwrap());
    assert!(refused.is_empty(), "{} records were given up: {:?}", refused.len(), refused.first());
    let acknowledged = std::mem::take(&mut *deliveries.acknowledged.lock().unwrap());
    let sent = total.load(Ordering::Relaxed) * u64::try_from(PARTITIONS).unwrap();
    assert_eq!(acknowledged.len() as u64, sent, "every record was acknowledged in the end");
    assert!(sent > 1000, "the producers did get through: {sent}");
    for partition in 0..PARTITIONS {
        let address = address.clone();
        let records = tokio::task::spawn_blocking(move || stored(&address, partition)).await.unwrap();
        for producer in 0..PRODUCERS {
            let found: Vec<u64> =
                records.iter().filter(|sent| sent.0 == producer).map(|sent| sent.2).collect();
            let wrong = found.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(
                wrong, None,
                "producer {producer}, partition {partition}: lost, doubled or out of order"
            );
            let expected =
                acknowledged.range((producer, partition, 0)..=(producer, partition, u64::MAX)).count();
            assert_eq!(found.len(), expected, "producer {producer}, partition {partition}");
            assert_eq!(found.first(), Some(&0));
        }
    }
    assert!(server.stop().await.0.success());
}
