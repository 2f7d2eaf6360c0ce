//! `kill -9` in a loop under a transactional Kafka producer that lives through it: whoever reads committed records sees
//! each transaction that was committed, whole, once and in order, and nothing of those that were aborted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::farol::{SOON, eventually, folder};
use crate::kafka_broker::{client, create_topic, free_port, start};

const TOPIC: &str = "sums";
const PARTITIONS: i32 = 2;
const RECORDS: i32 = 4;
const ROUNDS: usize = 8;
/// So many are committed between two kills, however slow the machine is.
const COMMITS_A_ROUND: usize = 4;
/// Every so manieth transaction is aborted.
const ABORT_EVERY: u64 = 4;

/// Calls again what the client says may be called again: the broker was away.
fn persist(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
            other => return other,
        }
    }
}

/// Writes one transaction after the other until told to stop. Counts those that are committed, and gives them at the end.
fn transact(address: &str, stop: &AtomicBool, count: &AtomicUsize) -> BTreeSet<u64> {
    let producer: BaseProducer = client(address)
        .set("transactional.id", "sums")
        .set("transaction.timeout.ms", "300000")
        .set("message.timeout.ms", "300000")
        .set("retry.backoff.ms", "20")
        .create()
        .unwrap();
    persist(|| producer.init_transactions(SOON)).unwrap();
    let (mut committed, mut number) = (BTreeSet::new(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        producer.begin_transaction().unwrap();
        for nth in 0..RECORDS {
            let value = format!("{number} {nth}");
            let record = BaseRecord::<(), str>::to(TOPIC).partition(nth % PARTITIONS).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        let is_aborted = number % ABORT_EVERY == ABORT_EVERY - 1;
        let ended = if is_aborted {
            // What is aborted before it is sent would prove nothing.
            producer.flush(SOON).unwrap();
            persist(|| producer.abort_transaction(SOON))
        } else {
            persist(|| producer.commit_transaction(SOON))
        };
        match ended {
            Ok(()) if !is_aborted => {
                committed.insert(number);
                count.store(committed.len(), Ordering::Relaxed);
            }
            Ok(()) => {}
            // The client asks for an abort when it can't tell what became of a record.
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                persist(|| producer.abort_transaction(SOON)).unwrap();
            }
            Err(error) => panic!("transaction {number}: {error}"),
        }
        number += 1;
    }
    committed
}

/// What a reader finds in a partition, in the order of the log: transaction and place in it.
fn stored(address: &str, partition: i32, isolation: &str) -> Vec<(u64, i32)> {
    let consumer: BaseConsumer = client(address)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut records = Vec::new();
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "{} records of partition {partition}", records.len());
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return records,
            Some(message) => {
                let message = message.unwrap();
                let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                let (number, nth) = text.split_once(' ').unwrap();
                records.push((number.parse().unwrap(), nth.parse().unwrap()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_under_transactions_readers_of_committed_records_see_each_committed_one_once_and_whole() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = folder();
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = start(folder.path(), &address).await;
    create_topic(&address, TOPIC, PARTITIONS).await;

    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let producer = std::thread::spawn({
        let (address, stop, count) = (address.clone(), Arc::clone(&stop), Arc::clone(&count));
        move || transact(&address, &stop, &count)
    });
    for _ in 0..ROUNDS {
        let enough = count.load(Ordering::Relaxed) + COMMITS_A_ROUND;
        eventually(SOON, "transactions get through", async || {
            (count.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        server.kill();
        server = start(folder.path(), &address).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let committed = tokio::task::spawn_blocking(move || producer.join().unwrap()).await.unwrap();
    assert!(committed.len() >= COMMITS_A_ROUND * ROUNDS, "{}", committed.len());

    let mut uncommitted = 0;
    for partition in 0..PARTITIONS {
        let at = address.clone();
        let (read, all) = tokio::task::spawn_blocking(move || {
            (stored(&at, partition, "read_committed"), stored(&at, partition, "read_uncommitted"))
        })
        .await
        .unwrap();
        let places = (0..RECORDS).filter(|nth| nth % PARTITIONS == partition);
        let expected: Vec<(u64, i32)> =
            committed.iter().flat_map(|number| places.clone().map(move |nth| (*number, nth))).collect();
        let first = read.iter().zip(&expected).find(|(read, expected)| read != expected);
        assert!(read == expected, "partition {partition}, first difference: {first:?}");
        uncommitted += all.len() - read.len();
    }
    assert!(uncommitted > ROUNDS, "aborted records were there to be left out: {uncommitted}");
    assert!(server.stop().await.0.success());
}
