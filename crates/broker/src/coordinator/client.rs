//! A member of a group inside this process, as a pure state machine: what a consumer does to get its partitions.
//!
//! It speaks to the coordinator in the same requests as any client elsewhere, with Kafka's assignor `cooperative-sticky`
//! ([`PROTOCOL`]), so that both share a group, whichever of them leads.
//!
//! # Limits and invariants
//!
//! * One join or sync is on its way at a time. Answers to earlier ones are ignored.
//! * A partition is the application's from the poll that tells so ([`Client::hand_over`]) until the poll after the one that
//!   took it back ([`News::Revoked`]), or until it is told of its expulsion. For as long, it is claimed in every join, and
//!   no assignor gives it to anybody else.
//! * Joining, assigning and syncing need no poll: a member that is busy with its records doesn't hold others up. Giving up a
//!   partition does.
//! * Once expelled, it is out until the application's next poll, and comes back under another id: what the application still
//!   does with the old one is refused.
//!
//! # Main flow
//!
//! [`Client::subscribe`] joins. The leader answers its join with everybody's assignment ([`Client::answer`]); the sync brings
//! the member's own. Partitions that it lost are told, given up with the next poll, and a further join makes that known; only
//! then does their next owner get them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;

use super::assignor::{self, Subscriber};
use super::protocol::{Answer, GroupError, Joined, JoinedMember, MISSED_POLLS};
use super::rebalance::LeaveReason;
use super::subscription::{NO_GENERATION, Subscription, decode_assignment, encode_assignment};
use crate::partition::TopicPartition;

/// The assignor.
pub const PROTOCOL: &str = "cooperative-sticky";

/// How many partitions a topic has; `None` if it isn't there.
pub type PartitionCount<'a> = &'a dyn Fn(&str) -> Option<i32>;

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    max_poll_interval: Duration,
    topics: BTreeSet<Arc<str>>,
    member_id: String,
    generation: i32,
    phase: Phase,
    next_request: u64,
    /// The join or sync whose answer is waited for.
    awaited: Option<u64>,
    outgoing: Vec<(u64, Request)>,
    /// The application has these.
    held: BTreeSet<TopicPartition>,
    /// Assigned, and not told to the application yet.
    gained: BTreeSet<TopicPartition>,
    /// Held, and to be given up.
    leaving: BTreeSet<TopicPartition>,
    /// The application was told of `leaving`.
    told: bool,
    /// The newest assignment.
    assigned: BTreeSet<TopicPartition>,
    /// What the newest join claimed.
    claimed: BTreeSet<TopicPartition>,
    /// The subscription, or what the assignment was made from, has changed since the newest join.
    changed: bool,
    /// As leader: the topics that it assigned last, with their partition counts.
    assigned_from: BTreeMap<Arc<str>, Option<i32>>,
    expelled: Option<Option<LeaveReason>>,
    refused: Option<GroupError>,
    last_poll: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No member.
    Out,
    Joining,
    Syncing,
    /// Has its assignment.
    In,
}

/// What it asks of the coordinator. The number comes back with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Join, with what the assignor is to know.
    Join {
        /// Empty for a new member.
        member_id: String,
        /// For [`PROTOCOL`].
        metadata: Bytes,
    },
    /// Ask for the assignment, as leader with everybody's.
    Sync {
        /// Who.
        member_id: String,
        /// At which generation.
        generation: i32,
        /// Member id and assignment.
        assignments: Vec<(String, Bytes)>,
    },
    /// Show that it lives, and hear whether the group rebalances.
    Heartbeat {
        /// Who.
        member_id: String,
        /// At which generation.
        generation: i32,
    },
    /// Say goodbye.
    Leave {
        /// Who.
        member_id: String,
        /// Why.
        reason: &'static str,
    },
}

/// What a poll brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing, or partitions that were gained: see [`Client::gained`].
    Nothing,
    /// These are to be given up by the next poll.
    Revoked(BTreeSet<TopicPartition>),
    /// It is no member any more; these are lost.
    Expelled(Option<LeaveReason>, BTreeSet<TopicPartition>),
    /// The group doesn't take it. The next poll tries again.
    Refused(GroupError),
}

impl Client {
    /// A client that has not joined.
    pub fn new(max_poll_interval: Duration, now: Timestamp) -> Self {
        Self {
            max_poll_interval,
            topics: BTreeSet::new(),
            member_id: String::new(),
            generation: NO_GENERATION,
            phase: Phase::Out,
            next_request: 0,
            awaited: None,
            outgoing: Vec::new(),
            held: BTreeSet::new(),
            gained: BTreeSet::new(),
            leaving: BTreeSet::new(),
            told: false,
            assigned: BTreeSet::new(),
            claimed: BTreeSet::new(),
            changed: false,
            assigned_from: BTreeMap::new(),
            expelled: None,
            refused: None,
            last_poll: now,
        }
    }

    /// Reads these topics from now on: joins, or joins again.
    pub fn subscribe(&mut self, topics: BTreeSet<Arc<str>>, now: Timestamp) {
        if self.topics == topics && self.phase != Phase::Out {
            return;
        }
        self.topics = topics;
        self.last_poll = now;
        self.changed = true;
        if self.phase == Phase::Out && self.expelled.is_none() {
            self.join();
        }
        self.join_if_due();
    }

    /// What is to be sent, in order.
    pub fn take_requests(&mut self) -> Vec<(u64, Request)> {
        std::mem::take(&mut self.outgoing)
    }

    /// An answer to request `number`.
    pub fn answer(&mut self, number: u64, answer: Answer, partition_count: PartitionCount<'_>) {
        match answer {
            Answer::Heartbeat(Err(error)) if self.phase == Phase::In => self.heartbeat_refused(&error),
            Answer::Join(joined) if self.awaited == Some(number) => match joined {
                Ok(joined) => self.joined(&joined, partition_count),
                Err(error) => self.join_refused(error),
            },
            Answer::Sync(synced) if self.awaited == Some(number) => match synced {
                Ok(synced) => self.take_assignment(decode_assignment(&synced.assignment).unwrap_or_default()),
                Err(GroupError::RebalanceInProgress { .. }) => self.join(),
                Err(error) => self.expel(reason_in(&error)),
            },
            Answer::Heartbeat(_) | Answer::Leave(_) | Answer::Join(_) | Answer::Sync(_) => {}
        }
    }

    /// Asks whether the group rebalances; also due some times within each session timeout. As leader, looks whether the
    /// assignment still fits the topics.
    pub fn heartbeat(&mut self, partition_count: PartitionCount<'_>) {
        if self.phase != Phase::In {
            return;
        }
        let (member_id, generation) = (self.member_id.clone(), self.generation);
        self.send(Request::Heartbeat { member_id, generation });
        if self.assigned_from.iter().any(|(topic, count)| partition_count(topic) != *count) {
            self.changed = true;
            self.join_if_due();
        }
    }

    /// Leaves if the application has not polled for too long.
    pub fn check_polls(&mut self, now: Timestamp) {
        if self.phase != Phase::Out && self.polls_due() <= now {
            let member_id = self.member_id.clone();
            self.send(Request::Leave { member_id, reason: MISSED_POLLS });
            self.expel(Some(LeaveReason::MissedPolls));
        }
    }

    /// When the application will have polled too rarely.
    pub fn polls_due(&self) -> Timestamp {
        self.last_poll.saturating_add(self.max_poll_interval)
    }

    /// The application polls: it has given up what it was told to, and hears what is new.
    pub fn poll(&mut self, now: Timestamp) -> News {
        self.last_poll = now;
        if let Some(error) = self.refused.take() {
            return News::Refused(error);
        }
        if let Some(reason) = self.expelled.take() {
            return self.come_back(reason);
        }
        if self.phase == Phase::Out {
            self.join();
        }
        if self.told {
            self.give_up();
        }
        if !self.leaving.is_empty() {
            self.told = true;
            return News::Revoked(self.leaving.clone());
        }
        News::Nothing
    }

    /// What the application is to be told that it has gained.
    pub fn gained(&self) -> &BTreeSet<TopicPartition> {
        &self.gained
    }

    /// The application is told that these, of those gained, are its own.
    pub fn hand_over(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if self.gained.remove(partition) {
                self.held.insert(partition.clone());
            }
        }
    }

    /// Whether a poll would bring something.
    pub fn has_news(&self) -> bool {
        self.refused.is_some()
            || self.expelled.is_some()
            || !self.gained.is_empty()
            || (!self.told && !self.leaving.is_empty())
    }

    /// Its id; empty before it has one. After an expulsion, the old one until the next poll.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Its generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    fn send(&mut self, request: Request) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        self.outgoing.push((number, request));
        number
    }

    fn join(&mut self) {
        self.changed = false;
        self.claimed = self.held.union(&self.gained).cloned().collect();
        let subscription = Subscription {
            topics: self.topics.clone(),
            owned: self.claimed.clone(),
            generation: self.generation,
        };
        self.phase = Phase::Joining;
        let member_id = self.member_id.clone();
        self.awaited = Some(self.send(Request::Join { member_id, metadata: subscription.encode() }));
    }

    /// Joins again if the coordinator is to hear of something: other topics, or partitions that were given up.
    fn join_if_due(&mut self) {
        let given_up =
            |partition: &TopicPartition| !self.held.contains(partition) && !self.gained.contains(partition);
        if self.phase == Phase::In && (self.changed || self.claimed.iter().any(given_up)) {
            self.join();
        }
    }

    fn heartbeat_refused(&mut self, error: &GroupError) {
        match error {
            GroupError::RebalanceInProgress { .. } => self.join(),
            error => self.expel(reason_in(error)),
        }
    }

    fn join_refused(&mut self, error: GroupError) {
        match error {
            GroupError::RebalanceInProgress { .. } => self.join(),
            GroupError::UnknownMember { reason, .. } if !self.member_id.is_empty() => self.expel(reason),
            error => {
                self.phase = Phase::Out;
                self.awaited = None;
                self.refused = Some(error);
            }
        }
    }

    fn joined(&mut self, joined: &Joined, partition_count: PartitionCount<'_>) {
        self.member_id.clone_from(&joined.member_id);
        self.generation = joined.generation;
        self.phase = Phase::Syncing;
        self.assigned_from.clear();
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = if leads { self.assign(&joined.members, partition_count) } else { Vec::new() };
        let (member_id, generation) = (joined.member_id.clone(), joined.generation);
        self.awaited = Some(self.send(Request::Sync { member_id, generation, assignments }));
    }

    /// Everybody's assignment. A partition that moves is given to nobody until its owner has joined without it.
    fn assign(
        &mut self,
        members: &[JoinedMember],
        partition_count: PartitionCount<'_>,
    ) -> Vec<(String, Bytes)> {
        let subscriptions: BTreeMap<&str, Subscription> = members
            .iter()
            .map(|member| {
                let subscription = Subscription::decode(&member.metadata).unwrap_or_default();
                (member.member_id.as_str(), subscription)
            })
            .collect();
        for topic in subscriptions.values().flat_map(|subscription| &subscription.topics) {
            let count = partition_count(topic);
            self.assigned_from.insert(Arc::clone(topic), count);
        }
        let topics: Vec<(&str, BTreeMap<Arc<str>, i32>)> = subscriptions
            .iter()
            .map(|(member_id, subscription)| {
                let known = subscription.topics.iter().filter_map(|topic| {
                    let count = self.assigned_from.get(topic).copied().flatten()?;
                    Some((Arc::clone(topic), count))
                });
                (*member_id, known.collect())
            })
            .collect();
        let subscribers: Vec<Subscriber<'_>> =
            topics.iter().map(|(member_id, topics)| Subscriber { member_id, topics }).collect();
        let claims = claims(&subscriptions);
        let wanted =
            assignor::assign(&subscribers, |partition| claims.get(partition).and_then(|claim| claim.owner));
        let mut shares: BTreeMap<&str, BTreeSet<TopicPartition>> =
            subscriptions.keys().map(|member_id| (*member_id, BTreeSet::new())).collect();
        for (partition, member_id) in &wanted {
            let is_free = claims
                .get(partition)
                .is_none_or(|claim| claim.claimants.iter().all(|other| other == member_id));
            if let Some(share) = shares.get_mut(member_id.as_str()).filter(|_| is_free) {
                share.insert(partition.clone());
            }
        }
        shares
            .into_iter()
            .map(|(member_id, share)| (member_id.to_owned(), encode_assignment(&share)))
            .collect()
    }

    fn take_assignment(&mut self, assigned: BTreeSet<TopicPartition>) {
        self.phase = Phase::In;
        self.awaited = None;
        self.gained.retain(|partition| assigned.contains(partition));
        self.gained.extend(assigned.difference(&self.held).cloned());
        self.assigned = assigned;
        if !self.told {
            self.leaving = self.held.difference(&self.assigned).cloned().collect();
        }
        self.join_if_due();
    }

    /// The application has given up what it was told to.
    fn give_up(&mut self) {
        self.told = false;
        for partition in std::mem::take(&mut self.leaving) {
            self.held.remove(&partition);
            // It was given back in the meantime; the application has dropped its state, so it must hear of it again.
            if self.assigned.contains(&partition) {
                self.gained.insert(partition);
            }
        }
        self.leaving = self.held.difference(&self.assigned).cloned().collect();
        self.join_if_due();
    }

    fn expel(&mut self, reason: Option<LeaveReason>) {
        self.phase = Phase::Out;
        self.awaited = None;
        self.gained.clear();
        self.assigned_from.clear();
        self.expelled = Some(reason);
    }

    /// Joins as a new member after an expulsion.
    fn come_back(&mut self, reason: Option<LeaveReason>) -> News {
        let lost = std::mem::take(&mut self.held);
        self.gained.clear();
        self.leaving.clear();
        self.assigned.clear();
        self.told = false;
        self.member_id.clear();
        self.generation = NO_GENERATION;
        self.join();
        News::Expelled(reason, lost)
    }
}

/// Who says that a partition is its own.
struct Claim<'a> {
    /// The one of the newest generation; nobody if two say so of the same.
    owner: Option<&'a str>,
    generation: i32,
    claimants: Vec<&'a str>,
}

fn claims<'a>(subscriptions: &'a BTreeMap<&'a str, Subscription>) -> BTreeMap<&'a TopicPartition, Claim<'a>> {
    let mut claims: BTreeMap<&TopicPartition, Claim<'_>> = BTreeMap::new();
    for (member_id, subscription) in subscriptions {
        for partition in &subscription.owned {
            let claim = claims.entry(partition).or_insert(Claim {
                owner: Some(member_id),
                generation: subscription.generation,
                claimants: Vec::new(),
            });
            if !claim.claimants.is_empty() {
                if subscription.generation > claim.generation {
                    (claim.owner, claim.generation) = (Some(*member_id), subscription.generation);
                } else if subscription.generation == claim.generation {
                    claim.owner = None;
                }
            }
            claim.claimants.push(member_id);
        }
    }
    claims
}

fn reason_in(error: &GroupError) -> Option<LeaveReason> {
    match error {
        GroupError::UnknownMember { reason, .. } => *reason,
        _ => None,
    }
}
