//! Idempotent producers and transactions over real folders.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use farol_broker::{
    Broker, BrokerError, BrokerOptions, Isolation, ProducerError, ProducerIdentity, Status, TopicPartition,
    TransactionError,
};
use farol_log::{Batch, BatchBuilder, BatchProducer, Marker};

const LIMIT: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> Broker {
    Broker::open(BrokerOptions::new(dir)).unwrap().0
}

fn new_topic(broker: &Broker) -> TopicPartition {
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    TopicPartition::new("t", 0)
}

fn batch(producer: ProducerIdentity, sequence: i32, values: &[&str], is_transactional: bool) -> Batch {
    let ProducerIdentity { producer_id, epoch } = producer;
    let mut builder = BatchBuilder::default().written_by(BatchProducer {
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
        is_transactional,
    });
    for value in values {
        builder.push(None, Some(value.as_bytes()), &[], 1).unwrap();
    }
    builder.build().unwrap()
}

/// What a reader of committed records sees, from the start.
fn committed(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    let reader = broker.reader(partition).unwrap();
    let mut from = reader.start_offset();
    let mut values = Vec::new();
    loop {
        let found = broker.fetch(partition, from, 200, Isolation::ReadCommitted).unwrap();
        for batch in found.batches() {
            let batch = batch.unwrap();
            if found.is_committed(batch.header()) {
                let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).unwrap();
                values.extend(batch.records().unwrap().map(|record| text(record.unwrap().value.unwrap())));
            }
        }
        if found.next_offset == from {
            return values;
        }
        from = found.next_offset;
    }
}

fn one(partition: &TopicPartition) -> BTreeSet<TopicPartition> {
    [partition.clone()].into()
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "it did not come to hold");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_batch_sent_again_gets_its_first_offset_also_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let producer = broker.init_producer(None, 0, None).await.unwrap();
    for n in 0..8 {
        let sent = batch(producer, n * 2, &["a", "b"], false);
        assert_eq!(broker.produce(&partition, sent).await.unwrap(), i64::from(n) * 2);
    }
    // By a snapshot, by the headers after an empty one, and by both.
    for round in 0..3 {
        let broker = if round == 0 {
            broker.clone()
        } else {
            let broker = open(dir.path());
            let sent = batch(producer, 14 + round * 2, &["a", "b"], false);
            assert_eq!(broker.produce(&partition, sent).await.unwrap(), i64::from(14 + round * 2));
            broker
        };
        let again = batch(producer, 14, &["a", "b"], false);
        assert_eq!(broker.produce(&partition, again).await.unwrap(), 14);
        let gap = broker.produce(&partition, batch(producer, 100, &["x"], false)).await;
        assert!(
            matches!(gap, Err(BrokerError::Producer(ProducerError::OutOfOrderSequence { .. }))),
            "{gap:?}"
        );
        let other = broker.init_producer(None, 0, None).await.unwrap();
        assert!(other.producer_id > producer.producer_id, "ids never come twice");
        broker.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_sent_twice_at_once_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let producer = broker.init_producer(None, 0, None).await.unwrap();
    let mut producing = Vec::new();
    for n in 0..50 {
        for _ in 0..3 {
            let sent = batch(producer, n, &["x"], false);
            producing.push((i64::from(n), broker.begin_produce(&partition, vec![sent]).await.unwrap()));
        }
    }
    for (expected, producing) in producing {
        assert_eq!(producing.wait().await.unwrap(), expected);
    }
    assert_eq!(committed(&broker, &partition).len(), 50);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_made_again_from_the_partition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    for (sequence, marker) in [(0, Marker::Commit), (1, Marker::Abort), (2, Marker::Commit)] {
        broker.add_to_transaction("id", producer, &one(&partition)).await.unwrap();
        let text = sequence.to_string();
        broker.produce(&partition, batch(producer, sequence, &[&text], true)).await.unwrap();
        broker.end_transaction("id", producer, marker).await.unwrap();
    }
    broker.add_to_transaction("id", producer, &one(&partition)).await.unwrap();
    broker.produce(&partition, batch(producer, 3, &["open"], true)).await.unwrap();
    let expected = broker.partition_producers(&partition).unwrap();
    broker.close().await.unwrap();

    let snapshot = dir.path().join("partitions/t-0/producers.companion");
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let broker = open(dir.path());
    assert_eq!(broker.stats().producers.snapshots_rebuilt, 1);
    let mut rebuilt = broker.partition_producers(&partition).unwrap();
    rebuilt[0].last_seen = expected[0].last_seen;
    assert_eq!(rebuilt, expected);
    assert_eq!(committed(&broker, &partition), ["0", "2"]);
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(committed(&broker, &partition), ["0", "2", "open"]);
    broker.close().await.unwrap();
    // What was made again has been written again.
    let broker = open(dir.path());
    assert_eq!(broker.stats().producers.snapshots_rebuilt, 0);
    assert_eq!(committed(&broker, &partition), ["0", "2", "open"]);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn readers_of_committed_records_see_transactions_when_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let other = TopicPartition::new("t", 1);
    let both = [partition.clone(), other.clone()].into();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();

    let early = broker.produce(&partition, batch(producer, 0, &["early"], true)).await;
    assert!(matches!(early, Err(BrokerError::Transaction(TransactionError::InvalidState { .. }))));
    broker.add_to_transaction("id", producer, &both).await.unwrap();
    broker.produce(&partition, batch(producer, 0, &["a"], true)).await.unwrap();
    broker.produce(&other, batch(producer, 0, &["b"], true)).await.unwrap();
    let plain = broker.init_producer(None, 0, None).await.unwrap();
    broker.produce(&partition, batch(plain, 0, &["plain"], false)).await.unwrap();
    assert_eq!(broker.stable_offset(&partition).unwrap(), 0);
    assert!(committed(&broker, &partition).is_empty(), "also what came behind it");
    let all = broker.fetch(&partition, 0, 1000, Isolation::ReadUncommitted).unwrap();
    assert_eq!((all.end_offset, all.stable_offset, all.batches().count()), (2, 0, 2));

    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(committed(&broker, &partition), ["a", "plain"]);
    assert_eq!(committed(&broker, &other), ["b"]);
    assert_eq!(broker.stable_offset(&partition).unwrap(), 3);

    broker.add_to_transaction("id", producer, &both).await.unwrap();
    broker.produce(&partition, batch(producer, 1, &["never"], true)).await.unwrap();
    broker.end_transaction("id", producer, Marker::Abort).await.unwrap();
    let late = broker.produce(&partition, batch(producer, 2, &["late"], true)).await;
    assert!(matches!(late, Err(BrokerError::Transaction(TransactionError::InvalidState { .. }))));
    assert_eq!(committed(&broker, &partition), ["a", "plain"]);
    let found = broker.fetch(&partition, 0, 1000, Isolation::ReadCommitted).unwrap();
    assert_eq!(
        found.aborted.iter().map(|a| (a.producer_id, a.first_offset)).collect::<Vec<_>>(),
        [(producer.producer_id, 3)]
    );
    broker.close().await.unwrap();
}

#[tokio::test]
async fn an_open_transaction_survives_a_restart_and_a_newer_producer_fences_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let first = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    broker.add_to_transaction("id", first, &one(&partition)).await.unwrap();
    broker.produce(&partition, batch(first, 0, &["a"], true)).await.unwrap();
    broker.close().await.unwrap();

    let broker = open(dir.path());
    assert_eq!(broker.transaction("id").unwrap().status, Status::Ongoing);
    assert!(committed(&broker, &partition).is_empty());
    broker.produce(&partition, batch(first, 1, &["b"], true)).await.unwrap();
    broker.end_transaction("id", first, Marker::Commit).await.unwrap();
    assert_eq!(committed(&broker, &partition), ["a", "b"]);
    // Ending it again in the same way is fine, in the other isn't.
    broker.end_transaction("id", first, Marker::Commit).await.unwrap();
    let other = broker.end_transaction("id", first, Marker::Abort).await;
    assert!(matches!(other, Err(BrokerError::Transaction(TransactionError::InvalidState { .. }))));

    broker.add_to_transaction("id", first, &one(&partition)).await.unwrap();
    broker.produce(&partition, batch(first, 2, &["zombie"], true)).await.unwrap();
    let second = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    assert_eq!((second.producer_id, second.epoch), (first.producer_id, first.epoch + 1));
    let fenced = broker.end_transaction("id", first, Marker::Commit).await;
    assert!(matches!(fenced, Err(BrokerError::Transaction(TransactionError::Fenced))), "{fenced:?}");
    let fenced = broker.produce(&partition, batch(first, 3, &["zombie"], true)).await;
    assert!(matches!(fenced, Err(BrokerError::Transaction(TransactionError::InvalidEpoch))), "{fenced:?}");
    let fenced = broker.produce(&partition, batch(first, 3, &["zombie"], false)).await;
    assert!(matches!(fenced, Err(BrokerError::Producer(ProducerError::InvalidEpoch { .. }))), "{fenced:?}");
    broker.add_to_transaction("id", second, &one(&partition)).await.unwrap();
    broker.produce(&partition, batch(second, 0, &["c"], true)).await.unwrap();
    broker.end_transaction("id", second, Marker::Commit).await.unwrap();
    assert_eq!(committed(&broker, &partition), ["a", "b", "c"]);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_whose_time_is_up_is_aborted_and_its_producer_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let producer = broker.init_producer(Some("id"), 50, None).await.unwrap();
    broker.add_to_transaction("id", producer, &one(&partition)).await.unwrap();
    broker.produce(&partition, batch(producer, 0, &["a"], true)).await.unwrap();
    eventually(|| broker.stats().timed_out_transactions == 1).await;
    assert_eq!(broker.stable_offset(&partition).unwrap(), 2);
    assert!(committed(&broker, &partition).is_empty());
    let late = broker.end_transaction("id", producer, Marker::Commit).await;
    assert!(matches!(late, Err(BrokerError::Transaction(TransactionError::Fenced))), "{late:?}");
    let again = broker.init_producer(Some("id"), 50, Some(producer)).await;
    assert!(matches!(again, Err(BrokerError::Transaction(TransactionError::Fenced))), "{again:?}");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn many_transactions_at_once_keep_their_order_and_their_readers_consistent() {
    const PRODUCERS: i32 = 8;
    const TRANSACTIONS: i32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    let mut tasks = Vec::new();
    for id in 0..PRODUCERS {
        let (broker, partition) = (broker.clone(), partition.clone());
        tasks.push(tokio::spawn(async move {
            let name = format!("id-{id}");
            let producer = broker.init_producer(Some(&name), 60_000, None).await.unwrap();
            for n in 0..TRANSACTIONS {
                broker.add_to_transaction(&name, producer, &one(&partition)).await.unwrap();
                for half in 0..2 {
                    let text = format!("{id} {n} {half}");
                    broker.produce(&partition, batch(producer, n * 2 + half, &[&text], true)).await.unwrap();
                }
                let marker = if n % 3 == 0 { Marker::Abort } else { Marker::Commit };
                broker.end_transaction(&name, producer, marker).await.unwrap();
            }
        }));
    }
    // A reader beside them never sees an aborted record, or the first half of a transaction before it is decided.
    let reading = tokio::spawn({
        let (broker, partition) = (broker.clone(), partition.clone());
        async move {
            let mut seen = Vec::new();
            let mut last_stable = 0;
            while seen.len() < usize::try_from(PRODUCERS * (TRANSACTIONS - 7) * 2).unwrap() {
                let stable = broker.stable_offset(&partition).unwrap();
                assert!(stable >= last_stable);
                last_stable = stable;
                seen = committed(&broker, &partition);
                tokio::task::yield_now().await;
            }
            seen
        }
    });
    for task in tasks {
        task.await.unwrap();
    }
    let seen = tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap();
    for id in 0..PRODUCERS {
        let own: Vec<&String> = seen.iter().filter(|text| text.starts_with(&format!("{id} "))).collect();
        let expected: Vec<String> = (0..TRANSACTIONS)
            .filter(|n| n % 3 != 0)
            .flat_map(|n| [format!("{id} {n} 0"), format!("{id} {n} 1")])
            .collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_ends_although_one_of_its_topics_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = new_topic(&broker);
    broker.create_topic("gone", 1, BTreeMap::new()).unwrap();
    let gone = TopicPartition::new("gone", 0);
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    broker.add_to_transaction("id", producer, &[partition.clone(), gone.clone()].into()).await.unwrap();
    broker.produce(&partition, batch(producer, 0, &["a"], true)).await.unwrap();
    broker.produce(&gone, batch(producer, 0, &["b"], true)).await.unwrap();
    broker.delete_topic("gone").unwrap();
    // One of the same name knows nothing of the transaction.
    broker.create_topic("gone", 1, BTreeMap::new()).unwrap();
    let plain = broker.init_producer(None, 0, None).await.unwrap();
    broker.produce(&gone, batch(plain, 0, &["new"], false)).await.unwrap();
    assert_eq!(committed(&broker, &gone), ["new"]);
    broker.delete_topic("gone").unwrap();
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(committed(&broker, &partition), ["a"]);
    broker.close().await.unwrap();
    let broker = open(dir.path());
    assert_eq!(committed(&broker, &partition), ["a"]);
    broker.close().await.unwrap();
}
