//! Consumers inside the process beside Kafka clients that write transactions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use farol_broker::{Broker, ProducerIdentity, TopicPartition};
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{Bus, Consumer, ConsumerSettings, OffsetSpec, Polled, StartAt, TopicSpec};
use farol_log::{Batch, BatchBuilder, BatchProducer, Marker};

const SOON: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);

fn batch(producer: ProducerIdentity, sequence: i32, value: &str) -> Batch {
    let mut builder = BatchBuilder::default().written_by(BatchProducer {
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch,
        base_sequence: sequence,
        is_transactional: true,
    });
    builder.push(None, Some(value.as_bytes()), &[], 1).unwrap();
    builder.build().unwrap()
}

async fn write(broker: &Broker, partition: &TopicPartition, producer: ProducerIdentity, sequence: i32) {
    broker.add_to_transaction("id", producer, &[partition.clone()].into()).await.unwrap();
    let sent = batch(producer, sequence, &sequence.to_string());
    broker.produce(partition, sent).await.unwrap();
}

async fn poll(consumer: &mut Box<dyn Consumer>, timeout: Duration) -> Vec<String> {
    let Polled::Records(batches) = consumer.poll(timeout).await.unwrap() else { panic!("no records") };
    let records = batches.into_iter().flat_map(|batch| batch.records);
    records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_consumer_sees_a_clients_transaction_when_it_is_committed_and_never_if_it_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    let spec = TopicSpec { name: "t".to_owned(), partitions: 1, config: Default::default() };
    bus.create_topic(spec).await.unwrap();
    let partition = TopicPartition::new("t", 0);
    let broker = bus.broker();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    let mut consumer = bus.consumer(ConsumerSettings::standalone("reader")).await.unwrap();
    consumer.assign(vec![(partition.clone(), StartAt::Earliest)]).await.unwrap();

    write(broker, &partition, producer, 0).await;
    assert!(poll(&mut consumer, SOON).await.is_empty());
    let latest = bus.offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await.unwrap();
    assert_eq!(latest[&partition], 0, "nobody is to wait for what can't be read");
    // A poll that waits is woken by the commit, not by its timeout.
    let ending = tokio::spawn({
        let broker = broker.clone();
        async move {
            tokio::time::sleep(SOON).await;
            broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
        }
    });
    assert_eq!(poll(&mut consumer, LIMIT).await, ["0"]);
    ending.await.unwrap();

    write(broker, &partition, producer, 1).await;
    broker.end_transaction("id", producer, Marker::Abort).await.unwrap();
    assert!(poll(&mut consumer, SOON).await.is_empty());
    write(broker, &partition, producer, 2).await;
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(poll(&mut consumer, LIMIT).await, ["2"]);
    let latest = bus.offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await.unwrap();
    assert_eq!(latest[&partition], 6);
    bus.close().await.unwrap();
}
