//! The embedded engine keeps every promise of the conformance suite, and some of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{Engine, conformance_suite, conformance_tests};
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{
    Bus, Consumer, ConsumerSettings, Polled, ProducerRecord, StartAt, TopicPartition, TopicSpec,
};

struct Embedded {
    dir: tempfile::TempDir,
    bus: Arc<EmbeddedBus>,
}

async fn embedded() -> Embedded {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(&dir);
    Embedded { dir, bus }
}

fn open(dir: &tempfile::TempDir) -> Arc<EmbeddedBus> {
    let mut options = EmbeddedOptions::new(dir.path());
    options.maintenance_interval = Duration::from_millis(50);
    EmbeddedBus::open(options).unwrap().0
}

impl Engine for Embedded {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.bus.close().await.unwrap();
        self.bus = open(&self.dir);
    }

    async fn delete_topic(&self, topic: &str) {
        self.bus.broker().delete_topic(topic).unwrap();
    }
}

conformance_suite!(embedded);

conformance_tests!(embedded: rebalances_tell_what_set_them_off_and_what_they_cost);

/// A topic that is deleted under a consumer: it has no more records, and the consumer's other topics go on.
#[tokio::test]
async fn a_deleted_topic_does_not_hold_up_the_other_topics_of_its_consumers() {
    let Embedded { dir: _dir, bus: embedded } = embedded().await;
    let bus: Arc<dyn Bus> = embedded.clone();
    for topic in ["goes", "stays"] {
        bus.create_topic(topic_spec(topic)).await.unwrap();
    }
    let mut member = bus.consumer(ConsumerSettings::member("reader", "group")).await.unwrap();
    member.subscribe(&["goes", "stays"]).await.unwrap();
    let mut alone = bus.consumer(ConsumerSettings::standalone("alone")).await.unwrap();
    let place = |topic: &str| (TopicPartition::new(topic, 0), StartAt::Earliest);
    alone.assign(vec![place("goes"), place("stays")]).await.unwrap();
    let producer = bus.producer("writer").await.unwrap();
    for (topic, value) in [("goes", "a"), ("stays", "b")] {
        producer.send(topic, vec![record(value)]).await.unwrap();
    }
    for consumer in [&mut member, &mut alone] {
        assert_eq!(values(consumer, 2).await, ["a", "b"]);
    }
    embedded.broker().delete_topic("goes").unwrap();
    for number in 0..3 {
        let value = format!("after-{number}");
        producer.send("stays", vec![record(&value)]).await.unwrap();
        for consumer in [&mut member, &mut alone] {
            assert_eq!(values(consumer, 1).await, [value.as_str()]);
        }
    }
    // One of the same name is another topic.
    bus.create_topic(topic_spec("goes")).await.unwrap();
    producer.send("goes", vec![record("new")]).await.unwrap();
    let mut later = bus.consumer(ConsumerSettings::standalone("later")).await.unwrap();
    later.assign(vec![place("goes")]).await.unwrap();
    assert_eq!(values(&mut later, 1).await, ["new"]);
}

/// The values of the next records, sorted.
async fn values(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while values.len() < count {
        assert!(std::time::Instant::now() < deadline, "only {values:?}");
        if let Polled::Records(batches) = consumer.poll(Duration::from_millis(200)).await.unwrap() {
            for record in batches.into_iter().flat_map(|batch| batch.records) {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
        }
    }
    values.sort();
    values
}

fn topic_spec(name: &str) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions: 1, config: std::collections::BTreeMap::new() }
}

fn record(value: &str) -> ProducerRecord {
    ProducerRecord::new(
        "key",
        value.to_owned(),
        farol_event::Timestamp::from_millis_clamped(1_700_000_000_000),
    )
}
