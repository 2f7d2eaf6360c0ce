//! What goes into the coordinator and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;

use super::rebalance::{LeaveReason, RebalanceRecord};
use crate::partition::TopicPartition;

/// What happens to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A member joins, or a member that is there changes its subscription.
    Join(Join),
    /// A member says goodbye.
    Leave {
        /// Who.
        member_id: String,
    },
    /// A member shows that it lives.
    Heartbeat {
        /// Who.
        member_id: String,
    },
    /// A member asks what is new for it. Acknowledges an earlier [`Effect::Revoke`].
    Poll {
        /// Who.
        member_id: String,
    },
    /// Time has passed.
    Tick,
}

/// A member that joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// An id that no member had before.
    pub member_id: String,
    /// The name that people know it by. Members are ordered by it.
    pub client_id: String,
    /// The topics that it reads, with their partition counts.
    pub topics: Vec<(Arc<str>, i32)>,
    /// Expelled when not heard of for this long.
    pub session_timeout: Duration,
    /// Expelled when it hasn't polled for this long.
    pub max_poll_interval: Duration,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell this member to poll: something is new for it.
    Wake {
        /// Who.
        member_id: String,
    },
    /// Answer to a poll: these partitions are to be given up by the next poll.
    Revoke {
        /// Whose.
        member_id: String,
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// Answer to a poll: these partitions are the member's now, in addition to what it has.
    Assign {
        /// Whose.
        member_id: String,
        /// Which.
        partitions: Vec<TopicPartition>,
        /// The member's generation from now on.
        generation: i32,
    },
    /// Answer to a poll or heartbeat of somebody who isn't a member (any more).
    NotMember {
        /// Who.
        member_id: String,
        /// Why it no longer is, if that is remembered.
        reason: Option<LeaveReason>,
    },
    /// This member was thrown out.
    Expelled {
        /// Who.
        member_id: String,
        /// Its name.
        client_id: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A rebalance is complete.
    Rebalanced(Box<RebalanceRecord>),
}

/// Why a commit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    /// The member isn't one (any more).
    #[error("member `{member_id}` is not in group `{group}`{}", departed_suffix(.reason))]
    NotMember {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// Why it left, if that is remembered.
        reason: Option<LeaveReason>,
    },
    /// The member has moved on since.
    #[error("member `{member_id}` of group `{group}` is at generation {current}, the commit is of {given}")]
    Generation {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// The generation given.
        given: i32,
        /// The member's present one.
        current: i32,
    },
    /// The partition is not the member's.
    #[error("{partition} does not belong to member `{member_id}` of group `{group}`")]
    NotOwner {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// The partition.
        partition: TopicPartition,
    },
}

/// Where a group stands, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Some partitions are still to be given up.
    PreparingRebalance,
    /// Some partitions wait for their new owner's poll.
    CompletingRebalance,
    /// Everybody has what is theirs.
    Stable,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its name.
    pub client_id: String,
    /// What it owns.
    pub partitions: Vec<TopicPartition>,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When it was last heard of.
    pub last_heartbeat: Timestamp,
}

impl GroupState {
    /// As Kafka writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

fn departed_suffix(reason: &Option<LeaveReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(" any more: it {}", reason.as_str()))
}
