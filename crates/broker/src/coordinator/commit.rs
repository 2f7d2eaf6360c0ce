//! The fence before commits of offsets.

use farol_event::Timestamp;

use super::Group;
use super::protocol::{GroupError, GroupState, MemberRef};
use crate::partition::TopicPartition;

/// Who commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committer {
    /// The member; an empty id if it is none.
    pub member: MemberRef,
    /// Its generation; negative if it has none.
    pub generation: i32,
    /// How it is checked.
    pub check: CommitCheck,
}

/// How a commit is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitCheck {
    /// By member and present generation, as Kafka does. While the leader assigns, it is put off.
    Generation,
    /// The same, within a transaction: not put off, and somebody who names no member may.
    Transaction,
    /// By member and partition: passes if the member has had each partition without a break since its generation. Members
    /// of this process are checked so, since their generation rises while they work on what they keep.
    Ownership,
}

impl Group {
    /// Decides a commit of offsets for `partitions`. It is a sign of life as well.
    ///
    /// # Errors
    /// What stopped it.
    pub fn decide_commit<'a>(
        &mut self,
        committer: &Committer,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Dead { group: self.name.clone() });
        }
        let Committer { member, generation, check } = committer;
        let names_nobody = *generation < 0 && member.member_id.is_empty() && member.instance_id.is_none();
        if *generation < 0 && self.state == GroupState::Empty && *check != CommitCheck::Ownership {
            return Ok(());
        }
        if names_nobody {
            return match check {
                CommitCheck::Transaction => Ok(()),
                _ => Err(self.unknown(&member.member_id)),
            };
        }
        self.check_member(member)?;
        match check {
            CommitCheck::Generation | CommitCheck::Transaction => {
                self.check_generation(&member.member_id, *generation)?;
                if *check == CommitCheck::Generation && self.state == GroupState::CompletingRebalance {
                    return Err(self.rebalancing());
                }
            }
            CommitCheck::Ownership => {
                let held = |partition: &&TopicPartition| {
                    self.ownership.has_held(&member.member_id, partition, *generation)
                };
                if let Some(partition) = partitions.find(|partition| !held(partition)) {
                    return Err(GroupError::NotOwner {
                        group: self.name.clone(),
                        member_id: member.member_id.clone(),
                        given: *generation,
                        partition: partition.clone(),
                    });
                }
            }
        }
        if let Some(member) = self.members.get_mut(&member.member_id) {
            member.last_heard = now;
        }
        Ok(())
    }
}
