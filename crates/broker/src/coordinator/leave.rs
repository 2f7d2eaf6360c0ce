//! Leaving: by word, by silence, by taking no part; and the end of a group.

use std::time::Duration;

use farol_event::Timestamp;

use super::member::Departed;
use super::protocol::{Answer, Effect, GroupError, GroupState, Leaving, Ticket};
use super::rebalance::{LeaveReason, RebalanceCause};
use super::{Group, MAX_DEPARTED};

impl Group {
    pub(super) fn leave(
        &mut self,
        ticket: Ticket,
        leaving: &[Leaving],
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let mut answers = Vec::with_capacity(leaving.len());
        let mut any = false;
        for one in leaving {
            let answer = self.who_leaves(one).map(|member_id| {
                if self.promised.remove(&member_id).is_none() {
                    self.remove(&member_id, one.leave_reason(), now, effects);
                    any = true;
                }
            });
            answers.push(answer);
        }
        effects.push(Effect::Answer { ticket, answer: Answer::Leave(answers) });
        if any {
            self.rebalance_without_removed(now, effects);
        } else {
            self.complete_if_all_joined(now, effects);
        }
    }

    /// The id of a member that leaves. An administrator names a static one by its static name alone.
    fn who_leaves(&self, leaving: &Leaving) -> Result<String, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Dead { group: self.name.clone() });
        }
        let member = &leaving.member;
        if let Some(instance_id) = &member.instance_id {
            return match self.instances.get(instance_id) {
                None => Err(self.unknown(&member.member_id)),
                Some(current) if !member.member_id.is_empty() && *current != member.member_id => {
                    Err(self.fenced(instance_id))
                }
                Some(current) => Ok(current.clone()),
            };
        }
        if self.members.contains_key(&member.member_id) || self.promised.contains_key(&member.member_id) {
            Ok(member.member_id.clone())
        } else {
            Err(self.unknown(&member.member_id))
        }
    }

    /// Expels who was not heard of, and forgets ids that nobody came back with.
    pub(super) fn expire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(member_id, _)| member_id.clone())
            .collect();
        self.promised.retain(|_, until| *until > now);
        for member_id in &silent {
            self.remove(member_id, LeaveReason::MissedHeartbeats, now, effects);
        }
        if silent.is_empty() {
            // Perhaps they waited for an id that nobody came back with.
            self.complete_if_all_joined(now, effects);
        } else {
            self.rebalance_without_removed(now, effects);
        }
    }

    /// Takes a member out. The caller lets the others come together without it.
    pub(super) fn remove(
        &mut self,
        member_id: &str,
        reason: LeaveReason,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(member) = self.members.get(member_id) else { return };
        let client_id = member.client_id.clone();
        let cause =
            RebalanceCause::Left { member_id: member_id.to_owned(), client_id: client_id.clone(), reason };
        // Before the member goes: the record's "before" still has it.
        self.record_cause(Some(cause), now);
        let Some(member) = self.members.remove(member_id) else { return };
        let worked_until = if reason == LeaveReason::MissedHeartbeats { member.last_heard } else { now };
        self.ownership.release(member_id, worked_until);
        if let Some(instance_id) = &member.instance_id {
            self.instances.remove(instance_id);
        }
        self.unsynced.remove(member_id);
        if self.leader.as_deref() == Some(member_id) {
            self.leader = None;
        }
        if self.departed.len() == MAX_DEPARTED {
            self.departed.pop_front();
        }
        self.departed.push_back(Departed { member_id: member_id.to_owned(), reason });
        let error = self.unknown(member_id);
        if let Some(ticket) = member.joining {
            effects.push(Effect::Answer { ticket, answer: Answer::Join(Err(error.clone())) });
        }
        if let Some(ticket) = member.syncing {
            effects.push(Effect::Answer { ticket, answer: Answer::Sync(Err(error)) });
        }
        if reason != LeaveReason::Left {
            effects.push(Effect::Expelled { member_id: member_id.to_owned(), client_id, reason });
        }
    }

    /// Brings the others together after somebody was removed, or lets them go on if they waited for that one alone.
    pub(super) fn rebalance_without_removed(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare(None, Duration::ZERO, now, effects);
                self.complete_if_all_joined(now, effects);
            }
            GroupState::PreparingRebalance => self.complete_if_all_joined(now, effects),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Nobody can join it any more.
    pub fn kill(&mut self) {
        self.state = GroupState::Dead;
    }
}
