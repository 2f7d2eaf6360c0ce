//! Offsets that are committed with a client's transaction, over real folders.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;

use farol_broker::{
    Broker, BrokerError, BrokerOptions, CommitCheck, CommittedOffset, Committer, FetchedOffset, GroupError,
    MemberRef, OffsetCommit, ProducerIdentity, TopicPartition, TransactionError,
};
use farol_log::Marker;

fn open(dir: &Path) -> Broker {
    Broker::open(BrokerOptions::new(dir)).unwrap().0
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn commit(group: &str, generation: i32, offsets: &[(i32, i64)]) -> OffsetCommit {
    let offset = |(number, offset): &(i32, i64)| (partition(*number), CommittedOffset::new(*offset));
    OffsetCommit {
        group: group.to_owned(),
        committer: Some(Committer {
            member: MemberRef::id(if generation < 0 { "" } else { "stranger" }),
            generation,
            check: CommitCheck::Transaction,
        }),
        offsets: offsets.iter().map(offset).collect(),
    }
}

async fn hold(
    broker: &Broker,
    producer: ProducerIdentity,
    group: &str,
    offsets: &[(i32, i64)],
) -> Result<(), BrokerError> {
    broker.commit_offsets_in_transaction("id", producer, commit(group, -1, offsets)).await
}

/// The group's offset in partition 0: what stands, and to who asks for stable ones only.
async fn fetch(broker: &Broker, group: &str) -> (FetchedOffset, FetchedOffset) {
    let wanted = [partition(0)];
    let any = broker.fetch_offsets(group, Some(&wanted), false).await.unwrap();
    let stable = broker.fetch_offsets(group, Some(&wanted), true).await.unwrap();
    (any[0].1.clone(), stable[0].1.clone())
}

fn offset(found: &FetchedOffset) -> Option<i64> {
    match found {
        FetchedOffset::Committed(committed) => Some(committed.offset),
        FetchedOffset::Missing | FetchedOffset::Unstable => None,
    }
}

#[tokio::test]
async fn offsets_of_a_transaction_are_unstable_until_it_ends_and_count_if_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    let early = hold(&broker, producer, "g", &[(0, 5)]).await;
    assert!(
        matches!(early, Err(BrokerError::Transaction(TransactionError::InvalidState { .. }))),
        "{early:?}"
    );

    for (marker, sent, expected) in
        [(Marker::Commit, 5, Some(5)), (Marker::Abort, 9, Some(5)), (Marker::Commit, 12, Some(12))]
    {
        let before = offset(&fetch(&broker, "g").await.0);
        broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
        hold(&broker, producer, "g", &[(0, sent - 1), (1, 3)]).await.unwrap();
        hold(&broker, producer, "g", &[(0, sent)]).await.unwrap();
        let (any, stable) = fetch(&broker, "g").await;
        assert_eq!((offset(&any), stable), (before, FetchedOffset::Unstable));
        broker.end_transaction("id", producer, marker).await.unwrap();
        let (any, stable) = fetch(&broker, "g").await;
        assert_eq!((offset(&any), offset(&stable)), (expected, expected));
    }
    assert_eq!(broker.committed("g")[&partition(1)], 3);
    let offsets_end = broker.partition(&TopicPartition::new("__consumer_offsets", 0)).unwrap().end_offset();
    assert_eq!(offsets_end, 4, "nothing but what is committed, and no markers");
    broker.close().await.unwrap();
    let broker = open(dir.path());
    assert_eq!(broker.committed("g"), [(partition(0), 12), (partition(1), 3)].into());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_what_an_open_transaction_holds() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    for group in ["g", "h"] {
        broker.add_offsets_to_transaction("id", producer, group).await.unwrap();
        hold(&broker, producer, group, &[(0, 5)]).await.unwrap();
    }
    broker.close().await.unwrap();
    let broker = open(dir.path());
    assert_eq!(fetch(&broker, "g").await, (FetchedOffset::Missing, FetchedOffset::Unstable));
    hold(&broker, producer, "g", &[(0, 6)]).await.unwrap();
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(offset(&fetch(&broker, "g").await.1), Some(6));
    assert_eq!(offset(&fetch(&broker, "h").await.1), Some(5));

    // What a fenced producer held is gone for good.
    broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
    hold(&broker, producer, "g", &[(0, 7)]).await.unwrap();
    let next = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    assert_eq!(offset(&fetch(&broker, "g").await.1), Some(6));
    let fenced = hold(&broker, producer, "g", &[(0, 8)]).await;
    assert!(matches!(fenced, Err(BrokerError::Transaction(TransactionError::Fenced))), "{fenced:?}");
    broker.close().await.unwrap();
    let broker = open(dir.path());
    broker.add_offsets_to_transaction("id", next, "g").await.unwrap();
    broker.end_transaction("id", next, Marker::Commit).await.unwrap();
    assert_eq!(offset(&fetch(&broker, "g").await.1), Some(6));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_member_that_the_group_does_not_know_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
    let stranger = commit("g", 3, &[(0, 5)]);
    let refused = broker.commit_offsets_in_transaction("id", producer, stranger).await;
    assert!(matches!(refused, Err(BrokerError::Fenced(_))), "{refused:?}");
    // The refusal doesn't hold the transaction up.
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(fetch(&broker, "g").await, (FetchedOffset::Missing, FetchedOffset::Missing));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_group_whose_first_offsets_a_transaction_holds_is_not_deleted_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
    hold(&broker, producer, "g", &[(0, 5)]).await.unwrap();
    let refused = broker.delete_group("g").await;
    assert!(matches!(refused, Err(BrokerError::Group(GroupError::NotEmpty { .. }))), "{refused:?}");
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(offset(&fetch(&broker, "g").await.0), Some(5));
    broker.delete_group("g").await.unwrap();
    assert_eq!(offset(&fetch(&broker, "g").await.0), None);
}
