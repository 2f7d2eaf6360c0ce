//! Topics are made, get partitions and go, whatever moment the machine stops at.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_broker::{Broker, BrokerError, BrokerOptions, Isolation, TopicPartition};
use farol_log::fs::FileSystem;
use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::{Background, BatchBuilder, LogOptions};

const DIR: &str = "/data";

fn open(file_system: &FaultFileSystem) -> Broker {
    Broker::open(options(file_system)).unwrap().0
}

fn options(file_system: &FaultFileSystem) -> BrokerOptions {
    let mut log = LogOptions::new(Path::new(DIR));
    log.file_system = Arc::new(file_system.clone());
    log.background = Background::Inline;
    log.journal_first_bytes = 64 * 1024;
    log.journal_bytes = 256 * 1024;
    BrokerOptions { log, ..BrokerOptions::new(DIR) }
}

async fn append(broker: &Broker, topic: &str, partition: i32) {
    let mut builder = BatchBuilder::default();
    builder.push(None, Some(b"value"), &[], 1).unwrap();
    let partition = broker.partition(&TopicPartition::new(topic, partition)).unwrap();
    broker.append(vec![(partition, builder.build().unwrap())]).await.unwrap();
}

fn end(broker: &Broker, topic: &str, partition: i32) -> i64 {
    broker.partition(&TopicPartition::new(topic, partition)).unwrap().end_offset()
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_a_new_one_of_its_name_is_another_and_empty() {
    let file_system = FaultFileSystem::new(1);
    let broker = open(&file_system);
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    append(&broker, "t", 1).await;
    let first = broker.topic("t").unwrap();
    let mut changes = broker.topic_changes();
    broker.delete_topic("t").unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(matches!(broker.topic("t"), Err(BrokerError::UnknownTopicOrPartition(_))));
    assert!(matches!(broker.topic_by_id(first.id()), Err(BrokerError::UnknownTopicId(_))));
    assert!(matches!(broker.delete_topic("t"), Err(BrokerError::UnknownTopicOrPartition(_))));

    // Who still holds the old one is refused, and nothing of it shows up in the new one.
    let mut builder = BatchBuilder::default();
    builder.push(None, Some(b"late"), &[], 1).unwrap();
    let late = broker.append(vec![(first.partition(0).unwrap().clone(), builder.build().unwrap())]).await;
    assert!(matches!(late, Err(BrokerError::UnknownTopicOrPartition(_))), "{late:?}");
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    assert_ne!(broker.topic("t").unwrap().id(), first.id());
    assert_eq!((end(&broker, "t", 0), end(&broker, "t", 1)), (0, 0));
    assert!(changes.has_changed().unwrap());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_crash_at_any_moment_of_a_deletion_leaves_all_of_a_topic_or_nothing() {
    let (mut there, mut gone) = (0, 0);
    for seed in 0..150 {
        let file_system = FaultFileSystem::new(seed);
        let broker = open(&file_system);
        broker.create_topic("t", 3, BTreeMap::new()).unwrap();
        broker.create_topic("other", 1, BTreeMap::new()).unwrap();
        append(&broker, "t", 2).await;
        append(&broker, "other", 0).await;
        file_system.crash_after(seed % 50);
        let deleted = broker.delete_topic("t").is_ok();
        let crashed = file_system.has_crashed();
        drop(broker);
        file_system.restart();
        let broker = open(&file_system);
        assert_eq!(end(&broker, "other", 0), 1, "seed {seed}");
        if broker.topic("t").is_ok() {
            there += 1;
            assert!(!deleted || crashed, "a deletion that was acknowledged is undone (seed {seed})");
            assert_eq!(end(&broker, "t", 2), 1, "seed {seed}");
        } else {
            gone += 1;
            broker.create_topic("t", 3, BTreeMap::new()).unwrap();
            for partition in 0..3 {
                assert_eq!(end(&broker, "t", partition), 0, "records of the old topic (seed {seed})");
            }
        }
    }
    assert!(there > 10 && gone > 10, "{there} there, {gone} gone");
}

#[tokio::test]
async fn what_a_failed_deletion_leaves_is_not_found_in_the_next_topic_of_that_name() {
    let file_system = FaultFileSystem::new(7);
    let broker = open(&file_system);
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    append(&broker, "t", 0).await;
    file_system.fail_next(Operation::Rename, "t-0");
    broker.delete_topic("t").unwrap();
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    assert_eq!(end(&broker, "t", 0), 0);
}

#[tokio::test]
async fn more_partitions_come_and_stay_after_a_crash() {
    for seed in 0..60 {
        let file_system = FaultFileSystem::new(seed);
        let broker = open(&file_system);
        broker.create_topic("t", 1, BTreeMap::new()).unwrap();
        let id = broker.topic("t").unwrap().id();
        append(&broker, "t", 0).await;
        file_system.crash_after(seed);
        let added = broker.add_partitions("t", 3).is_ok();
        let crashed = file_system.has_crashed();
        drop(broker);
        file_system.restart();
        let broker = open(&file_system);
        let topic = broker.topic("t").unwrap();
        assert_eq!(topic.id(), id);
        assert!(matches!(topic.partition_count(), 1 | 3), "seed {seed}");
        assert!(topic.partition_count() == 3 || !added || crashed, "seed {seed}");
        assert_eq!(end(&broker, "t", 0), 1);
        append(&broker, "t", topic.partition_count() - 1).await;
    }
}

/// Which of the first partitions of topic `t` have a folder.
fn folders(file_system: &FaultFileSystem) -> Vec<String> {
    let found = file_system.read_dir(&Path::new(DIR).join("partitions")).unwrap();
    let names = found.into_iter().map(|entry| entry.name);
    names.filter(|name| ["t-0", "t-1", "t-2"].contains(&name.as_str())).collect()
}

#[tokio::test]
async fn partitions_that_could_not_be_made_come_at_the_next_start_or_go_with_their_topic() {
    for change in ["none", "configuration", "fewer partitions"] {
        let file_system = FaultFileSystem::new(5);
        let broker = open(&file_system);
        broker.create_topic("t", 1, BTreeMap::new()).unwrap();
        let fail_to_add = || {
            file_system.fail_next(Operation::Open, "t-3");
            let refused = broker.add_partitions("t", 5);
            assert!(matches!(refused, Err(BrokerError::CreatePartition { .. })), "{refused:?}");
            match change {
                "configuration" => {
                    let config = BTreeMap::from([("retention.ms".to_owned(), "5000".to_owned())]);
                    broker.configure_topic("t", config).unwrap();
                }
                "fewer partitions" => broker.add_partitions("t", 2).unwrap(),
                _ => {}
            }
        };
        fail_to_add();
        assert_eq!(folders(&file_system).len(), 3);
        broker.delete_topic("t").unwrap();
        assert_eq!(folders(&file_system), [""; 0], "{change}");

        broker.create_topic("t", 1, BTreeMap::new()).unwrap();
        fail_to_add();
        broker.close().await.unwrap();
        drop(broker);
        let broker = open(&file_system);
        assert_eq!(broker.topic("t").unwrap().partition_count(), 5, "{change}");
        append(&broker, "t", 4).await;
    }
}

#[tokio::test]
async fn partitions_only_get_more_and_the_brokers_own_topics_stay_as_they_are() {
    let file_system = FaultFileSystem::new(3);
    let broker = open(&file_system);
    broker.create_topic("t", 3, BTreeMap::new()).unwrap();
    for count in [-1, 0, 2, 3, 5000] {
        let refused = broker.add_partitions("t", count);
        assert!(matches!(refused, Err(BrokerError::InvalidPartitionCount { .. })), "{count}");
    }
    let own = farol_broker::OFFSETS_TOPIC;
    assert!(matches!(broker.delete_topic(own), Err(BrokerError::InternalTopic(_))));
    assert!(matches!(broker.add_partitions(own, 5), Err(BrokerError::InternalTopic(_))));
    assert!(matches!(broker.configure_topic(own, BTreeMap::new()), Err(BrokerError::InternalTopic(_))));
}

#[tokio::test]
async fn all_topics_together_have_a_bound() {
    let options = BrokerOptions { max_partitions: 11, ..options(&FaultFileSystem::new(4)) };
    let broker = Broker::open(options).unwrap().0;
    broker.create_topic("a", 7, BTreeMap::new()).unwrap();
    let refused = broker.create_topic("b", 3, BTreeMap::new());
    assert!(
        matches!(refused, Err(BrokerError::InvalidPartitionCount { .. })),
        "the broker's own two count, too"
    );
    let refused = broker.add_partitions("a", 11);
    assert!(matches!(refused, Err(BrokerError::InvalidPartitionCount { .. })), "{refused:?}");
    broker.create_topic("b", 2, BTreeMap::new()).unwrap();
}

/// Files of a folder that this process has open although they were deleted.
fn deleted_but_open(folder: &Path) -> Vec<PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(folder) && path.to_string_lossy().ends_with("(deleted)"))
        .collect()
}

#[tokio::test]
async fn a_deleted_topic_that_was_read_gives_its_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerOptions::new(folder.path())).unwrap();
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    append(&broker, "t", 0).await;
    let partition = TopicPartition::new("t", 0);
    let read = broker.fetch(&partition, 0, 1024, Isolation::ReadCommitted).unwrap();
    assert!(!read.batches.is_empty());
    broker.delete_topic("t").unwrap();
    let started = Instant::now();
    while !deleted_but_open(folder.path()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", deleted_but_open(folder.path()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.close().await.unwrap();
}
