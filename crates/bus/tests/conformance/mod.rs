//! What every engine behind the bus traits must do. Each function is one promise; an engine's own test file takes them all
//! with [`conformance_suite!`] and says how to start the engine.
//!
//! Topics and groups get names of their own, so that an engine may be shared by all tests.

#![allow(dead_code, unused_macros)]

mod event_bus;
mod groups;
mod records;
mod transactions;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::{
    Assignment, Bus, ConsumedRecord, Consumer, ConsumerSettings, OffsetSpec, Partitioning, Polled,
    ProducerRecord, StartAt, TopicPartition, TopicSpec,
};

pub use event_bus::*;
pub use groups::*;
pub use records::*;
pub use transactions::*;

/// How long anything may take before the test fails. Far above what is normal.
pub const LIMIT: Duration = Duration::from_secs(30);

/// After how long an impatient group takes a member for stuck: more than a busy machine puts between two steps of a test.
pub const IMPATIENT: Duration = Duration::from_secs(3);

/// A running engine.
pub trait Engine {
    /// The engine's bus.
    fn bus(&self) -> Arc<dyn Bus>;

    /// Stops the engine in order and starts it again on the same data. Of an engine that is elsewhere, the client.
    fn restart(&mut self) -> impl Future<Output = ()>;

    /// Deletes a topic with everything in it.
    fn delete_topic(&self, topic: &str) -> impl Future<Output = ()>;

    /// A member that is soon taken for stuck: as soon as the engine allows.
    fn impatient(&self, mut settings: ConsumerSettings) -> ConsumerSettings {
        settings.max_poll_interval = IMPATIENT;
        settings
    }
}

/// Makes one test of each listed function, for the engine that `$start` starts; where it starts none, there is nothing to test.
macro_rules! conformance_tests {
    ($start:path: $($name:ident),* $(,)?) => {
        conformance::conformance_tests!($start, []: $($name),*);
    };
    ($start:path, $attributes:tt: $($name:ident),* $(,)?) => {
        $(conformance::conformance_test!($start, $attributes, $name);)*
    };
}

/// One function of this suite as a test, with further attributes.
macro_rules! conformance_test {
    ($start:path, [$($attribute:meta)?], $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])?
        async fn $name() {
            conformance::$name(&mut $start().await).await;
        }
    };
}

/// The whole suite for the engine that `$start` starts.
macro_rules! conformance_suite {
    ($start:path) => {
        conformance::conformance_suite!($start, []);
    };
    ($start:path, $attributes:tt) => {
        conformance::conformance_tests!(
            $start, $attributes:
            a_topic_is_listed_and_refuses_to_be_made_twice,
            a_topic_takes_another_configuration_and_keeps_its_records_and_it_over_a_restart,
            a_topic_gets_more_partitions_that_can_be_used_at_once_and_never_fewer,
            unusable_topics_are_refused_with_the_reason,
            a_record_comes_back_with_everything_it_carried,
            records_of_a_key_keep_their_order_and_their_partition,
            keys_go_where_kafkas_clients_put_them,
            metadata_tells_where_each_record_stands,
            a_record_that_is_too_large_is_refused_and_never_stored,
            a_waiting_poll_is_woken_by_a_record,
            a_poll_that_is_dropped_loses_no_record,
            a_poll_takes_no_more_than_its_bytes_and_is_fair,
            a_standalone_consumer_starts_where_it_is_told_and_seeks,
            a_topic_that_is_deleted_and_made_again_is_read_from_its_start,
            offsets_are_found_by_place_and_by_time,
            a_compacted_topic_keeps_the_newest_of_each_key,
            records_and_topics_are_there_after_a_restart,
            a_member_gets_every_partition_and_its_commits_are_kept,
            without_a_commit_the_settings_say_where_to_start,
            a_leaving_members_partitions_resume_from_its_commit,
            a_moving_partition_is_revoked_before_it_is_assigned,
            a_member_that_polls_too_rarely_is_expelled_fenced_and_comes_back,
            every_record_is_processed_while_members_come_and_go,
            records_and_offsets_of_a_transaction_appear_together,
            an_aborted_transaction_is_never_seen,
            a_transaction_with_a_failed_send_can_only_be_aborted,
            a_newer_producer_fences_the_older_one,
            the_position_moves_over_the_markers_of_transactions,
            a_member_of_an_older_generation_cannot_commit_a_transaction,
            an_event_bus_brings_the_past_and_what_comes_each_once_and_in_order,
        );
    };
}
pub(crate) use {conformance_suite, conformance_test, conformance_tests};

/// A name that nobody else uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A topic with a name of its own.
pub async fn topic(bus: &Arc<dyn Bus>, stem: &str, partitions: i32, config: &[(&str, &str)]) -> String {
    let name = unique(stem);
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    bus.create_topic(TopicSpec { name: name.clone(), partitions, config }).await.unwrap();
    name
}

pub fn record(key: &str, value: impl Into<Bytes>) -> ProducerRecord {
    ProducerRecord {
        partitioning: Partitioning::ByKey,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        timestamp_ms: 1_700_000_000_000,
        headers: Vec::new(),
    }
}

/// A record with its number as value, by key `k0`…`k9`.
pub fn numbered(number: u32) -> ProducerRecord {
    record(&format!("k{}", number % 10), number.to_string())
}

pub fn number(record: &ConsumedRecord) -> u32 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// A consumer of every partition of a topic, outside any group, from the start.
pub async fn reader(bus: &Arc<dyn Bus>, topic: &str) -> Box<dyn Consumer> {
    let partitions = bus.topics().await.unwrap().into_iter().find(|t| &*t.name == topic).unwrap().partitions;
    let mut consumer = bus.consumer(ConsumerSettings::standalone("reader")).await.unwrap();
    let all = (0..partitions).map(|p| (TopicPartition::new(topic, p), StartAt::Earliest)).collect();
    consumer.assign(all).await.unwrap();
    consumer
}

/// Polls until `count` records have come, then once more to see that no more come.
pub async fn read(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<(TopicPartition, ConsumedRecord)> {
    let started = Instant::now();
    let mut read = Vec::new();
    while read.len() < count {
        assert!(started.elapsed() < LIMIT, "{} of {count} records came", read.len());
        poll_into(consumer, Duration::from_secs(1), &mut read).await;
    }
    poll_into(consumer, Duration::from_millis(20), &mut read).await;
    assert_eq!(read.len(), count, "more records than were sent");
    read
}

/// Polls through a broker that comes back until a record is the awaited one.
pub async fn eventually_read(
    consumer: &mut Box<dyn Consumer>,
    mut is_awaited: impl FnMut(&ConsumedRecord) -> bool,
) {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < LIMIT, "the awaited record did not come");
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(Polled::Records(batches)) => {
                if batches.iter().flat_map(|batch| &batch.records).any(&mut is_awaited) {
                    return;
                }
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
}

async fn poll_into(
    consumer: &mut Box<dyn Consumer>,
    timeout: Duration,
    into: &mut Vec<(TopicPartition, ConsumedRecord)>,
) {
    if let Polled::Records(batches) = consumer.poll(timeout).await.unwrap() {
        for batch in batches {
            assert!(!batch.records.is_empty(), "an empty batch");
            assert!(batch.records.is_sorted_by(|a, b| a.offset < b.offset), "offsets rise");
            assert!(batch.next_offset > batch.records.last().unwrap().offset);
            assert!(batch.end_offset >= batch.next_offset);
            into.extend(batch.records.into_iter().map(|record| (batch.partition.clone(), record)));
        }
    }
}

/// Everything that a topic holds, up to where it ends now.
pub async fn content(bus: &Arc<dyn Bus>, topic: &str) -> Vec<(TopicPartition, ConsumedRecord)> {
    let mut consumer = reader(bus, topic).await;
    let partitions = bus.topics().await.unwrap().into_iter().find(|t| &*t.name == topic).unwrap().partitions;
    let all: Vec<TopicPartition> = (0..partitions).map(|p| TopicPartition::new(topic, p)).collect();
    let ends = bus.offsets(&all, OffsetSpec::Latest).await.unwrap();
    let (started, mut read) = (Instant::now(), Vec::new());
    while ends.iter().any(|(partition, end)| consumer.position(partition).unwrap() < *end) {
        assert!(started.elapsed() < LIMIT, "{} records came", read.len());
        poll_into(&mut consumer, Duration::from_millis(50), &mut read).await;
    }
    read
}

/// Polls until partitions are assigned.
pub async fn assigned(consumer: &mut Box<dyn Consumer>) -> Assignment {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Polled::Assigned(assignment) = consumer.poll(Duration::from_secs(1)).await.unwrap() {
            return assignment;
        }
    }
    panic!("no partition was assigned");
}

/// Polls until partitions are assigned, while another member polls, too, as members do.
pub async fn assigned_beside(consumer: &mut Box<dyn Consumer>, other: &mut Box<dyn Consumer>) -> Assignment {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Polled::Assigned(assignment) = consumer.poll(Duration::from_millis(100)).await.unwrap() {
            return assignment;
        }
        let polled = other.poll(Duration::ZERO).await.unwrap();
        assert!(matches!(&polled, Polled::Records(none) if none.is_empty()), "{polled:?}");
    }
    panic!("no partition was assigned");
}

/// A member of `group` that reads `topic`.
pub async fn member(bus: &Arc<dyn Bus>, name: &str, group: &str, topic: &str) -> Box<dyn Consumer> {
    let mut consumer = bus.consumer(ConsumerSettings::member(name, group)).await.unwrap();
    consumer.subscribe(&[topic]).await.unwrap();
    consumer
}

/// Waits until the condition gives a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < LIMIT, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next offsets after records, by partition.
pub fn next_offsets(read: &[(TopicPartition, ConsumedRecord)]) -> BTreeMap<TopicPartition, i64> {
    let mut next = BTreeMap::new();
    for (partition, record) in read {
        next.insert(partition.clone(), record.offset + 1);
    }
    next
}
