//! Joining: who may, the barrier that brings everybody together, and the generation that begins when it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farol_event::Timestamp;

use super::member::Member;
use super::protocol::{Answer, Effect, GroupError, GroupState, Join, Joined, JoinedMember, Protocol, Ticket};
use super::rebalance::{LeaveReason, RebalanceCause};
use super::subscription::Subscription;
use super::{CONSUMER_PROTOCOL, Group};

/// After a restart of the broker, members that are back within this time had been members before.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// While only static members are there that are away, who comes back waits for the others at least this long, whatever they allow:
/// with nothing at all to wait for, the group would be looked at all the time.
const MIN_ABSENCE: Duration = Duration::from_millis(100);

impl Group {
    pub(super) fn join(&mut self, mut join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        let ticket = join.ticket;
        let refuse = |error| Effect::Answer { ticket, answer: Answer::Join(Err(error)) };
        if let Err(error) = self.check_joining(&join) {
            effects.push(refuse(error));
            return;
        }
        if !join.member.member_id.is_empty() {
            self.join_known(join, now, effects);
            return;
        }
        join.member.member_id.clone_from(&join.new_member_id);
        let instance =
            join.member.instance_id.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        match instance {
            Some(older) => self.replace_instance(&older, join, now, effects),
            None if join.require_member_id && join.member.instance_id.is_none() => {
                let member_id = join.new_member_id;
                self.promised.insert(member_id.clone(), now.saturating_add(join.session_timeout));
                effects.push(refuse(GroupError::MemberIdRequired { group: self.name.clone(), member_id }));
            }
            None => self.add(join, now, effects),
        }
    }

    fn check_joining(&self, join: &Join) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Dead { group: self.name.clone() });
        }
        let member_id = &join.member.member_id;
        let is_known = self.members.contains_key(member_id) || self.promised.contains_key(member_id);
        if !member_id.is_empty() {
            if let Some(instance_id) = &join.member.instance_id {
                match self.instances.get(instance_id) {
                    None => return Err(self.unknown(member_id)),
                    Some(current) if current != member_id => return Err(self.fenced(instance_id)),
                    Some(_) => {}
                }
            }
            if !is_known {
                return Err(self.unknown(member_id));
            }
        }
        let replaces =
            join.member.instance_id.as_ref().is_some_and(|instance| self.instances.contains_key(instance));
        let limit = self.limits.max_members;
        if !is_known && !replaces && self.members.len().saturating_add(self.promised.len()) >= limit {
            return Err(GroupError::GroupFull { group: self.name.clone(), limit });
        }
        self.check_protocols(join)
    }

    /// Everybody must have an assignor in common.
    fn check_protocols(&self, join: &Join) -> Result<(), GroupError> {
        let fits = if self.members.is_empty() {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            let shared = self.shared_protocols(Some(&join.member.member_id));
            self.protocol_type.as_deref() == Some(&join.protocol_type)
                && join.protocols.iter().any(|protocol| {
                    shared.as_ref().is_none_or(|shared| shared.contains(protocol.name.as_str()))
                })
        };
        if fits {
            return Ok(());
        }
        Err(GroupError::InconsistentProtocol {
            group: self.name.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocols: self
                .shared_protocols(None)
                .unwrap_or_default()
                .into_iter()
                .map(str::to_owned)
                .collect(),
        })
    }

    /// The assignors that every member knows, leaving one member aside; `None` if there is no other.
    fn shared_protocols(&self, aside: Option<&str>) -> Option<BTreeSet<&str>> {
        let mut others =
            self.members.iter().filter(|(id, _)| aside != Some(id.as_str())).map(|(_, member)| member);
        let first = others.next()?;
        let mut shared: BTreeSet<&str> =
            first.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        for other in others {
            shared.retain(|protocol| other.knows(protocol));
        }
        Some(shared)
    }

    fn join_known(&mut self, join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.promised.remove(&join.member.member_id).is_some() {
            self.add(join, now, effects);
            return;
        }
        let Some(member) = self.members.get(&join.member.member_id) else { return };
        let says_the_same = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(join.member.member_id.as_str());
        match self.state {
            // It didn't get the answer to its last join.
            GroupState::CompletingRebalance if says_the_same => {
                self.update(join, now, effects);
            }
            GroupState::Stable if says_the_same && !is_leader => {
                self.update(join, now, effects);
            }
            _ => {
                let cause = self.cause_of_rejoin(&join);
                // Before it gives anything up: the record's "before" still has that.
                self.record_cause(cause, now);
                self.keep_claimed(&join, now);
                let member_id = join.member.member_id.clone();
                self.take_over(join, effects, now);
                self.unsynced.remove(&member_id);
                self.prepare(None, Duration::ZERO, now, effects);
                self.complete_if_all_joined(now, effects);
            }
        }
    }

    /// Answers a member that joins a generation that stands.
    fn update(&mut self, join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        let member_id = join.member.member_id.clone();
        self.take_over(join, effects, now);
        self.answer_join(&member_id, false, now, effects);
    }

    fn take_over(&mut self, join: Join, effects: &mut Vec<Effect>, now: Timestamp) {
        let error = self.rebalancing();
        let Some(member) = self.members.get_mut(&join.member.member_id) else { return };
        // A join that was sent again: nobody reads the answer to the first.
        let replaced = member.update(join, now).map(|ticket| (ticket, Answer::Join(Err(error.clone()))));
        let sync = member.syncing.take().map(|ticket| (ticket, Answer::Sync(Err(error))));
        effects.extend(
            replaced.into_iter().chain(sync).map(|(ticket, answer)| Effect::Answer { ticket, answer }),
        );
    }

    /// What a member makes known to have caused that it joins again; nothing if that only carries an open rebalance on.
    fn cause_of_rejoin(&self, join: &Join) -> Option<RebalanceCause> {
        let member = self.members.get(&join.member.member_id)?;
        let topics = self.legible(join).map(|subscription| subscription.topics);
        let same_topics = topics.is_none_or(|topics| topics == member.topics);
        (self.open.is_none() || !same_topics).then_some(RebalanceCause::SubscriptionChanged)
    }

    /// A consumer that joins again has given up whatever it doesn't claim.
    fn keep_claimed(&mut self, join: &Join, now: Timestamp) {
        let claimed = self.legible(join).map(|subscription| subscription.owned);
        self.ownership.keep(&join.member.member_id, &claimed.unwrap_or_default(), now);
    }

    /// What a consumer tells its assignors: of the one in force, if it knows it, or of the first that is legible.
    fn legible(&self, join: &Join) -> Option<Subscription> {
        if join.protocol_type != CONSUMER_PROTOCOL {
            return None;
        }
        let in_force = join.protocols.iter().filter(|known| self.protocol.as_ref() == Some(&known.name));
        in_force.chain(&join.protocols).find_map(|known| Subscription::decode(&known.metadata))
    }

    fn add(&mut self, join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        let member_id = join.member.member_id.clone();
        let cause =
            RebalanceCause::Joined { member_id: member_id.clone(), client_id: join.client_id.clone() };
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
            // A group that was away for longer than its members ever are was not paused, but not used.
            self.ownership.forget_given_up_before(now.saturating_sub(RETURN_LIMIT));
        }
        if let Some(instance_id) = &join.member.instance_id {
            self.instances.insert(instance_id.clone(), member_id.clone());
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.newcomer = true;
        }
        let initial_delay = join.initial_delay;
        // Before the member is there: the record's "before" is without it.
        self.record_cause(Some(cause), now);
        let member = Member::new(join, self.next_order, now);
        self.next_order = self.next_order.saturating_add(1);
        self.leader.get_or_insert_with(|| member_id.clone());
        self.members.insert(member_id, member);
        self.prepare(None, initial_delay, now, effects);
        self.complete_if_all_joined(now, effects);
    }

    /// A static member came back without its id: its older instance is fenced, and nothing else changes if it says the same
    /// as before and the group stands.
    fn replace_instance(&mut self, older: &str, join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(instance_id) = join.member.instance_id.clone() else { return };
        let Some(mut member) = self.members.remove(older) else { return };
        let fenced = self.fenced(&instance_id);
        if let Some(ticket) = member.joining.take() {
            effects.push(Effect::Answer { ticket, answer: Answer::Join(Err(fenced.clone())) });
        }
        if let Some(ticket) = member.syncing.take() {
            effects.push(Effect::Answer { ticket, answer: Answer::Sync(Err(fenced)) });
        }
        let member_id = join.member.member_id.clone();
        self.instances.insert(instance_id, member_id.clone());
        let led = self.leader.as_deref() == Some(older);
        if led {
            self.leader = Some(member_id.clone());
        }
        if self.unsynced.remove(older) {
            self.unsynced.insert(member_id.clone());
        }
        self.ownership.rename(older, &member_id);
        let protocol = self.protocol.clone().unwrap_or_default();
        let unchanged = member.metadata(&protocol) == metadata_of(&join.protocols, &protocol)
            && join.protocols.iter().any(|known| known.name == protocol);
        let cause =
            RebalanceCause::Joined { member_id: member_id.clone(), client_id: join.client_id.clone() };
        let skips = join.skips_assignment;
        member.update(join, now);
        self.members.insert(member_id.clone(), member);
        if self.state == GroupState::Stable && unchanged && self.chosen_protocol() == self.protocol {
            if led && !skips {
                // It must not take itself for the leader, or it would assign.
                let older = older.to_owned();
                self.answer_join_as(&member_id, older, false, now, effects);
            } else {
                self.answer_join(&member_id, led, now, effects);
            }
            return;
        }
        self.prepare(Some(cause), Duration::ZERO, now, effects);
        self.complete_if_all_joined(now, effects);
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let all_joined =
            self.promised.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if self.state == GroupState::PreparingRebalance
            && (self.members.is_empty() || (all_joined && self.gathering.is_none()))
        {
            self.begin_generation(now, effects);
        }
    }

    /// The time for joining is up.
    pub(super) fn end_joining(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(gathering) = &mut self.gathering {
            let left = gathering.until.since(now);
            if gathering.newcomer && !left.is_zero() {
                gathering.newcomer = false;
                self.join_deadline = Some(now.saturating_add(gathering.delay.min(left)));
                return;
            }
        }
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(member_id, _)| member_id.clone())
            .collect();
        for member_id in late {
            self.remove(&member_id, LeaveReason::RebalanceTimeout, now, effects);
        }
        self.begin_generation(now, effects);
    }

    /// The barrier opens: whoever has joined is told the generation and, the leader, whom to assign.
    fn begin_generation(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.gathering = None;
        if !self.members.is_empty() && !self.elect() {
            // Only static members that are away. They have until their sessions are over.
            self.join_deadline = Some(now.saturating_add(self.rebalance_timeout().max(MIN_ABSENCE)));
            return;
        }
        self.join_deadline = None;
        self.generation = if self.generation == i32::MAX { 1 } else { self.generation + 1 };
        if self.members.is_empty() {
            self.become_empty(now, effects);
            return;
        }
        self.protocol = self.chosen_protocol();
        self.state = GroupState::CompletingRebalance;
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline = Some(now.saturating_add(self.rebalance_timeout()));
        let joined: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_some())
            .map(|(member_id, _)| member_id.clone())
            .collect();
        for member_id in joined {
            self.answer_join(&member_id, false, now, effects);
        }
    }

    fn become_empty(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.empty_since = Some(now);
        self.ownership.clear();
        self.close_rebalance(now, effects);
    }

    /// Whether there is a leader that has joined. The one that there was stays if it has.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let first = self
                .members
                .iter()
                .filter(|(_, member)| member.joining.is_some())
                .min_by_key(|(_, member)| member.order)
                .map(|(member_id, _)| member_id.clone());
            let Some(first) = first else { return false };
            self.leader = Some(first);
        }
        true
    }

    /// The assignor with most votes: each member gives its to the first of its own that all know. With as many votes, the
    /// one that the member prefers which came first.
    fn chosen_protocol(&self) -> Option<String> {
        let shared = self.shared_protocols(None)?;
        let mut voters: Vec<&Member> = self.members.values().collect();
        voters.sort_by_key(|member| member.order);
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &voters {
            let vote =
                member.protocols.iter().map(|known| known.name.as_str()).find(|name| shared.contains(name));
            *votes.entry(vote?).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let preferred = &voters.first()?.protocols;
        preferred
            .iter()
            .map(|known| known.name.as_str())
            .find(|name| votes.get(name) == Some(&most))
            .or_else(|| votes.iter().find(|(_, count)| **count == most).map(|(name, _)| *name))
            .map(str::to_owned)
    }

    fn answer_join(
        &mut self,
        member_id: &str,
        skip_assignment: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let leader = self.leader.clone().unwrap_or_default();
        self.answer_join_as(member_id, leader, skip_assignment, now, effects);
    }

    fn answer_join_as(
        &mut self,
        member_id: &str,
        leader: String,
        skip_assignment: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if leader == member_id { self.joined_members(&protocol) } else { Vec::new() };
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.is_new = false;
        member.last_heard = now;
        let Some(ticket) = member.joining.take() else { return };
        let joined = Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader,
            skip_assignment,
            members,
        };
        effects.push(Effect::Answer { ticket, answer: Answer::Join(Ok(joined)) });
    }

    fn joined_members(&self, protocol: &str) -> Vec<JoinedMember> {
        self.members
            .iter()
            .map(|(member_id, member)| JoinedMember {
                member_id: member_id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// Nobody waits for an answer any more: its connection is gone.
    pub(super) fn abandon(&mut self, ticket: Ticket, now: Timestamp, effects: &mut Vec<Effect>) {
        let waiting = self
            .members
            .iter_mut()
            .find(|(_, member)| member.joining == Some(ticket) || member.syncing == Some(ticket));
        let Some((member_id, member)) = waiting else { return };
        member.last_heard = now;
        if member.syncing.take_if(|syncing| *syncing == ticket).is_some() {
            return;
        }
        member.joining = None;
        // It was never told its id, so it can't come back; a static one comes back by its name.
        if member.is_new && member.instance_id.is_none() {
            let member_id = member_id.clone();
            self.remove(&member_id, LeaveReason::Left, now, effects);
            self.rebalance_without_removed(now, effects);
        }
    }
}

fn metadata_of(protocols: &[Protocol], name: &str) -> bytes::Bytes {
    protocols.iter().find(|known| known.name == name).map(|known| known.metadata.clone()).unwrap_or_default()
}
