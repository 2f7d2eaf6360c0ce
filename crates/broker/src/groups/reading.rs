//! Committed offsets, as they are read: those that stand, and those that open transactions hold. How they are changed: `commit`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CommittedOffset, FetchedOffset, Groups, OffsetCommit};
use crate::coordinator::{GroupError, Reader};
use crate::partition::TopicPartition;

impl Groups {
    /// The committed offsets of those partitions for which they stand: no change is on its way and no transaction holds
    /// one. If that leaves any out, the member's bell rings when it may have changed.
    pub(crate) fn settled_offsets(
        &self,
        group: &str,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Vec<(TopicPartition, Option<i64>)> {
        let mut state = self.state.lock();
        let Some(entry) = state.groups.get_mut(group) else {
            return partitions.iter().map(|partition| (partition.clone(), None)).collect();
        };
        let ledger = &entry.ledger;
        let stands = |partition: &&TopicPartition| {
            !ledger.is_in_flight(std::iter::once(*partition)) && !ledger.is_pending(partition)
        };
        let settled: Vec<_> = partitions
            .iter()
            .filter(stands)
            .map(|partition| (partition.clone(), ledger.committed().get(partition).map(|found| found.offset)))
            .collect();
        if settled.len() < partitions.len() {
            entry.mailboxes_wait = true;
        }
        settled
    }

    /// Offsets of a group; of all partitions that have one if none are named. Waits until those on their way are decided.
    pub(crate) async fn fetch_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Vec<(TopicPartition, FetchedOffset)> {
        loop {
            let settled = {
                let state = self.state.lock();
                let Some(entry) = state.groups.get(group) else {
                    let missing = |partition: &TopicPartition| (partition.clone(), FetchedOffset::Missing);
                    return partitions.unwrap_or_default().iter().map(missing).collect();
                };
                let ledger = &entry.ledger;
                let on_its_way = match partitions {
                    Some(partitions) => ledger.is_in_flight(partitions.iter()),
                    None => ledger.is_any_in_flight(),
                };
                if !on_its_way {
                    let fetch = |partition: &TopicPartition| {
                        (partition.clone(), ledger.fetch(partition, require_stable))
                    };
                    return match partitions {
                        Some(partitions) => partitions.iter().map(fetch).collect(),
                        None => ledger.committed().keys().map(fetch).collect(),
                    };
                }
                Arc::clone(&entry.settled).notified_owned()
            };
            settled.await;
        }
    }

    pub(crate) fn committed(&self, group: &str) -> BTreeMap<TopicPartition, i64> {
        let state = self.state.lock();
        state.groups.get(group).map(|entry| entry.committed()).unwrap_or_default()
    }

    /// An open transaction holds these offsets: whoever wants only what stands must wait for its end.
    ///
    /// # Errors
    /// Why the committer may not.
    pub(crate) fn add_pending(&self, producer_id: i64, commit: &OffsetCommit) -> Result<(), GroupError> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let entry = self.entry(&mut state, &commit.group, now)?;
        if let Some(committer) = &commit.committer {
            if let Err(refusal) = entry.group.decide_commit(committer, commit.offsets.keys(), now) {
                self.fenced_commits.fetch_add(1, Ordering::Relaxed);
                // It may have been made for this request.
                state.remove_if_unused(&commit.group);
                return Err(refusal);
            }
            let reader = Reader::Member(&committer.member.member_id);
            let effects = entry.group.goes_on(reader, commit.offsets.keys(), now);
            self.carry_out(entry, effects);
        }
        let offsets = commit.offsets.iter().map(|(partition, offset)| (partition.clone(), offset.clone()));
        entry.ledger.add_pending(producer_id, offsets);
        Ok(())
    }

    /// What an open transaction holds of a group's offsets.
    pub(crate) fn pending(&self, producer_id: i64, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        let state = self.state.lock();
        let pending = state.groups.get(group).and_then(|entry| entry.ledger.pending_of(producer_id));
        pending.cloned().unwrap_or_default()
    }

    /// What a transaction was to hold could not be written: it holds what it held before.
    pub(crate) fn restore_pending(
        &self,
        producer_id: i64,
        group: &str,
        offsets: BTreeMap<TopicPartition, CommittedOffset>,
    ) {
        let mut state = self.state.lock();
        if let Some(entry) = state.groups.get_mut(group) {
            entry.ledger.restore_pending(producer_id, offsets);
            entry.offsets_settled();
            state.remove_if_unused(group);
        }
    }

    /// A transaction is over: it holds none of a group's offsets any more.
    pub(crate) fn end_pending(&self, producer_id: i64, group: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.groups.get_mut(group) {
            entry.ledger.take_pending(producer_id);
            entry.offsets_settled();
            state.remove_if_unused(group);
        }
    }
}
