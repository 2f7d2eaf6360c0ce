//! The coordinator with its shell: requests that wait, members of this process beside others, and offsets on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_broker::coordinator::subscription::{Subscription, decode_assignment, encode_assignment};
use farol_broker::{
    Broker, BrokerError, BrokerOptions, CommitCheck, CommittedOffset, Committer, FetchedOffset, GroupError,
    GroupOptions, GroupState, JoinRequest, Joined, Leaving, MAX_OFFSET_METADATA_BYTES, Member, MemberNews,
    MemberRef, MemberSettings, OffsetCommit, Protocol, SyncRequest, TopicPartition,
};
use farol_log::Marker;
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(20);
const COOPERATIVE: &str = "cooperative-sticky";

fn open(dir: &Path, groups: GroupOptions) -> Broker {
    let options = BrokerOptions { groups, ..BrokerOptions::new(dir) };
    Broker::open(options).unwrap().0
}

fn prompt() -> GroupOptions {
    GroupOptions { initial_rebalance_delay: Duration::ZERO, ..GroupOptions::default() }
}

fn broker_with_topic(dir: &Path, partitions: i32) -> Broker {
    let broker = open(dir, prompt());
    broker.create_topic("t", partitions, BTreeMap::new()).unwrap();
    broker
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A consumer elsewhere, as its library would ask.
struct Remote {
    broker: Broker,
    name: &'static str,
    protocol: &'static str,
    member_id: String,
    generation: i32,
    owned: BTreeSet<TopicPartition>,
}

impl Remote {
    fn new(broker: &Broker, name: &'static str, protocol: &'static str) -> Self {
        let owned = BTreeSet::new();
        Self { broker: broker.clone(), name, protocol, member_id: String::new(), generation: -1, owned }
    }

    fn join_request(&self) -> JoinRequest {
        let subscription = Subscription {
            topics: BTreeSet::from(["t".into()]),
            owned: self.owned.clone(),
            generation: self.generation,
        };
        JoinRequest {
            group: "g".to_owned(),
            member: MemberRef::id(self.member_id.as_str()),
            require_member_id: false,
            skips_assignment: true,
            client_id: self.name.to_owned(),
            client_host: "127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol { name: self.protocol.to_owned(), metadata: subscription.encode() }],
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(10),
            reason: None,
        }
    }

    async fn join(&mut self) -> Result<Joined, GroupError> {
        let joined =
            tokio::time::timeout(LIMIT, self.broker.join_group(self.join_request())).await.unwrap()?;
        self.member_id.clone_from(&joined.member_id);
        self.generation = joined.generation;
        Ok(joined)
    }

    async fn sync(&mut self, assignments: Vec<(String, Bytes)>) -> Result<(), GroupError> {
        let request = SyncRequest {
            group: "g".to_owned(),
            member: MemberRef::id(self.member_id.as_str()),
            generation: self.generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some(self.protocol.to_owned()),
            assignments,
        };
        let synced = tokio::time::timeout(LIMIT, self.broker.sync_group(request)).await.unwrap()?;
        self.owned = decode_assignment(&synced.assignment).unwrap();
        Ok(())
    }

    async fn heartbeat(&self) -> Result<(), GroupError> {
        let member = MemberRef::id(self.member_id.as_str());
        self.broker.heartbeat_group("g", member, self.generation).await
    }

    /// Joins and syncs until the group stands, assigning as told if it leads.
    async fn follow(&mut self, shares: impl Fn(&Joined) -> Vec<(String, Bytes)>) {
        loop {
            let joined = match self.join().await {
                Err(GroupError::RebalanceInProgress { .. }) => continue,
                joined => joined.unwrap(),
            };
            let assignments = if joined.leader == joined.member_id { shares(&joined) } else { Vec::new() };
            match self.sync(assignments).await {
                Ok(()) => return,
                Err(GroupError::RebalanceInProgress { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn local(broker: &Broker, name: &str) -> Member {
    let settings = MemberSettings {
        group: "g".to_owned(),
        client_id: name.to_owned(),
        topics: vec!["t".to_owned()],
        session_timeout: Duration::from_secs(10),
        max_poll_interval: Duration::from_secs(300),
    };
    broker.join(settings, Arc::new(Notify::new())).unwrap()
}

/// Polls until partitions come.
async fn assigned(member: &mut Member) -> Vec<i32> {
    eventually("an assignment", || match member.poll().unwrap() {
        MemberNews::Assigned(partitions) => {
            Some(partitions.into_iter().map(|(partition, _)| partition.partition).collect())
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_join_whose_caller_is_gone_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 2);
    let mut first = Remote::new(&broker, "first", "range");
    first
        .follow(|joined| vec![(joined.member_id.clone(), encode_assignment(&BTreeSet::from([tp(0), tp(1)])))])
        .await;
    let lost = Remote::new(&broker, "lost", "range");
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.join_group(lost.join_request()).await }
    });
    eventually("the second member", || {
        broker.describe_group("g").filter(|group| group.members.len() == 2).map(drop)
    })
    .await;
    assert!(matches!(first.heartbeat().await, Err(GroupError::RebalanceInProgress { .. })));
    waiting.abort();
    eventually("its removal", || {
        broker.describe_group("g").filter(|group| group.members.len() == 1).map(drop)
    })
    .await;
    let joined = first.join().await.unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
}

#[tokio::test]
async fn members_of_this_process_and_others_share_a_group_whoever_leads() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 4);
    let nobody = |joined: &Joined| panic!("{joined:?} should not lead");
    // This process's member leads and assigns to the one elsewhere, in two generations.
    let mut here = local(&broker, "here");
    assert_eq!(assigned(&mut here).await, [0, 1, 2, 3]);
    let mut there = Remote::new(&broker, "there", COOPERATIVE);
    there.follow(nobody).await;
    assert!(there.owned.is_empty(), "not before they are given up");
    let revoked = eventually("a revocation", || match here.poll().unwrap() {
        MemberNews::Revoked(partitions) => Some(partitions),
        _ => None,
    })
    .await;
    assert_eq!(revoked.len(), 2);
    assert_eq!(here.poll().unwrap(), MemberNews::Nothing);
    assert!(matches!(there.heartbeat().await, Err(GroupError::RebalanceInProgress { .. })));
    there.follow(nobody).await;
    assert_eq!(there.owned, revoked.into_iter().collect());

    // It leaves; the one elsewhere leads, and assigns to a new one of this process.
    drop(here);
    there
        .follow(|joined| vec![(joined.member_id.clone(), encode_assignment(&(0..4).map(tp).collect()))])
        .await;
    assert_eq!(there.owned.len(), 4);
    let mut newcomer = local(&broker, "newcomer");
    assert_eq!(newcomer.poll().unwrap(), MemberNews::Nothing);
    for owned in [vec![], vec![3]] {
        there
            .follow(|joined| {
                let other =
                    joined.members.iter().find(|member| member.member_id != joined.member_id).unwrap();
                let newcomers = owned.iter().map(|partition| tp(*partition)).collect();
                vec![
                    (joined.member_id.clone(), encode_assignment(&(0..3).map(tp).collect())),
                    (other.member_id.clone(), encode_assignment(&newcomers)),
                ]
            })
            .await;
        assert_eq!(there.owned.len(), 3);
    }
    assert_eq!(assigned(&mut newcomer).await, [3]);
    let group = broker.describe_group("g").unwrap();
    assert_eq!(
        (group.state, group.protocol.as_str(), group.members.len()),
        (GroupState::Stable, COOPERATIVE, 2)
    );
}

#[tokio::test]
async fn a_member_that_knows_other_assignors_only_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 1);
    let mut here = local(&broker, "here");
    assigned(&mut here).await;
    let error = Remote::new(&broker, "there", "range").join().await.unwrap_err();
    assert!(error.to_string().contains(COOPERATIVE), "{error}");
    // And the other way round.
    drop(here);
    let mut there = Remote::new(&broker, "there", "range");
    there.follow(|_| Vec::new()).await;
    let mut here = local(&broker, "here");
    let error = here.poll().unwrap_err();
    assert!(matches!(&error, BrokerError::Group(GroupError::InconsistentProtocol { .. })), "{error}");
    // It tries again with each poll, and is taken when the others are gone.
    let leaving = vec![Leaving { member: MemberRef::id(there.member_id.as_str()), reason: None }];
    broker.leave_group("g", leaving).await.unwrap()[0].clone().unwrap();
    let got = eventually("an assignment", || match here.poll() {
        Ok(MemberNews::Assigned(partitions)) => Some(partitions),
        Ok(_) | Err(BrokerError::Group(_)) => None,
        Err(error) => panic!("{error}"),
    })
    .await;
    assert_eq!(got, [(tp(0), None)]);
}

#[tokio::test]
async fn requests_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = GroupOptions { max_size: 1, max_groups: 2, ..prompt() };
    let broker = open(dir.path(), options);
    let request = |change: &dyn Fn(&mut JoinRequest)| {
        let mut request = Remote::new(&broker, "a", "range").join_request();
        change(&mut request);
        let broker = broker.clone();
        async move { broker.join_group(request).await.unwrap_err() }
    };
    assert!(matches!(request(&|r| r.group.clear()).await, GroupError::InvalidGroupId { bytes: 0, .. }));
    assert!(matches!(
        request(&|r| r.group = "x".repeat(256)).await,
        GroupError::InvalidGroupId { bytes: 256, .. }
    ));
    for seconds in [0, 3600] {
        let error = request(&|r| r.session_timeout = Duration::from_secs(seconds)).await;
        assert!(matches!(error, GroupError::InvalidSessionTimeout { .. }), "{error}");
    }
    let large = Bytes::from(vec![0; 2 * 1024 * 1024]);
    let error = request(&|r| r.protocols[0].metadata = large.clone()).await;
    assert!(matches!(error, GroupError::InvalidRequest(_)), "{error}");
    let mut one = Remote::new(&broker, "one", "range");
    one.join().await.unwrap();
    assert!(matches!(request(&|_| {}).await, GroupError::GroupFull { limit: 1, .. }));
    let mut other = Remote::new(&broker, "other", "range").join_request();
    other.group = "g2".to_owned();
    broker.join_group(other).await.unwrap();
    assert!(matches!(
        request(&|r| r.group = "g3".to_owned()).await,
        GroupError::CoordinatorFull { limit: 2, .. }
    ));
}

/// A commit of somebody who is in no group.
fn commit(group: &str, partition: i32, offset: CommittedOffset) -> OffsetCommit {
    let committer =
        Committer { member: MemberRef::default(), generation: -1, check: CommitCheck::Generation };
    OffsetCommit {
        group: group.to_owned(),
        committer: Some(committer),
        offsets: BTreeMap::from([(tp(partition), offset)]),
    }
}

async fn fetch(broker: &Broker, group: &str, require_stable: bool) -> Vec<(TopicPartition, FetchedOffset)> {
    broker.fetch_offsets(group, None, require_stable).await.unwrap()
}

#[tokio::test]
async fn what_is_committed_with_an_offset_comes_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 2);
    let offset = CommittedOffset { leader_epoch: 3, metadata: "note".to_owned(), ..CommittedOffset::new(7) };
    broker.commit_offsets(commit("g", 0, offset.clone())).await.unwrap();
    let long = CommittedOffset { metadata: "x".repeat(MAX_OFFSET_METADATA_BYTES + 1), ..offset.clone() };
    let error = broker.commit_offsets(commit("g", 0, long)).await.unwrap_err();
    assert!(matches!(error, BrokerError::TooLarge { .. }), "{error}");
    let before = fetch(&broker, "g", true).await;
    broker.close().await.unwrap();
    drop(broker);

    let broker = open(dir.path(), prompt());
    let after = fetch(&broker, "g", false).await;
    assert_eq!(after, before);
    let FetchedOffset::Committed(found) = &after[0].1 else { panic!("{after:?}") };
    assert!(found.committed_at_ms > 0);
    assert_eq!(CommittedOffset { committed_at_ms: 0, ..found.clone() }, offset);
    let one = broker.fetch_offsets("g", Some(&[tp(1)]), false).await.unwrap();
    assert_eq!(one, [(tp(1), FetchedOffset::Missing)]);
}

#[tokio::test]
async fn offsets_that_a_transaction_holds_are_unstable_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 1);
    broker.commit_offsets(commit("g", 0, CommittedOffset::new(1))).await.unwrap();
    let producer = broker.init_producer(Some("id"), 60_000, None).await.unwrap();
    broker.add_offsets_to_transaction("id", producer, "g").await.unwrap();
    let metadata = "m".repeat(MAX_OFFSET_METADATA_BYTES + 1);
    let too_large = commit("g", 0, CommittedOffset { metadata, ..CommittedOffset::new(2) });
    let refused = broker.commit_offsets_in_transaction("id", producer, too_large).await.unwrap_err();
    assert!(matches!(refused, BrokerError::TooLarge { .. }), "{refused}");
    let held = commit("g", 0, CommittedOffset::new(2));
    broker.commit_offsets_in_transaction("id", producer, held).await.unwrap();
    assert_eq!(fetch(&broker, "g", true).await, [(tp(0), FetchedOffset::Unstable)]);
    assert!(
        matches!(&fetch(&broker, "g", false).await[0].1, FetchedOffset::Committed(found) if found.offset == 1)
    );
    // A member of this process wants only what stands.
    let mut here = local(&broker, "here");
    assert_eq!(here.poll().unwrap(), MemberNews::Nothing);
    broker.end_transaction("id", producer, Marker::Commit).await.unwrap();
    assert_eq!(assigned(&mut here).await, [0]);
    assert!(
        matches!(&fetch(&broker, "g", true).await[0].1, FetchedOffset::Committed(found) if found.offset == 2)
    );
}

#[tokio::test]
async fn deleted_offsets_and_groups_stay_away_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 2);
    for (group, partition) in [("one", 0), ("one", 1), ("two", 0), ("three", 0)] {
        broker.commit_offsets(commit(group, partition, CommittedOffset::new(1))).await.unwrap();
    }
    broker.delete_offsets("one", BTreeSet::from([tp(0)])).await.unwrap();
    broker.delete_group("two").await.unwrap();
    let error = broker.delete_group("two").await.unwrap_err();
    assert!(matches!(error, BrokerError::Group(GroupError::NotFound { .. })), "{error}");
    // A group with members keeps what they read.
    broker.commit_offsets(commit("g", 0, CommittedOffset::new(1))).await.unwrap();
    let mut here = local(&broker, "here");
    assigned(&mut here).await;
    let error = broker.delete_group("g").await.unwrap_err();
    assert!(matches!(error, BrokerError::Group(GroupError::NotEmpty { .. })), "{error}");
    let error = broker.delete_offsets("g", BTreeSet::from([tp(0)])).await.unwrap_err();
    assert!(matches!(error, BrokerError::Group(GroupError::Subscribed { .. })), "{error}");
    drop(here);
    let groups = |broker: &Broker| -> Vec<(String, usize)> {
        broker.group_snapshots().into_iter().map(|group| (group.group, group.committed.len())).collect()
    };
    let left = [("g".to_owned(), 1), ("one".to_owned(), 1), ("three".to_owned(), 1)];
    assert_eq!(groups(&broker), left);
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(dir.path(), prompt());
    assert_eq!(groups(&broker), left);
    let left_offsets = broker.delete_topic("t").unwrap();
    broker.delete_left_offsets(left_offsets).await.unwrap();
    assert_eq!(groups(&broker), []);
}

#[tokio::test]
async fn what_is_committed_for_a_topic_that_was_made_anew_stays_when_the_old_ones_offsets_go() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_topic(dir.path(), 2);
    for (group, partition) in [("g", 0), ("g", 1), ("other", 0)] {
        broker.commit_offsets(commit(group, partition, CommittedOffset::new(7))).await.unwrap();
    }
    let left = broker.delete_topic("t").unwrap();
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    broker.commit_offsets(commit("g", 0, CommittedOffset::new(10))).await.unwrap();
    broker.delete_left_offsets(left).await.unwrap();
    let of_new = BTreeMap::from([(tp(0), 10)]);
    assert_eq!((broker.committed("g"), broker.committed("other")), (of_new.clone(), BTreeMap::new()));
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(dir.path(), prompt());
    assert_eq!((broker.committed("g"), broker.committed("other")), (of_new, BTreeMap::new()));
}

#[tokio::test]
async fn offsets_of_a_group_without_members_expire_and_those_that_are_read_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = GroupOptions {
        offsets_retention: Duration::from_millis(150),
        offsets_retention_check_interval: Duration::from_millis(20),
        ..prompt()
    };
    let broker = open(dir.path(), options);
    broker.create_topic("t", 1, BTreeMap::new()).unwrap();
    let mut here = local(&broker, "here");
    assigned(&mut here).await;
    broker.commit_offsets(commit("gone", 0, CommittedOffset::new(1))).await.unwrap();
    let held = OffsetCommit::by_owner(here.membership(), BTreeMap::from([(tp(0), 5)]));
    broker.commit_offsets(held).await.unwrap();
    eventually("the end of the offset", || broker.describe_group("gone").is_none().then_some(())).await;
    assert_eq!(broker.committed("g"), BTreeMap::from([(tp(0), 5)]), "somebody reads it");
    drop(here);
    eventually("the end of the other", || broker.describe_group("g").is_none().then_some(())).await;
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(dir.path(), prompt());
    assert_eq!(broker.group_snapshots(), []);
}
