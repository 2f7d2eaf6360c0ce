//! The broker in numbers, for status pages and metrics.

use std::sync::Arc;

use farol_log::{LogMetrics, PartitionMetrics};

use crate::coordinator::{GroupState, MemberDescription};
use crate::partition::TopicPartition;
use crate::producers::ProducerStats;

/// A snapshot of the broker. The parts are taken one after the other, not at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerStats {
    /// The log's counters: group commits, syncs and their latency, queue, poisoned.
    pub log: LogMetrics,
    /// Every topic, the broker's own included, by name.
    pub topics: Vec<TopicStats>,
    /// Every group with members or committed offsets, by name.
    pub groups: Vec<GroupStats>,
    /// Bytes of appends that are not decided yet.
    pub in_flight_bytes: usize,
    /// Times that a consumer's offset was gone and was reset by its settings.
    pub offset_resets: u64,
    /// Commits refused because of a lost membership, generation, partition or producer epoch.
    pub fenced_commits: u64,
    /// What partitions remember of idempotent and transactional producers.
    pub producers: ProducerStats,
    /// Clients' transactions that are open.
    pub open_transactions: usize,
    /// Clients' transactions that were aborted because their time was up.
    pub timed_out_transactions: u64,
}

/// A topic in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicStats {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionMetrics>,
}

/// A group in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStats {
    /// Its name.
    pub group: String,
    /// Its generation.
    pub generation: i32,
    /// Where it stands.
    pub state: GroupState,
    /// Its members, by name.
    pub members: Vec<MemberDescription>,
    /// The partitions that it owns or has committed offsets for.
    pub partitions: Vec<GroupPartitionStats>,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPartitionStats {
    /// The partition.
    pub partition: TopicPartition,
    /// The name of the member that owns it.
    pub owner: Option<String>,
    /// The committed offset.
    pub committed: Option<i64>,
    /// The partition's end.
    pub end: i64,
    /// Offsets between the two; from the partition's start if none is committed.
    pub lag: i64,
}

impl TopicStats {
    /// Offsets between start and end of all partitions: the number of records, or more where compaction left gaps.
    pub fn records(&self) -> i64 {
        self.partitions
            .iter()
            .map(|partition| partition.end_offset.saturating_sub(partition.start_offset))
            .sum()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.size_bytes).sum()
    }
}

impl BrokerStats {
    /// Why appends are refused, if any are: of the log, or of the first partition that refuses them.
    pub fn poisoned(&self) -> Option<&str> {
        let LogMetrics { poisoned, waiting_for_space, folder_not_writable, .. } = &self.log;
        let of_log = poisoned.as_deref().or(waiting_for_space.as_deref());
        of_log.or(folder_not_writable.as_deref()).or_else(|| {
            self.topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find_map(|partition| partition.poisoned.as_deref())
        })
    }
}
