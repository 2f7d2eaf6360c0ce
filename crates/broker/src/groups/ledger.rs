//! The committed offsets of one group, with what is on its way to them.

use std::collections::{BTreeMap, BTreeSet};

use farol_event::Timestamp;

use crate::partition::TopicPartition;

/// A committed offset, with what was committed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; −1 if it isn't known.
    pub leader_epoch: i32,
    /// A text of the client's.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_at_ms: i64,
}

/// What is known of a group's offset in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchedOffset {
    /// It is committed.
    Committed(CommittedOffset),
    /// None is.
    Missing,
    /// An open transaction may change it, and the caller wants only what stands.
    Unstable,
}

/// The offsets of a group.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// Changes that passed the fence and are not decided on disk yet.
    in_flight: BTreeMap<TopicPartition, u32>,
    /// Offsets that open transactions will commit, by producer id. They count when the transaction ends.
    pending: BTreeMap<i64, BTreeMap<TopicPartition, CommittedOffset>>,
}

impl CommittedOffset {
    /// An offset alone.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: -1, metadata: String::new(), committed_at_ms: 0 }
    }
}

impl Ledger {
    pub(super) fn new(committed: BTreeMap<TopicPartition, CommittedOffset>) -> Self {
        Self { committed, ..Self::default() }
    }

    pub(super) fn committed(&self) -> &BTreeMap<TopicPartition, CommittedOffset> {
        &self.committed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.in_flight.is_empty() && self.pending.is_empty()
    }

    /// A change of these has passed the fence.
    pub(super) fn begin<'a>(&mut self, partitions: impl Iterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            *self.in_flight.entry(partition.clone()).or_default() += 1;
        }
    }

    /// The change is decided.
    pub(super) fn end<'a>(&mut self, partitions: impl Iterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            if let Some(count) = self.in_flight.get_mut(partition) {
                *count -= 1;
                if *count == 0 {
                    self.in_flight.remove(partition);
                }
            }
        }
    }

    pub(super) fn set(&mut self, partition: &TopicPartition, offset: Option<CommittedOffset>) {
        match offset {
            Some(offset) => {
                self.committed.insert(partition.clone(), offset);
            }
            None => {
                self.committed.remove(partition);
            }
        }
    }

    /// Whether a change of any of these is on its way to the disk.
    pub(super) fn is_in_flight<'a>(&self, mut partitions: impl Iterator<Item = &'a TopicPartition>) -> bool {
        !self.in_flight.is_empty() && partitions.any(|partition| self.in_flight.contains_key(partition))
    }

    /// Whether any change is on its way to the disk.
    pub(super) fn is_any_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether nothing is committed but of these partitions, nothing is on its way, and no transaction holds anything.
    pub(super) fn holds_only(&self, partitions: &BTreeSet<TopicPartition>) -> bool {
        let (committed, in_flight, pending) = (&self.committed, &self.in_flight, &self.pending);
        in_flight.is_empty() && pending.is_empty() && committed.keys().all(|found| partitions.contains(found))
    }

    /// Whether this offset is still the one that is committed, and no change of it is on its way.
    pub(super) fn is_unchanged(&self, partition: &TopicPartition, seen: &CommittedOffset) -> bool {
        self.committed.get(partition) == Some(seen) && !self.in_flight.contains_key(partition)
    }

    /// Whether an open transaction holds an offset of this partition.
    pub(super) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(partition))
    }

    /// An open transaction holds these offsets.
    pub(super) fn add_pending(
        &mut self,
        producer_id: i64,
        offsets: impl IntoIterator<Item = (TopicPartition, CommittedOffset)>,
    ) {
        self.pending.entry(producer_id).or_default().extend(offsets);
    }

    /// A transaction is over. What it held, for whoever commits it.
    pub(super) fn take_pending(&mut self, producer_id: i64) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.pending.remove(&producer_id).unwrap_or_default()
    }

    /// Undoes an addition that the log did not take.
    pub(super) fn restore_pending(
        &mut self,
        producer_id: i64,
        offsets: BTreeMap<TopicPartition, CommittedOffset>,
    ) {
        if offsets.is_empty() {
            self.pending.remove(&producer_id);
        } else {
            self.pending.insert(producer_id, offsets);
        }
    }

    pub(super) fn pending_of(&self, producer_id: i64) -> Option<&BTreeMap<TopicPartition, CommittedOffset>> {
        self.pending.get(&producer_id)
    }

    pub(super) fn fetch(&self, partition: &TopicPartition, require_stable: bool) -> FetchedOffset {
        if require_stable && self.is_pending(partition) {
            return FetchedOffset::Unstable;
        }
        self.committed.get(partition).cloned().map_or(FetchedOffset::Missing, FetchedOffset::Committed)
    }

    /// Offsets committed before `limit` that nothing is about to change, of partitions that `may_go`.
    pub(super) fn expired(
        &self,
        limit: Timestamp,
        may_go: impl Fn(&TopicPartition) -> bool,
    ) -> BTreeSet<TopicPartition> {
        self.committed
            .iter()
            .filter(|(partition, offset)| {
                offset.committed_at_ms < limit.as_millis()
                    && may_go(partition)
                    && !self.in_flight.contains_key(partition)
                    && !self.is_pending(partition)
            })
            .map(|(partition, _)| partition.clone())
            .collect()
    }
}
