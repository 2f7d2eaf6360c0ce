//! The group coordinator: who owns which partition of a consumer group, as a pure state machine.
//!
//! [`Group::apply`] takes an input and the time and returns effects; nothing here reads a clock, waits, or touches a
//! file. The shell around it ([`crate::Broker`]) carries the effects out.
//!
//! # What it is and is not
//!
//! The coordinator assigns partitions itself (as Kafka's consumer protocol of KIP-848 does) and moves them
//! cooperatively: a member keeps what it keeps without interruption, and hears only of partitions that it loses or
//! gains. It does not run assignors of clients (JoinGroup/SyncGroup).
//!
//! # Invariants
//!
//! * A partition has at most one owner. It becomes somebody's in the answer to that member's poll, and is somebody's
//!   until that member, having been told, polls again, or until it leaves or is expelled.
//! * A partition gets a new owner only when no commit of the one before is in flight, so the offset that the new owner
//!   starts from contains every commit that passed the fence.
//! * A commit passes ([`Group::decide_commit`]) only for a member at its present generation and for partitions it owns.
//! * With equal subscriptions, the members' shares differ by one partition at most once the group is stable.
//!
//! # A partition that moves
//!
//! ```text
//!  member A                    coordinator                      member B
//!                              ◄── Join ────────────────────────
//!   ◄─ Wake                    target of t/1: A → B, generation 2
//!   ── Poll ──►
//!   ◄─ Revoke t/1              (still A's: it may finish and commit)
//!   ── Poll ──►                free; from here A's commits of t/1 are refused
//!                              ── Wake ─────────────────────────►
//!                              ◄─ Poll ──────────────────────────
//!                              ── Assign t/1, generation 2 ─────►
//! ```
//!
//! # Failures
//!
//! A member that isn't heard of for its session timeout, or doesn't poll for its maximum poll interval, is expelled on
//! the next [`Input::Tick`]; its partitions are free at once, and its later commits are refused with the reason.

mod assignor;
mod protocol;
pub mod rebalance;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use farol_event::Timestamp;

use crate::partition::TopicPartition;
use assignor::Subscriber;
pub use protocol::{Effect, Fence, GroupState, Input, Join, MemberDescription};
use rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
use state::{Departed, Member, OpenRebalance, Ownership};

/// How many departed members a group remembers, to say why their commits are refused.
const MAX_DEPARTED: usize = 32;
/// How many causes one rebalance record lists.
const MAX_CAUSES: usize = 64;

/// One consumer group.
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    generation: i32,
    members: BTreeMap<String, Member>,
    partitions: BTreeMap<TopicPartition, Ownership>,
    open: Option<OpenRebalance>,
    departed: VecDeque<Departed>,
}

impl Group {
    /// A group without members.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            generation: 0,
            members: BTreeMap::new(),
            partitions: BTreeMap::new(),
            open: None,
            departed: VecDeque::new(),
        }
    }

    /// Takes one input at `now`, which never goes back.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Join(join) => self.join(join, now, &mut effects),
            Input::Leave { member_id } => self.remove(&[(member_id, LeaveReason::Left)], now, &mut effects),
            Input::Heartbeat { member_id } => match self.members.get_mut(&member_id) {
                Some(member) => member.last_heartbeat = now,
                None => effects.push(self.not_member(member_id)),
            },
            Input::Poll { member_id } => self.poll(member_id, now, &mut effects),
            Input::Tick => self.tick(now, &mut effects),
        }
        effects
    }

    /// The earliest time at which a [`Input::Tick`] may have something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.members.values().map(Member::deadline).min()
    }

    /// Decides a commit of offsets for `partitions`. If it passes, the partitions stay with nobody else until
    /// [`Group::finish_commit`] is called with the same partitions.
    ///
    /// # Errors
    /// The [`Fence`] that stopped it; then nothing has changed.
    pub fn decide_commit<'a>(
        &mut self,
        member_id: &str,
        generation: i32,
        partitions: impl Iterator<Item = &'a TopicPartition> + Clone,
    ) -> Result<(), Fence> {
        let group = || self.name.clone();
        let Some(member) = self.members.get(member_id) else {
            let reason = self.departure(member_id);
            return Err(Fence::NotMember { group: group(), member_id: member_id.to_owned(), reason });
        };
        if member.generation != generation {
            return Err(Fence::Generation {
                group: group(),
                member_id: member_id.to_owned(),
                given: generation,
                current: member.generation,
            });
        }
        if let Some(partition) = partitions.clone().find(|partition| {
            self.partitions.get(*partition).and_then(|place| place.owner.as_deref()) != Some(member_id)
        }) {
            return Err(Fence::NotOwner {
                group: group(),
                member_id: member_id.to_owned(),
                partition: partition.clone(),
            });
        }
        for partition in partitions {
            if let Some(place) = self.partitions.get_mut(partition) {
                place.commits_in_flight += 1;
            }
        }
        Ok(())
    }

    /// A commit that passed has been written, or has failed.
    pub fn finish_commit<'a>(&mut self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for partition in partitions {
            let Some(place) = self.partitions.get_mut(partition) else { continue };
            place.commits_in_flight = place.commits_in_flight.saturating_sub(1);
            if place.is_grantable()
                && let Some(member_id) = place.target.clone()
            {
                effects.push(Effect::Wake { member_id });
            }
            if place.is_forgotten() {
                self.partitions.remove(partition);
            }
        }
        effects
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its generation: rises whenever the assignment is worked out anew.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The generation that a member has reached; its commits must carry it.
    pub fn member_generation(&self, member_id: &str) -> Option<i32> {
        self.members.get(member_id).map(|member| member.generation)
    }

    /// Where it stands.
    pub fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.open.is_none() {
            GroupState::Stable
        } else if self.partitions.values().any(Ownership::is_leaving) {
            GroupState::PreparingRebalance
        } else {
            GroupState::CompletingRebalance
        }
    }

    /// Whether it has members.
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Its members, by name.
    pub fn members(&self) -> Vec<MemberDescription> {
        let mut members: Vec<_> = self
            .members
            .iter()
            .map(|(member_id, member)| MemberDescription {
                member_id: member_id.clone(),
                client_id: member.client_id.clone(),
                partitions: self.owned_by(member_id),
                joined_at: member.joined_at,
                last_heartbeat: member.last_heartbeat,
            })
            .collect();
        members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
        members
    }

    /// The member that owns a partition.
    pub fn owner(&self, partition: &TopicPartition) -> Option<&str> {
        self.partitions.get(partition)?.owner.as_deref()
    }

    fn join(&mut self, join: Join, now: Timestamp, effects: &mut Vec<Effect>) {
        let topics: BTreeMap<Arc<str>, i32> = join.topics.into_iter().collect();
        let cause = match self.members.get_mut(&join.member_id) {
            Some(member) => {
                member.last_heartbeat = now;
                if member.topics == topics {
                    return;
                }
                RebalanceCause::SubscriptionChanged
            }
            None => RebalanceCause::Joined {
                member_id: join.member_id.clone(),
                client_id: join.client_id.clone(),
            },
        };
        self.begin_rebalance(cause, now);
        let generation = self.generation;
        self.members
            .entry(join.member_id)
            .and_modify(|member| member.topics.clone_from(&topics))
            .or_insert_with(|| Member {
                client_id: join.client_id,
                topics,
                session_timeout: join.session_timeout,
                max_poll_interval: join.max_poll_interval,
                joined_at: now,
                last_heartbeat: now,
                last_poll: now,
                generation,
            });
        self.reassign(now, effects);
    }

    fn remove(&mut self, leaving: &[(String, LeaveReason)], now: Timestamp, effects: &mut Vec<Effect>) {
        let mut any = false;
        for (member_id, reason) in leaving {
            let Some(member) = self.members.get(member_id) else {
                effects.push(self.not_member(member_id.clone()));
                continue;
            };
            any = true;
            let client_id = member.client_id.clone();
            let cause = RebalanceCause::Left {
                member_id: member_id.clone(),
                client_id: client_id.clone(),
                reason: *reason,
            };
            // Before the member goes: the record's "before" still has it.
            self.begin_rebalance(cause, now);
            self.members.remove(member_id);
            for place in self.partitions.values_mut() {
                if place.owner.as_deref() == Some(member_id) {
                    place.release(now);
                }
            }
            if self.departed.len() == MAX_DEPARTED {
                self.departed.pop_front();
            }
            self.departed.push_back(Departed { member_id: member_id.clone(), reason: *reason });
            if *reason != LeaveReason::Left {
                effects.push(Effect::Expelled { member_id: member_id.clone(), client_id, reason: *reason });
            }
        }
        if any {
            self.reassign(now, effects);
        }
    }

    fn tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let expired: Vec<_> = self
            .members
            .iter()
            .filter_map(|(member_id, member)| member.expired(now).map(|reason| (member_id.clone(), reason)))
            .collect();
        if !expired.is_empty() {
            self.remove(&expired, now, effects);
        }
    }

    fn poll(&mut self, member_id: String, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&member_id) else {
            effects.push(self.not_member(member_id));
            return;
        };
        member.last_heartbeat = now;
        member.last_poll = now;
        // A stable group has nothing to tell, and every poll of every member comes through here.
        if self.open.is_none() {
            member.generation = self.generation;
            return;
        }
        self.release_told(&member_id, now, effects);

        let mut revoked = Vec::new();
        for (partition, place) in &mut self.partitions {
            if place.is_leaving() && place.owner.as_deref() == Some(&member_id) {
                place.revoke_told = true;
                revoked.push(partition.clone());
            }
        }
        if !revoked.is_empty() {
            effects.push(Effect::Revoke { member_id, partitions: revoked });
            return;
        }
        let generation = self.generation;
        if let Some(member) = self.members.get_mut(&member_id) {
            member.generation = generation;
        }
        let gained = self.grant(&member_id, now);
        if !gained.is_empty() {
            effects.push(Effect::Assign { member_id, partitions: gained, generation });
        }
        self.complete_rebalance(now, effects);
    }

    /// The poll after a `Revoke` acknowledges it: what was told is free now.
    fn release_told(&mut self, member_id: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut woken = BTreeSet::new();
        for place in self.partitions.values_mut() {
            if place.revoke_told && place.owner.as_deref() == Some(member_id) {
                place.release(now);
                if place.is_grantable()
                    && let Some(target) = place.target.clone()
                {
                    woken.insert(target);
                }
            }
        }
        self.partitions.retain(|_, place| !place.is_forgotten());
        effects.extend(
            woken.into_iter().filter(|woken| woken != member_id).map(|member_id| Effect::Wake { member_id }),
        );
    }

    /// Gives a member what is free and meant for it.
    fn grant(&mut self, member_id: &str, now: Timestamp) -> Vec<TopicPartition> {
        let mut gained = Vec::new();
        for (partition, place) in &mut self.partitions {
            if !place.is_grantable() || place.target.as_deref() != Some(member_id) {
                continue;
            }
            place.owner = Some(member_id.to_owned());
            if let (Some(since), Some(open)) = (place.free_since.take(), self.open.as_mut()) {
                open.paused.insert(partition.clone(), now.since(since));
            }
            gained.push(partition.clone());
        }
        gained
    }

    fn begin_rebalance(&mut self, cause: RebalanceCause, now: Timestamp) {
        let before = if self.open.is_none() { self.owned_by_client() } else { BTreeMap::new() };
        let open = self.open.get_or_insert_with(|| OpenRebalance {
            began_at: now,
            causes: Vec::new(),
            before,
            paused: BTreeMap::new(),
        });
        if open.causes.len() < MAX_CAUSES {
            open.causes.push(cause);
        }
    }

    /// Works out who is to own what, and wakes whoever has something to give or to get.
    fn reassign(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.generation = self.generation.saturating_add(1);
        let mut order: Vec<(&String, &Member)> = self.members.iter().collect();
        order.sort_by(|a, b| (&a.1.client_id, a.0).cmp(&(&b.1.client_id, b.0)));
        let subscribers: Vec<Subscriber<'_>> = order
            .iter()
            .map(|(member_id, member)| Subscriber { member_id, topics: &member.topics })
            .collect();
        let wanted = assignor::assign(&subscribers, |partition| {
            self.partitions
                .get(partition)
                .and_then(|place| place.owner.as_deref().or(place.target.as_deref()))
        });

        for place in self.partitions.values_mut() {
            place.target = None;
        }
        for (partition, member_id) in wanted {
            self.partitions.entry(partition).or_default().target = Some(member_id);
        }
        self.partitions.retain(|_, place| !place.is_forgotten());

        let mut woken = BTreeSet::new();
        for place in self.partitions.values() {
            if place.is_leaving() {
                woken.extend(place.owner.clone());
            } else if place.is_grantable() {
                woken.extend(place.target.clone());
            }
        }
        effects.extend(woken.into_iter().map(|member_id| Effect::Wake { member_id }));
        self.complete_rebalance(now, effects);
    }

    fn complete_rebalance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.partitions.values().any(|place| place.owner != place.target || place.revoke_told) {
            return;
        }
        if let Some(open) = self.open.take() {
            effects.push(Effect::Rebalanced(Box::new(RebalanceRecord {
                group: self.name.clone(),
                generation: self.generation,
                began_at: open.began_at,
                completed_at: now,
                causes: open.causes,
                before: open.before,
                after: self.owned_by_client(),
                paused: open.paused,
            })));
        }
    }

    fn owned_by(&self, member_id: &str) -> Vec<TopicPartition> {
        self.partitions
            .iter()
            .filter(|(_, place)| place.owner.as_deref() == Some(member_id))
            .map(|(partition, _)| partition.clone())
            .collect()
    }

    fn owned_by_client(&self) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut owned: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
        for (member_id, member) in &self.members {
            owned.entry(member.client_id.clone()).or_default().extend(self.owned_by(member_id));
        }
        owned
    }

    fn departure(&self, member_id: &str) -> Option<LeaveReason> {
        self.departed
            .iter()
            .rev()
            .find(|departed| departed.member_id == member_id)
            .map(|departed| departed.reason)
    }

    fn not_member(&self, member_id: String) -> Effect {
        let reason = self.departure(&member_id);
        Effect::NotMember { member_id, reason }
    }
}
