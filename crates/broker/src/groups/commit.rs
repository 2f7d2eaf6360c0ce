//! Changes of committed offsets: what is asked for, and its way through the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::ledger::CommittedOffset;
use super::{Groups, ProducerEpoch, State};
use crate::coordinator::{CommitCheck, Committer, GroupError, GroupState, MemberRef, Reader};
use crate::error::BrokerError;
use crate::partition::TopicPartition;

/// Who a member is, at which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member_id: String,
    /// Its generation.
    pub generation: i32,
}

/// Offsets that are committed for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The group.
    pub group: String,
    /// Who commits; `None` if that was checked before, when a transaction took the offsets.
    pub committer: Option<Committer>,
    /// What, by partition.
    pub offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

/// Committed offsets that are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetDeletion {
    pub(crate) group: String,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    pub(crate) condition: DeletionCondition,
}

/// What must still hold when a deletion's turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeletionCondition {
    /// The group has no members, and no offsets beside those that are deleted, be they on their way or held by a transaction; it goes as
    /// well.
    GroupEmpty,
    /// The group has no members that may read the topics.
    NotRead,
    /// As `NotRead`, and what is committed was committed before this time, in milliseconds.
    CommittedBefore(i64),
    /// What is committed is what was seen when the topic was gone, and nothing is on its way: anything else is of a newer topic of that name.
    Unchanged(BTreeMap<TopicPartition, CommittedOffset>),
}

/// A change of offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OffsetChange {
    Commit(OffsetCommit),
    Delete(OffsetDeletion),
}

/// Changes on their way through the log, shared by their precondition and their completion.
pub(crate) struct InFlightCommit {
    groups: Arc<Groups>,
    changes: Vec<OffsetChange>,
    producer: Option<ProducerEpoch>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Decided,
    Finished,
}

impl OffsetCommit {
    /// Offsets that a member of this process commits for partitions that it owns.
    pub fn by_owner(member: Membership, offsets: BTreeMap<TopicPartition, i64>) -> Self {
        let committer = Committer {
            member: MemberRef::id(member.member_id),
            generation: member.generation,
            check: CommitCheck::Ownership,
        };
        let offsets = offsets
            .into_iter()
            .map(|(partition, offset)| (partition, CommittedOffset::new(offset)))
            .collect();
        Self { group: member.group, committer: Some(committer), offsets }
    }
}

impl OffsetChange {
    pub(crate) fn group(&self) -> &str {
        match self {
            OffsetChange::Commit(commit) => &commit.group,
            OffsetChange::Delete(deletion) => &deletion.group,
        }
    }

    fn partitions(&self) -> Box<dyn Iterator<Item = &TopicPartition> + '_> {
        match self {
            OffsetChange::Commit(commit) => Box::new(commit.offsets.keys()),
            OffsetChange::Delete(deletion) => Box::new(deletion.partitions.iter()),
        }
    }
}

impl InFlightCommit {
    pub(crate) fn new(
        groups: Arc<Groups>,
        changes: Vec<OffsetChange>,
        producer: Option<ProducerEpoch>,
    ) -> Arc<Self> {
        Arc::new(Self { groups, changes, producer, stage: Mutex::new(Stage::Queued) })
    }

    /// Whether the changes may be written. Run by the thread that commits.
    pub(crate) fn decide(&self) -> Result<(), BrokerError> {
        let decided = self.decide_all();
        match &decided {
            Ok(()) => *self.stage.lock() = Stage::Decided,
            Err(error) => {
                if matches!(error, BrokerError::Fenced(_) | BrokerError::ProducerFenced { .. }) {
                    self.groups.fenced_commits.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(%error, "change of offsets refused");
            }
        }
        decided
    }

    fn decide_all(&self) -> Result<(), BrokerError> {
        let mut state = self.groups.state.lock();
        if let Some(producer) = &self.producer {
            state.check_producer(producer)?;
        }
        if let Err(error) =
            self.changes.iter().try_for_each(|change| self.groups.check_change(&mut state, change))
        {
            // Groups that were made for a commit which doesn't come.
            for change in &self.changes {
                state.remove_if_unused(change.group());
            }
            return Err(error);
        }
        for change in &self.changes {
            if let Some(entry) = state.groups.get_mut(change.group()) {
                entry.ledger.begin(change.partitions());
            }
        }
        if let Some(producer) = &self.producer {
            state.begin_producers_commit(producer);
        }
        Ok(())
    }

    /// The append has ended: with `written`, the changes hold from now on.
    pub(crate) fn finish(&self, written: bool) {
        if std::mem::replace(&mut *self.stage.lock(), Stage::Finished) != Stage::Decided {
            return;
        }
        let mut state = self.groups.state.lock();
        for change in &self.changes {
            let Some(entry) = state.groups.get_mut(change.group()) else { continue };
            entry.ledger.end(change.partitions());
            if written {
                match change {
                    OffsetChange::Commit(commit) => {
                        for (partition, offset) in &commit.offsets {
                            entry.ledger.set(partition, Some(offset.clone()));
                        }
                    }
                    OffsetChange::Delete(deletion) => {
                        for partition in &deletion.partitions {
                            entry.ledger.set(partition, None);
                        }
                    }
                }
            }
            entry.offsets_settled();
            state.remove_if_unused(change.group());
        }
        if let Some(producer) = &self.producer {
            state.end_producers_commit(producer);
        }
    }
}

impl Drop for InFlightCommit {
    /// A log that forgot its callback must not leave partitions marked for ever.
    fn drop(&mut self) {
        self.finish(false);
    }
}

impl Groups {
    fn check_change(&self, state: &mut State, change: &OffsetChange) -> Result<(), BrokerError> {
        let now = self.now();
        match change {
            OffsetChange::Commit(commit) => {
                let entry = self.entry(state, &commit.group, now).map_err(BrokerError::Group)?;
                let Some(committer) = &commit.committer else { return Ok(()) };
                let decided = entry.group.decide_commit(committer, commit.offsets.keys(), now);
                decided.map_err(BrokerError::Fenced)?;
                let reader = Reader::Member(&committer.member.member_id);
                let effects = entry.group.goes_on(reader, commit.offsets.keys(), now);
                self.carry_out(entry, effects);
                Ok(())
            }
            OffsetChange::Delete(deletion) => check_deletion(state, deletion).map_err(BrokerError::Group),
        }
    }
}

pub(super) fn check_deletion(state: &State, deletion: &OffsetDeletion) -> Result<(), GroupError> {
    let group = || deletion.group.clone();
    let Some(entry) = state.groups.get(&deletion.group) else {
        return Err(GroupError::NotFound { group: group() });
    };
    match &deletion.condition {
        DeletionCondition::Unchanged(seen) => {
            let stands = seen.iter().all(|(partition, offset)| entry.ledger.is_unchanged(partition, offset));
            if stands { Ok(()) } else { Err(GroupError::NotEmpty { group: group() }) }
        }
        DeletionCondition::GroupEmpty => {
            if entry.group.state() == GroupState::Empty && entry.ledger.holds_only(&deletion.partitions) {
                Ok(())
            } else {
                Err(GroupError::NotEmpty { group: group() })
            }
        }
        DeletionCondition::NotRead => entry.check_not_read(&deletion.partitions),
        DeletionCondition::CommittedBefore(limit_ms) => {
            entry.check_not_read(&deletion.partitions)?;
            let committed = entry.ledger.committed();
            let is_old = |partition| {
                committed
                    .get(partition)
                    .is_none_or(|offset: &CommittedOffset| offset.committed_at_ms < *limit_ms)
            };
            let stands = deletion.partitions.iter().all(is_old)
                && !entry.ledger.is_in_flight(deletion.partitions.iter());
            if stands { Ok(()) } else { Err(GroupError::NotEmpty { group: group() }) }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::groups::GroupOptions;
    use crate::offsets::CommittedOffsets;

    fn at(offset: i64) -> BTreeMap<TopicPartition, CommittedOffset> {
        BTreeMap::from([(TopicPartition::new("t", 0), CommittedOffset::new(offset))])
    }

    fn groups() -> Arc<Groups> {
        let committed = CommittedOffsets::from([("g".to_owned(), at(7))]);
        Arc::new(Groups::new(Clock::start(), GroupOptions::default(), committed, None))
    }

    fn commit(groups: &Arc<Groups>, offset: i64) -> Arc<InFlightCommit> {
        let commit = OffsetCommit { group: "g".to_owned(), committer: None, offsets: at(offset) };
        InFlightCommit::new(Arc::clone(groups), vec![OffsetChange::Commit(commit)], None)
    }

    fn deletion(groups: &Arc<Groups>, condition: DeletionCondition) -> Arc<InFlightCommit> {
        let partitions = BTreeSet::from([TopicPartition::new("t", 0)]);
        let deletion = OffsetDeletion { group: "g".to_owned(), partitions, condition };
        InFlightCommit::new(Arc::clone(groups), vec![OffsetChange::Delete(deletion)], None)
    }

    #[test]
    fn a_deletion_of_what_was_seen_is_refused_once_a_commit_was_decided() {
        let groups = groups();
        let seen = DeletionCondition::Unchanged(at(7));
        let newer = commit(&groups, 10);
        newer.decide().unwrap();
        assert!(deletion(&groups, seen.clone()).decide().is_err(), "it is on its way");
        newer.finish(true);
        assert!(deletion(&groups, seen.clone()).decide().is_err(), "it stands");
        let older = commit(&groups, 7);
        older.decide().unwrap();
        older.finish(true);
        deletion(&groups, seen).decide().unwrap();
    }

    #[tokio::test]
    async fn a_producer_that_went_with_a_commit_on_its_way_is_forgotten_when_that_is_decided() {
        let groups = groups();
        let begin = |producer: &ProducerEpoch| {
            let commit = OffsetCommit { group: "g".to_owned(), committer: None, offsets: at(8) };
            let commit = vec![OffsetChange::Commit(commit)];
            let in_flight = InFlightCommit::new(Arc::clone(&groups), commit, Some(producer.clone()));
            in_flight.decide().unwrap();
            in_flight
        };
        let producer = groups.new_producer("id");
        let on_its_way = begin(&producer);
        groups.forget_producer(&producer);
        assert!(!groups.state.lock().producers.is_empty());
        on_its_way.finish(true);
        assert!(groups.state.lock().producers.is_empty());

        // One that takes the id over before that stays.
        let producer = groups.new_producer("id");
        let on_its_way = begin(&producer);
        groups.forget_producer(&producer);
        let newer = groups.new_producer("id");
        tokio::join!(groups.commits_decided("id"), async { on_its_way.finish(true) });
        groups.check_producer(&newer).unwrap();
        groups.forget_producer(&newer);
        assert!(groups.state.lock().producers.is_empty());
    }

    #[test]
    fn only_commits_of_who_may_no_more_count_as_fenced() {
        let groups = groups();
        let stranger =
            Committer { member: MemberRef::id("stranger"), generation: 3, check: CommitCheck::Transaction };
        let commit = OffsetCommit { group: "g".to_owned(), committer: Some(stranger), offsets: at(8) };
        deletion(&groups, DeletionCondition::Unchanged(at(6))).decide().unwrap_err();
        deletion(&groups, DeletionCondition::CommittedBefore(0)).decide().unwrap_err();
        assert_eq!(groups.fenced_commits(), 0);
        let change = vec![OffsetChange::Commit(commit.clone())];
        InFlightCommit::new(Arc::clone(&groups), change, None).decide().unwrap_err();
        assert_eq!(groups.fenced_commits(), 1);
        groups.add_pending(9, &commit).unwrap_err();
        assert_eq!(groups.fenced_commits(), 2, "of a transaction, too");
        let older = groups.new_producer("id");
        groups.new_producer("id");
        InFlightCommit::new(Arc::clone(&groups), Vec::new(), Some(older)).decide().unwrap_err();
        assert_eq!(groups.fenced_commits(), 3);
    }

    #[test]
    fn a_group_is_not_deleted_beside_offsets_that_the_deletion_does_not_name() {
        let groups = groups();
        let offsets = BTreeMap::from([(TopicPartition::new("t", 1), CommittedOffset::new(3))]);
        let other = OffsetCommit { group: "g".to_owned(), committer: None, offsets };
        groups.add_pending(9, &other).unwrap();
        assert!(
            deletion(&groups, DeletionCondition::GroupEmpty).decide().is_err(),
            "a transaction holds one"
        );
        groups.end_pending(9, "g");
        let commit = InFlightCommit::new(Arc::clone(&groups), vec![OffsetChange::Commit(other)], None);
        commit.decide().unwrap();
        assert!(deletion(&groups, DeletionCondition::GroupEmpty).decide().is_err(), "one is on its way");
        commit.finish(false);
        deletion(&groups, DeletionCondition::GroupEmpty).decide().unwrap();
        commit.decide().unwrap();
        commit.finish(true);
        assert!(deletion(&groups, DeletionCondition::GroupEmpty).decide().is_err(), "one was committed");
    }
}
