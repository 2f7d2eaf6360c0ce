//! The index of aborted transactions of one partition.
//!
//! Two questions are asked of it: was this batch aborted (compaction, readers inside the process), and which aborted
//! transactions must a client know for a range of offsets (Fetch). Entries come in the order of their markers.

use std::collections::BTreeMap;

/// A transaction that was aborted in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub marker_offset: i64,
    /// The last stable offset after it had ended: every transaction that ends later began at or after it.
    pub(crate) stable_offset: i64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AbortedIndex {
    /// By marker.
    by_marker: BTreeMap<i64, AbortedTransaction>,
    /// Markers by producer and first offset.
    by_producer: BTreeMap<(i64, i64), i64>,
}

impl AbortedIndex {
    pub(crate) fn add(&mut self, aborted: AbortedTransaction) {
        self.by_producer.insert((aborted.producer_id, aborted.first_offset), aborted.marker_offset);
        self.by_marker.insert(aborted.marker_offset, aborted);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_marker.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AbortedTransaction> {
        self.by_marker.values()
    }

    /// Whether a batch at `offset` belongs to an aborted transaction of the producer.
    pub(crate) fn contains(&self, producer_id: i64, offset: i64) -> bool {
        let begun_before =
            self.by_producer.range((producer_id, i64::MIN)..=(producer_id, offset)).next_back();
        begun_before.is_some_and(|(_, marker)| offset < *marker)
    }

    /// Those that a reader of `from..to` must know, where `to` is at most the last stable offset.
    pub(crate) fn overlapping(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let mut found = Vec::new();
        for aborted in self.by_marker.range(from..).map(|(_, aborted)| aborted) {
            if aborted.first_offset < to {
                found.push(*aborted);
            }
            if aborted.stable_offset >= to {
                break;
            }
        }
        found
    }

    /// Forgets those that ended before `offset`.
    pub(crate) fn prune_before(&mut self, offset: i64) {
        let kept = self.by_marker.split_off(&offset);
        for gone in std::mem::replace(&mut self.by_marker, kept).into_values() {
            self.by_producer.remove(&(gone.producer_id, gone.first_offset));
        }
    }
}
