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
    /// It lived but did not take its part in a rebalance in time.
    RebalanceTimeout,
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
    /// When every partition that somebody is to have was given to somebody, who has gone on with it as far as that can be seen. A
    /// cooperative move takes two generations; both are one rebalance.
    pub completed_at: Timestamp,
    /// What set it off (several, if they came together); the first ones if there are very many.
    pub causes: Vec<RebalanceCause>,
    /// How many causes are not listed.
    pub more_causes: u64,
    /// Who owned what before: client id → partitions. Of groups that aren't of consumers, nothing is known here.
    pub before: BTreeMap<String, Vec<TopicPartition>>,
    /// Who owns what now.
    pub after: BTreeMap<String, Vec<TopicPartition>>,
    /// How long each partition that changed hands stood still, all pauses of the rebalance together.
    ///
    /// It begins when the last owner gave the partition up (joined again without it, or left) or, if it was expelled, was last heard of.
    /// If the broker was stopped, in order or not, it begins when the broker was last known to run, a second before at most; an owner
    /// that was silent even before counts as if it had not been.
    ///
    /// It ends when the next owner goes on: a member of this process polls again after it was given the partition, so it has restored
    /// what it needs; any other was told from which offset to read, which waits for transactions that hold it. What that one restores
    /// afterwards isn't seen, so its pause is at least as long. A commit ends it, too. Where nothing of this is seen within a session
    /// timeout, it ends with the assignment that gave the owner the partition.
    pub paused: BTreeMap<TopicPartition, Duration>,
}

impl LeaveReason {
    /// In words, for logs and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaveReason::Left => "said goodbye",
            LeaveReason::MissedHeartbeats => "missed its heartbeats",
            LeaveReason::MissedPolls => "did not poll in time",
            LeaveReason::RebalanceTimeout => "did not join the rebalance in time",
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

/// How many causes one rebalance record lists.
const MAX_CAUSES: usize = 64;

/// A rebalance that isn't complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenRebalance {
    began_at: Timestamp,
    causes: Vec<RebalanceCause>,
    more_causes: u64,
    before: BTreeMap<String, Vec<TopicPartition>>,
    paused: BTreeMap<TopicPartition, Duration>,
    /// While a member that was not given a partition any more has yet to give it up, or one that was given it has yet to go on with
    /// it: when that is no longer waited for.
    pub(super) closes_at: Option<Timestamp>,
    /// Whether somebody has yet to give up a partition.
    pub(super) gives_up: bool,
    /// When the leader last assigned.
    pub(super) assigned_at: Timestamp,
    /// When the last partition moved: was assigned, or gone on with.
    pub(super) moved_at: Timestamp,
}

impl OpenRebalance {
    pub(super) fn new(before: BTreeMap<String, Vec<TopicPartition>>, now: Timestamp) -> Self {
        Self {
            began_at: now,
            causes: Vec::new(),
            more_causes: 0,
            before,
            paused: BTreeMap::new(),
            closes_at: None,
            gives_up: false,
            assigned_at: now,
            moved_at: now,
        }
    }

    pub(super) fn add_cause(&mut self, cause: Option<RebalanceCause>) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.extend(cause);
        } else {
            self.more_causes += u64::from(cause.is_some());
        }
    }

    /// A pause of a partition is over. One that moves more than once before the rebalance is complete has several.
    pub(super) fn pauses(&mut self, partition: TopicPartition, paused: Duration) {
        *self.paused.entry(partition).or_default() += paused;
    }

    pub(super) fn close(
        self,
        group: &str,
        generation: i32,
        after: BTreeMap<String, Vec<TopicPartition>>,
        now: Timestamp,
    ) -> RebalanceRecord {
        RebalanceRecord {
            group: group.to_owned(),
            generation,
            began_at: self.began_at,
            completed_at: now,
            causes: self.causes,
            more_causes: self.more_causes,
            before: self.before,
            after,
            paused: self.paused,
        }
    }
}
