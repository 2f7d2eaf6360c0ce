//! The parts of a group's state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;

use super::rebalance::{LeaveReason, RebalanceCause};
use crate::partition::TopicPartition;

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) client_id: String,
    pub(super) topics: BTreeMap<Arc<str>, i32>,
    pub(super) session_timeout: Duration,
    pub(super) max_poll_interval: Duration,
    pub(super) joined_at: Timestamp,
    pub(super) last_heartbeat: Timestamp,
    pub(super) last_poll: Timestamp,
    /// The newest generation for which it has given up everything that it had to.
    pub(super) generation: i32,
}

/// Who has a partition, and who is to have it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ownership {
    /// Who has it.
    pub(super) owner: Option<String>,
    /// Who is to have it. Nobody if no member reads its topic any more.
    pub(super) target: Option<String>,
    /// Whether the owner was told to give it up. Then it must go through being free, even if the target is the owner
    /// again, because the owner has dropped its state.
    pub(super) revoke_told: bool,
    /// Since when it has been without an owner; `None` if it never had one.
    pub(super) free_since: Option<Timestamp>,
    /// Commits that passed the fence and are not decided on disk yet.
    pub(super) commits_in_flight: u32,
}

/// A rebalance that isn't complete.
#[derive(Debug, Clone)]
pub(super) struct OpenRebalance {
    pub(super) began_at: Timestamp,
    pub(super) causes: Vec<RebalanceCause>,
    pub(super) before: BTreeMap<String, Vec<TopicPartition>>,
    pub(super) paused: BTreeMap<TopicPartition, Duration>,
}

/// A member that is gone.
#[derive(Debug, Clone)]
pub(super) struct Departed {
    pub(super) member_id: String,
    pub(super) reason: LeaveReason,
}

impl Member {
    /// When it will be expelled unless it is heard of.
    pub(super) fn deadline(&self) -> Timestamp {
        self.last_heartbeat
            .saturating_add(self.session_timeout)
            .min(self.last_poll.saturating_add(self.max_poll_interval))
    }

    /// Why it must go, if it must.
    pub(super) fn expired(&self, now: Timestamp) -> Option<LeaveReason> {
        if self.last_heartbeat.saturating_add(self.session_timeout) <= now {
            Some(LeaveReason::MissedHeartbeats)
        } else if self.last_poll.saturating_add(self.max_poll_interval) <= now {
            Some(LeaveReason::MissedPolls)
        } else {
            None
        }
    }
}

impl Ownership {
    /// Its owner is to give it up, or has been told to.
    pub(super) fn is_leaving(&self) -> bool {
        self.owner.is_some() && (self.revoke_told || self.owner != self.target)
    }

    /// It can be given to its target.
    pub(super) fn is_grantable(&self) -> bool {
        self.owner.is_none() && self.target.is_some() && self.commits_in_flight == 0
    }

    /// Nobody has it and nobody wants it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.owner.is_none() && self.target.is_none() && self.commits_in_flight == 0
    }

    pub(super) fn release(&mut self, now: Timestamp) {
        self.owner = None;
        self.revoke_told = false;
        self.free_since = Some(now);
    }
}
