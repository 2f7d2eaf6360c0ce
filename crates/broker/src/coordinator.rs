//! The group coordinator: who is in a group, at which generation, with which assignment, as a pure state machine that
//! speaks Kafka's classic group protocol.
//!
//! [`Group::apply`] takes an input and the time and returns effects; nothing here reads a clock, waits, makes up ids, or
//! touches a file. The same inputs at the same times lead to the same group. The shell around it ([`crate::Broker`])
//! parks requests until their answers come out and carries the other effects out.
//!
//! # What it is and is not
//!
//! It brings members together and hands on what they tell each other; assigning is done by one of them, the leader.
//! What members tell is opaque here, with one exception: of groups of consumers, subscriptions and assignments are read
//! ([`subscription`]), to tell people what moved and for how long it stood still ([`rebalance`]), and to fence commits
//! partition by partition. Nothing that is read there decides about membership.
//!
//! [`client`] is the other end: a member, as a pure state machine too, for consumers inside this process.
//!
//! # States
//!
//! ```text
//!            first join                 everybody has joined,          the leader's
//!  ┌───────┐ (waits the initial  ┌───────────┐ or time is up   ┌────────────┐ assignment  ┌────────┐
//!  │ Empty │ delay for more)     │ Preparing │ generation + 1  │ Completing │ is here     │ Stable │
//!  └───────┘ ──────────────────► │ Rebalance │ ──────────────► │ Rebalance  │ ──────────► └────────┘
//!      ▲                         └───────────┘                 └────────────┘                  │
//!      │       nobody is left       │   ▲      a member joins, leaves, is expelled or says     │
//!      └────────────────────────────┘   └──────────── something else than before ──────────────┘
//! ```
//!
//! # Invariants
//!
//! * A request that waits is answered: by the end of the barrier that it waits for, by its member's removal, or when the
//!   barrier's time is up. Every barrier has a deadline ([`Group::next_deadline`]): joining, the longest rebalance timeout
//!   of the members (or the initial delay); assigning, the same again.
//! * Members that have not joined by then are removed, except static ones, which stay until their session is over.
//! * In a generation, each member has one assignment, and it was made by the leader of that generation.
//! * A commit passes ([`Group::decide_commit`]) only for a member at the present generation or, for members that have their
//!   commits checked by partition ([`CommitCheck::Ownership`]), for partitions held without a break since the generation
//!   that the commit names. So does nobody's commit for a group without members.
//! * A group's members, what they tell, and what it remembers of those that left are bounded ([`GroupLimits`]).
//!
//! # Failures
//!
//! A member that isn't heard of for its session timeout is expelled on the next [`Input::Tick`]. One whose connection breaks
//! while it waits ([`Input::Abandon`]) holds the others up until its session timeout at most, or not at all if it had not
//! been told its id yet. A leader that never assigns is expelled when the time for assigning is up.

mod assignor;
pub mod client;
mod commit;
mod join;
mod leave;
mod member;
mod ownership;
mod protocol;
pub mod rebalance;
#[cfg(test)]
mod simulation;
pub mod subscription;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;

pub use commit::{CommitCheck, Committer};
pub use member::MemberDescription;
use member::{Departed, Member};
use ownership::Ownership;
pub use protocol::{
    Answer, CONSUMER_PROTOCOL, Effect, GroupError, GroupState, Input, Join, Joined, JoinedMember, Leaving,
    MISSED_POLLS, MemberRef, Protocol, Sync, Synced, Ticket,
};
use rebalance::{OpenRebalance, RebalanceCause};
pub use sync::Reader;

use crate::partition::TopicPartition;

/// How many departed members a group remembers, to say why their commits are refused.
const MAX_DEPARTED: usize = 32;

/// Bounds of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Members, counting those that were given an id and have not come back with it.
    pub max_members: usize,
}

/// One consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    name: String,
    limits: GroupLimits,
    state: GroupState,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Static names and the member that has each.
    instances: BTreeMap<String, String>,
    /// Ids given to members that have not joined with them yet, and until when they may.
    promised: BTreeMap<String, Timestamp>,
    /// While preparing: when who has not joined is removed.
    join_deadline: Option<Timestamp>,
    /// While the first generation waits for more members than the first.
    gathering: Option<Gathering>,
    /// Members that have not asked for this generation's assignment yet.
    unsynced: BTreeSet<String>,
    /// When those are removed.
    sync_deadline: Option<Timestamp>,
    next_order: u64,
    ownership: Ownership,
    open: Option<OpenRebalance>,
    departed: VecDeque<Departed>,
    /// Since when there have been no members.
    empty_since: Option<Timestamp>,
}

/// The initial delay of a group that was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gathering {
    delay: Duration,
    /// Not extended beyond this.
    until: Timestamp,
    /// Somebody has joined since the last time that it was extended.
    newcomer: bool,
}

impl Group {
    /// A group without members.
    pub fn new(name: impl Into<String>, limits: GroupLimits, now: Timestamp) -> Self {
        Self {
            name: name.into(),
            limits,
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            join_deadline: None,
            gathering: None,
            unsynced: BTreeSet::new(),
            sync_deadline: None,
            next_order: 0,
            ownership: Ownership::default(),
            open: None,
            departed: VecDeque::new(),
            empty_since: Some(now),
        }
    }

    /// Somebody read these partitions until the broker was stopped, which was at `stopped_at` or later: whoever comes back soon goes on
    /// after a pause from then on.
    pub fn resume_from(
        &mut self,
        partitions: impl Iterator<Item = TopicPartition>,
        stopped_at: Timestamp,
        now: Timestamp,
    ) {
        self.ownership.resume_from(partitions, stopped_at, now);
    }

    /// Takes one input at `now`, which never goes back.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Join(join) => self.join(join, now, &mut effects),
            Input::Sync(sync) => self.sync(sync, now, &mut effects),
            Input::Heartbeat { ticket, member, generation } => {
                let answer = self.heartbeat(&member, generation, now);
                effects.push(Effect::Answer { ticket, answer: Answer::Heartbeat(answer) });
            }
            Input::Leave { ticket, leaving } => self.leave(ticket, &leaving, now, &mut effects),
            Input::Abandon { ticket } => self.abandon(ticket, now, &mut effects),
            Input::Tick => self.tick(now, &mut effects),
        }
        effects
    }

    /// The earliest time at which an [`Input::Tick`] may have something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.members
            .values()
            .filter_map(Member::deadline)
            .chain(self.promised.values().copied())
            .chain(self.join_deadline)
            .chain(self.sync_deadline)
            .chain(self.open.as_ref().and_then(|open| open.closes_at))
            .min()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its generation; rises whenever its members have come together anew.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Where it stands.
    pub fn state(&self) -> GroupState {
        self.state
    }

    /// What kind of group it is; `None` before the first member.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The assignor in force.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Whether it has members.
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether somebody is a member.
    pub fn has_member(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    /// Whether nothing would be lost with it: no member, and nobody who is to become one.
    pub fn is_unused(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// Since when it has had no members; `None` if it has some.
    pub fn empty_since(&self) -> Option<Timestamp> {
        self.empty_since
    }

    /// Bytes of what its members told.
    pub fn held_bytes(&self) -> usize {
        self.members.values().fold(0, |sum, member| sum.saturating_add(member.held_bytes()))
    }

    /// Bytes of what it keeps that would go if it got an input, because something else comes instead.
    pub fn replaced_bytes(&self, input: &Input) -> usize {
        match input {
            Input::Join(join) => {
                let member = self.members.get(&join.member.member_id);
                member.map_or(0, |member| member.held_bytes().saturating_sub(member.assignment.len()))
            }
            Input::Sync(sync) if !sync.assignments.is_empty() => {
                self.members.values().fold(0, |sum, member| sum.saturating_add(member.assignment.len()))
            }
            _ => 0,
        }
    }

    /// Whether a member that is a consumer reads a topic. Of other groups this isn't known.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.is_of_consumers() && self.members.values().any(|member| member.topics.contains(topic))
    }

    /// Whether its members are consumers, whose subscriptions can be read.
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL)
    }

    /// Its members, by name.
    pub fn members(&self) -> Vec<MemberDescription> {
        let mut members: Vec<_> = self
            .members
            .iter()
            .map(|(member_id, member)| MemberDescription {
                member_id: member_id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata: self
                    .protocol
                    .as_deref()
                    .map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
                assignment: member.assignment.clone(),
                partitions: self.ownership.of(member_id).cloned().collect(),
                joined_at: member.joined_at,
                last_heartbeat: member.last_heard,
            })
            .collect();
        members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
        members
    }

    fn tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.expire(now, effects);
        if self.join_deadline.is_some_and(|deadline| deadline <= now) {
            self.end_joining(now, effects);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.end_syncing(now, effects);
        }
        if self.open.as_ref().and_then(|open| open.closes_at).is_some_and(|at| at <= now) {
            self.close_rebalance(now, effects);
        }
    }

    /// Begins a rebalance, or adds to the one that is open. `cause` is none for what an open one makes members do.
    fn prepare(
        &mut self,
        cause: Option<RebalanceCause>,
        initial_delay: Duration,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.record_cause(cause, now);
        if self.state == GroupState::PreparingRebalance {
            return;
        }
        if self.state == GroupState::CompletingRebalance {
            self.refuse_syncs(now, effects);
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        let rebalance_timeout = self.rebalance_timeout();
        let whole = now.saturating_add(rebalance_timeout);
        if self.state == GroupState::Empty && !initial_delay.is_zero() {
            self.gathering = Some(Gathering { delay: initial_delay, until: whole, newcomer: false });
            self.join_deadline = Some(now.saturating_add(initial_delay.min(rebalance_timeout)));
        } else {
            self.join_deadline = Some(whole);
        }
        self.state = GroupState::PreparingRebalance;
        self.empty_since = None;
        let absent = self.members.iter().filter(|(_, member)| member.joining.is_none());
        effects.extend(absent.map(|(member_id, _)| Effect::Wake { member_id: member_id.clone() }));
    }

    /// The longest that any member wants others to wait.
    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn record_cause(&mut self, cause: Option<RebalanceCause>, now: Timestamp) {
        if self.open.is_none() {
            let before = self.owned_by_client();
            self.open = Some(OpenRebalance::new(before, now));
        }
        if let Some(open) = &mut self.open {
            open.closes_at = None;
            open.add_cause(cause);
        }
    }

    /// The longest that a member may be silent.
    fn session_timeout(&self) -> Duration {
        self.members.values().map(|member| member.session_timeout).max().unwrap_or_default()
    }

    fn close_rebalance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let after = self.owned_by_client();
        if let Some(mut open) = self.open.take() {
            let unnoticed = self.ownership.end_standing(open.assigned_at);
            let completed_at = if unnoticed.is_empty() { now } else { open.moved_at };
            for (partition, paused) in unnoticed {
                open.pauses(partition, paused);
            }
            let record = open.close(&self.name, self.generation, after, completed_at);
            effects.push(Effect::Rebalanced(Box::new(record)));
        }
    }

    fn owned_by_client(&self) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut owned: BTreeMap<String, Vec<TopicPartition>> =
            self.members.values().map(|member| (member.client_id.clone(), Vec::new())).collect();
        for (partition, member_id) in self.ownership.owned() {
            if let Some(partitions) =
                self.members.get(member_id).and_then(|member| owned.get_mut(&member.client_id))
            {
                partitions.push(partition.clone());
            }
        }
        owned
    }

    /// The member that a request names, if it is one.
    fn check_member(&self, member: &MemberRef) -> Result<(), GroupError> {
        if let Some(instance_id) = &member.instance_id {
            return match self.instances.get(instance_id) {
                None => Err(self.unknown(&member.member_id)),
                Some(current) if *current != member.member_id => Err(self.fenced(instance_id)),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(&member.member_id) {
            Ok(())
        } else {
            Err(self.unknown(&member.member_id))
        }
    }

    fn check_generation(&self, member_id: &str, given: i32) -> Result<(), GroupError> {
        if given == self.generation {
            return Ok(());
        }
        Err(GroupError::IllegalGeneration {
            group: self.name.clone(),
            member_id: member_id.to_owned(),
            given,
            current: self.generation,
        })
    }

    fn unknown(&self, member_id: &str) -> GroupError {
        let reason = self
            .departed
            .iter()
            .rev()
            .find(|departed| departed.member_id == member_id)
            .map(|departed| departed.reason);
        GroupError::UnknownMember { group: self.name.clone(), member_id: member_id.to_owned(), reason }
    }

    fn fenced(&self, instance_id: &str) -> GroupError {
        GroupError::FencedInstance { group: self.name.clone(), instance_id: instance_id.to_owned() }
    }

    fn rebalancing(&self) -> GroupError {
        GroupError::RebalanceInProgress { group: self.name.clone() }
    }
}
