//! Syncing: the leader's assignment, handed to everybody; and heartbeats.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farol_event::Timestamp;

use super::Group;
use super::member::Member;
use super::protocol::{Answer, Effect, GroupError, GroupState, MemberRef, Sync, Synced};
use super::rebalance::LeaveReason;
use super::subscription::decode_assignment;
use crate::partition::TopicPartition;

/// Who reads, as far as a request tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// The member of this id.
    Member(&'a str),
    /// Somebody who calls itself so, as members do (Kafka's client id).
    Client(&'a str),
}

impl Reader<'_> {
    fn is(self, member_id: &str, members: &BTreeMap<String, Member>) -> bool {
        match self {
            Reader::Member(id) => id == member_id,
            Reader::Client(name) => members.get(member_id).is_some_and(|member| member.client_id == name),
        }
    }
}

impl Group {
    pub(super) fn sync(&mut self, sync: Sync, now: Timestamp, effects: &mut Vec<Effect>) {
        let ticket = sync.ticket;
        if let Err(error) = self.check_sync(&sync) {
            effects.push(Effect::Answer { ticket, answer: Answer::Sync(Err(error)) });
            return;
        }
        let member_id = sync.member.member_id;
        let error = self.rebalancing();
        let Some(member) = self.members.get_mut(&member_id) else { return };
        member.last_heard = now;
        // A sync that was sent again: nobody reads the answer to the first.
        if let Some(ticket) = member.syncing.replace(ticket) {
            effects.push(Effect::Answer { ticket, answer: Answer::Sync(Err(error)) });
        }
        self.unsynced.remove(&member_id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
        if self.state == GroupState::Stable {
            self.answer_sync(&member_id, now, effects);
        } else if self.leader.as_deref() == Some(&member_id) {
            self.take_assignments(sync.assignments, now, effects);
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_member(&sync.member)?;
        self.check_generation(&sync.member.member_id, sync.generation)?;
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol {
                group: self.name.clone(),
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                protocols: self.protocol.clone().into_iter().collect(),
            });
        }
        match self.state {
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            _ => Err(self.rebalancing()),
        }
    }

    fn take_assignments(
        &mut self,
        assignments: Vec<(String, Bytes)>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (member_id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&member_id) {
                member.assignment = assignment;
            }
        }
        self.state = GroupState::Stable;
        self.follow_assignment(now, effects);
        let waiting: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.syncing.is_some())
            .map(|(member_id, _)| member_id.clone())
            .collect();
        for member_id in waiting {
            self.answer_sync(&member_id, now, effects);
        }
    }

    /// Notes who has what now, and closes the rebalance's record unless a partition has yet to be given up for somebody
    /// else to have it, or stands still until its new owner goes on with it.
    fn follow_assignment(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut assigned: BTreeMap<String, BTreeSet<TopicPartition>> = BTreeMap::new();
        if self.is_of_consumers() {
            for (member_id, member) in &self.members {
                assigned.insert(member_id.clone(), decode_assignment(&member.assignment).unwrap_or_default());
            }
        }
        self.ownership.assign(self.generation, &assigned, now);
        let members = &self.members;
        self.ownership.forget_unwanted(|partition| {
            members.values().any(|member| member.topics.contains(&partition.topic))
        });
        let must_give_up = self.ownership.owned().any(|(partition, owner)| {
            assigned.get(owner).is_some_and(|partitions| !partitions.contains(partition))
                && members.values().any(|member| member.topics.contains(&partition.topic))
        });
        let limit = if must_give_up { self.rebalance_timeout() } else { self.session_timeout() };
        if let Some(open) = &mut self.open {
            (open.assigned_at, open.moved_at, open.gives_up) = (now, now, must_give_up);
            if must_give_up || self.ownership.any_stands() {
                open.closes_at = Some(now.saturating_add(limit));
                return;
            }
        }
        self.close_rebalance(now, effects);
    }

    /// Somebody goes on with partitions: polls with them, was told from where to read them, or commits. The pause of those that it owns
    /// is over.
    pub fn goes_on<'a>(
        &mut self,
        reader: Reader<'_>,
        partitions: impl Iterator<Item = &'a TopicPartition>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(open) = &mut self.open else { return effects };
        for partition in partitions {
            let owner = self.ownership.owner_of_standing(partition);
            if owner.is_none_or(|owner| !reader.is(owner, &self.members)) {
                continue;
            }
            if let Some(paused) = self.ownership.goes_on(partition, now) {
                open.pauses(partition.clone(), paused);
                open.moved_at = now;
            }
        }
        if open.closes_at.is_some() && !open.gives_up && !self.ownership.any_stands() {
            self.close_rebalance(now, &mut effects);
        }
        effects
    }

    /// Somebody has yet to go on with partitions: is told to wait for offsets, or takes them over. Their pauses go on for as long.
    pub fn waits<'a>(
        &mut self,
        reader: Reader<'_>,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
        now: Timestamp,
    ) {
        let until = now.saturating_add(self.session_timeout());
        let Some(closes_at) = self.open.as_mut().and_then(|open| open.closes_at.as_mut()) else { return };
        let stands = |partition| {
            let owner = self.ownership.owner_of_standing(partition);
            owner.is_some_and(|owner| reader.is(owner, &self.members))
        };
        if partitions.any(stands) {
            *closes_at = until.max(*closes_at);
        }
    }

    fn answer_sync(&mut self, member_id: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.last_heard = now;
        let Some(ticket) = member.syncing.take() else { return };
        let synced = Synced {
            protocol_type: protocol_type.unwrap_or_default(),
            protocol: protocol.unwrap_or_default(),
            assignment: member.assignment.clone(),
        };
        effects.push(Effect::Answer { ticket, answer: Answer::Sync(Ok(synced)) });
    }

    /// A rebalance begins before the leader has assigned.
    pub(super) fn refuse_syncs(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let error = self.rebalancing();
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                member.last_heard = now;
                effects.push(Effect::Answer { ticket, answer: Answer::Sync(Err(error.clone())) });
            }
        }
    }

    /// The time for syncing is up: who has not is removed, and the others come together anew.
    pub(super) fn end_syncing(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.sync_deadline = None;
        let late: Vec<String> = std::mem::take(&mut self.unsynced).into_iter().collect();
        for member_id in &late {
            self.remove(member_id, LeaveReason::RebalanceTimeout, now, effects);
        }
        if !late.is_empty() {
            self.rebalance_without_removed(now, effects);
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        member: &MemberRef,
        generation: i32,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_member(member)?;
        self.check_generation(&member.member_id, generation)?;
        if let Some(member) = self.members.get_mut(&member.member_id) {
            member.last_heard = now;
        }
        match self.state {
            GroupState::PreparingRebalance => Err(self.rebalancing()),
            _ => Ok(()),
        }
    }

    fn check_alive(&self) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Dead { group: self.name.clone() });
        }
        Ok(())
    }
}
