//! What the coordinator tells of a rebalance when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use farol_event::Timestamp;

use crate::partition::TopicPartition;

/// Why a member left a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// It said goodbye.
    Left,
    /// It was not heard of for the session timeout.
    MissedHeartbeats,
    /// It lived but did not poll for the maximum poll interval.
    MissedPolls,
}

/// What set off a rebalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebalanceCause {
    /// A member came.
    Joined {
        /// Its id.
        member_id: String,
        /// Its name.
        client_id: String,
    },
    /// A member went.
    Left {
        /// Its id.
        member_id: String,
        /// Its name.
        client_id: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A member changed its topics, or a topic its number of partitions.
    SubscriptionChanged,
}

/// One finished rebalance of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebalanceRecord {
    /// Which group.
    pub group: String,
    /// The new generation.
    pub generation: i32,
    /// When it began.
    pub began_at: Timestamp,
    /// When every member had its new partitions.
    pub completed_at: Timestamp,
    /// What set it off (several, if they came together).
    pub causes: Vec<RebalanceCause>,
    /// Who owned what before: client id → partitions.
    pub before: BTreeMap<String, Vec<TopicPartition>>,
    /// Who owns what now.
    pub after: BTreeMap<String, Vec<TopicPartition>>,
    /// How long each partition that changed hands had no owner.
    pub paused: BTreeMap<TopicPartition, Duration>,
}

impl LeaveReason {
    /// In words, for logs and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaveReason::Left => "said goodbye",
            LeaveReason::MissedHeartbeats => "missed its heartbeats",
            LeaveReason::MissedPolls => "did not poll in time",
        }
    }
}

impl std::fmt::Display for RebalanceCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RebalanceCause::Joined { client_id, .. } => write!(f, "{client_id} joined"),
            RebalanceCause::Left { client_id, reason, .. } => {
                write!(f, "{client_id} left: {}", reason.as_str())
            }
            RebalanceCause::SubscriptionChanged => f.write_str("subscription changed"),
        }
    }
}
