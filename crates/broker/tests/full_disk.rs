//! A disk that is full for a while: what is refused leaves no trace, and everybody goes on where they were.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_broker::{
    Broker, BrokerError, BrokerOptions, CommittedOffset, Isolation, OffsetCommit, ProducerError,
    ProducerIdentity, TopicPartition,
};
use farol_log::fs::fault::FaultFileSystem;
use farol_log::{Batch, BatchBuilder, BatchProducer, LogOptions, Marker};

const DIR: &str = "/data";
const LIMIT: Duration = Duration::from_secs(20);

fn open(file_system: &FaultFileSystem) -> Broker {
    let mut log = LogOptions::new(DIR);
    log.file_system = Arc::new(file_system.clone());
    let broker = Broker::open(BrokerOptions { log, ..BrokerOptions::new(DIR) }).unwrap().0;
    if broker.topic("t").is_err() {
        broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    }
    broker
}

fn fill(file_system: &FaultFileSystem) {
    file_system.set_capacity(file_system.used_bytes());
}

async fn empty(file_system: &FaultFileSystem, broker: &Broker) {
    file_system.set_capacity(u64::MAX);
    let started = Instant::now();
    while broker.stats().log.waiting_for_space.is_some() {
        assert!(started.elapsed() < LIMIT, "it still waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn batch(producer: ProducerIdentity, sequence: i32) -> Batch {
    let ProducerIdentity { producer_id, epoch } = producer;
    let mut builder = BatchBuilder::default().written_by(BatchProducer {
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
        is_transactional: false,
    });
    builder.push(None, Some(sequence.to_string().as_bytes()), &[], 1).unwrap();
    builder.build().unwrap()
}

fn values(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    let found = broker.fetch(partition, 0, 1 << 20, Isolation::ReadCommitted).unwrap();
    let batches = found.batches().flat_map(|batch| batch.unwrap().records().unwrap().collect::<Vec<_>>());
    batches.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn an_idempotent_producer_goes_on_where_the_full_disk_stopped_it() {
    let file_system = FaultFileSystem::new(1);
    let broker = open(&file_system);
    let producer = broker.init_producer(None, 0, None).await.unwrap();
    let p = partition(0);
    let send = |sequence| broker.produce(&p, batch(producer, sequence));
    let mut next = 0;
    for round in 0..3 {
        for _ in 0..3 {
            assert_eq!(send(next).await.unwrap(), i64::from(next));
            next += 1;
        }
        fill(&file_system);
        // More on their way than a partition remembers of a producer.
        let mut on_their_way = Vec::new();
        for sequence in next..next + 8 {
            on_their_way
                .push(broker.begin_produce(&partition(0), vec![batch(producer, sequence)]).await.unwrap());
        }
        for sent in on_their_way {
            let refused = sent.wait().await.unwrap_err();
            assert!(matches!(refused, BrokerError::Poisoned { .. }), "round {round}: {refused}");
            assert!(refused.to_string().contains("taken again by themselves"), "{refused}");
        }
        empty(&file_system, &broker).await;
        let gap = send(next + 1).await.unwrap_err();
        let expected = next;
        assert!(
            matches!(gap, BrokerError::Producer(ProducerError::OutOfOrderSequence { expected: e, .. }) if e == expected),
            "round {round}: {gap}"
        );
    }
    let expected: Vec<_> = (0..next).map(|sequence| sequence.to_string()).collect();
    assert_eq!(values(&broker, &partition(0)), expected);
    broker.close().await.unwrap();
    let broker = open(&file_system);
    assert_eq!(values(&broker, &partition(0)), expected);
    assert_eq!(broker.produce(&partition(0), batch(producer, next)).await.unwrap(), i64::from(next));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn offsets_that_a_transaction_could_not_write_are_not_committed_with_it_or_a_later_one() {
    let file_system = FaultFileSystem::new(2);
    let broker = open(&file_system);
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    let hold = |group: &str, offsets: &[(i32, i64)]| {
        let offset = |(number, offset): &(i32, i64)| (partition(*number), CommittedOffset::new(*offset));
        let offsets = offsets.iter().map(offset).collect();
        let commit = OffsetCommit { group: group.to_owned(), committer: None, offsets };
        broker.commit_offsets_in_transaction("id", producer, commit)
    };
    broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
    broker.add_offsets_to_transaction("id", producer, "other").await.unwrap();
    hold("g", &[(0, 5)]).await.unwrap();
    fill(&file_system);
    for (group, offsets) in [("g", [(0, 9), (1, 3)]), ("other", [(0, 7), (1, 7)])] {
        let refused = hold(group, &offsets).await.unwrap_err();
        assert!(matches!(refused, BrokerError::Poisoned { .. }), "{refused}");
    }
    let refused = broker.end_transaction("id", producer, Marker::Commit).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Poisoned { .. }), "{refused}");
    empty(&file_system, &broker).await;
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(broker.committed("g"), [(partition(0), 5)].into());
    assert_eq!(broker.committed("other"), BTreeMap::new());

    broker.add_offsets_to_transaction("id", producer, "other").await.unwrap();
    hold("other", &[(1, 1)]).await.unwrap();
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(broker.committed("other"), [(partition(1), 1)].into());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_can_be_emptied_by_deleting_a_topic() {
    let file_system = FaultFileSystem::new(3);
    let broker = open(&file_system);
    broker.create_topic("large", 1, BTreeMap::new()).unwrap();
    let producer = broker.init_producer(None, 0, None).await.unwrap();
    let large = TopicPartition::new("large", 0);
    for sequence in 0..20 {
        let mut builder = BatchBuilder::default();
        builder.push(None, Some(&[7; 50_000]), &[], 1).unwrap();
        broker.produce(&large, builder.build().unwrap()).await.unwrap();
        broker.produce(&partition(0), batch(producer, sequence)).await.unwrap();
    }
    fill(&file_system);
    broker.produce(&partition(0), batch(producer, 20)).await.unwrap_err();
    assert!(broker.stats().log.waiting_for_space.is_some());
    broker.delete_topic("large").unwrap();
    let started = Instant::now();
    while broker.stats().log.waiting_for_space.is_some() {
        assert!(started.elapsed() < LIMIT, "it still waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(broker.produce(&partition(0), batch(producer, 20)).await.unwrap(), 20);
    broker.close().await.unwrap();
}
