//! How far a member of a group has printed, as far as the group doesn't know it yet. Where it begins is committed, too: a member that
//! prints nothing would otherwise begin anew the next time, after what came in between.
//!
//! A commit may meet a rebalance, or find that the member was thrown out and has only not heard of it. Neither ends the command: what
//! isn't committed is kept for the next commit, and a partition that comes back before anybody has committed more of it goes on
//! where it was printed to.

use std::collections::BTreeMap;
use std::time::Duration;

use farol_bus::{Assignment, BusError, Consumer, Polled, TopicPartition};
use tokio::time::{Instant, timeout};

/// How long the last commit may wait for the end of a rebalance.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two tries of the last commit, while which the group is heard.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// By partition, one after the last record that was printed, or where it begins.
#[derive(Debug, Default)]
pub(super) struct Printed {
    uncommitted: BTreeMap<TopicPartition, i64>,
}

impl Printed {
    pub(super) fn note(&mut self, printed: BTreeMap<TopicPartition, i64>) {
        self.uncommitted.extend(printed);
    }

    /// Commits what there is of the partitions that are held.
    pub(super) async fn commit(&mut self, consumer: &mut dyn Consumer) -> Result<(), BusError> {
        let held = self.of(|partition| consumer.position(partition).is_some());
        self.try_to_commit(held, consumer).await
    }

    /// Commits what there is of partitions that are being given up: after the next poll it is too late.
    pub(super) async fn revoked(
        &mut self,
        revoked: &[TopicPartition],
        consumer: &mut dyn Consumer,
    ) -> Result<(), BusError> {
        let revoked = self.of(|partition| revoked.contains(partition));
        self.try_to_commit(revoked, consumer).await
    }

    /// Goes on where it was printed to, unless somebody else has come further. The next commit has where it begins.
    pub(super) fn assigned(
        &mut self,
        assignment: &Assignment,
        consumer: &mut dyn Consumer,
    ) -> Result<(), BusError> {
        for (partition, start) in &assignment.partitions {
            match self.uncommitted.get(partition) {
                Some(printed) if printed > start => consumer.seek(partition, *printed)?,
                _ => drop(self.uncommitted.insert(partition.clone(), *start)),
            }
        }
        Ok(())
    }

    /// Commits what is left before the member leaves; a rebalance that is under way is waited for. Gives what could not be
    /// committed.
    pub(super) async fn settle(
        mut self,
        consumer: &mut dyn Consumer,
    ) -> Result<Vec<TopicPartition>, BusError> {
        match timeout(SETTLE_LIMIT, self.commit_the_rest(consumer)).await {
            Ok(Err(error)) if !passes(&error) => Err(error),
            _ => Ok(self.uncommitted.into_keys().collect()),
        }
    }

    async fn commit_the_rest(&mut self, consumer: &mut dyn Consumer) -> Result<(), BusError> {
        loop {
            self.commit(consumer).await?;
            if self.of(|partition| consumer.position(partition).is_some()).is_empty() {
                return Ok(());
            }
            // What is polled meanwhile is neither printed nor committed. Records are no reason to come back sooner.
            let next = Instant::now() + SETTLE_PAUSE;
            match consumer.poll(SETTLE_PAUSE).await? {
                Polled::Records(_) => tokio::time::sleep_until(next).await,
                Polled::Revoked(partitions) => self.revoked(&partitions, consumer).await?,
                Polled::Assigned(assignment) => self.assigned(&assignment, consumer)?,
            }
        }
    }

    fn of(&self, is_meant: impl Fn(&TopicPartition) -> bool) -> BTreeMap<TopicPartition, i64> {
        let meant = self.uncommitted.iter().filter(|(partition, _)| is_meant(partition));
        meant.map(|(partition, offset)| (partition.clone(), *offset)).collect()
    }

    async fn try_to_commit(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
        consumer: &mut dyn Consumer,
    ) -> Result<(), BusError> {
        if offsets.is_empty() {
            return Ok(());
        }
        match consumer.commit(offsets.clone()).await {
            Ok(()) => {
                self.uncommitted.retain(|partition, _| !offsets.contains_key(partition));
                Ok(())
            }
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "what was printed is committed later");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the group tells by itself how it goes on.
fn passes(error: &BusError) -> bool {
    error.is_retriable() || matches!(error, BusError::Fenced(_))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use async_trait::async_trait;
    use farol_bus::{GroupMetadata, StartAt};

    use super::*;

    /// A member whose commits are answered as told, and then taken.
    #[derive(Default)]
    struct Member {
        held: BTreeSet<TopicPartition>,
        refusals: VecDeque<BusError>,
        committed: BTreeMap<TopicPartition, i64>,
        sought: BTreeMap<TopicPartition, i64>,
        polls: VecDeque<Polled>,
    }

    #[async_trait]
    impl Consumer for Member {
        async fn subscribe(&mut self, _: &[&str]) -> Result<(), BusError> {
            Ok(())
        }

        async fn assign(&mut self, _: Vec<(TopicPartition, StartAt)>) -> Result<(), BusError> {
            Ok(())
        }

        async fn poll(&mut self, _: Duration) -> Result<Polled, BusError> {
            let polled = self.polls.pop_front().unwrap_or(Polled::Records(Vec::new()));
            match &polled {
                Polled::Revoked(partitions) => self.held.retain(|held| !partitions.contains(held)),
                Polled::Assigned(gained) => {
                    self.held.extend(gained.partitions.iter().map(|(p, _)| p.clone()))
                }
                Polled::Records(_) => {}
            }
            Ok(polled)
        }

        fn position(&self, partition: &TopicPartition) -> Option<i64> {
            self.held.contains(partition).then_some(0)
        }

        fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), BusError> {
            self.sought.insert(partition.clone(), offset);
            Ok(())
        }

        async fn commit(&mut self, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), BusError> {
            match self.refusals.pop_front() {
                Some(error) => Err(error),
                None => {
                    self.committed.extend(offsets);
                    Ok(())
                }
            }
        }

        fn group_metadata(&self) -> GroupMetadata {
            GroupMetadata::default()
        }

        async fn close(&mut self) -> Result<(), BusError> {
            Ok(())
        }
    }

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn offsets<const N: usize>(offsets: [(i32, i64); N]) -> BTreeMap<TopicPartition, i64> {
        offsets.map(|(number, offset)| (partition(number), offset)).into()
    }

    fn member<const N: usize>(held: [i32; N], refusals: impl IntoIterator<Item = BusError>) -> Member {
        let refusals = refusals.into_iter().collect();
        Member { held: held.map(partition).into(), refusals, ..Member::default() }
    }

    fn rebalancing() -> BusError {
        BusError::Unavailable("the group is rebalancing".to_owned())
    }

    fn thrown_out() -> BusError {
        BusError::Fenced("no such member".to_owned())
    }

    fn assignment<const N: usize>(starts: [(i32, i64); N]) -> Assignment {
        let partitions = starts.map(|(number, start)| (partition(number), start)).into();
        Assignment { partitions, generation: 2 }
    }

    #[tokio::test]
    async fn what_a_rebalance_kept_from_being_committed_is_committed_with_what_comes_next() {
        let mut member = member([0, 1], [rebalancing()]);
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5), (1, 3)]));
        printed.commit(&mut member).await.unwrap();
        assert!(member.committed.is_empty());
        printed.note(offsets([(0, 7)]));
        printed.commit(&mut member).await.unwrap();
        assert_eq!(member.committed, offsets([(0, 7), (1, 3)]));
        assert!(printed.settle(&mut member).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_partition_that_is_given_up_is_committed_before() {
        let mut member = member([0], [rebalancing()]);
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5), (1, 3)]));
        printed.commit(&mut member).await.unwrap();
        printed.revoked(&[partition(1)], &mut member).await.unwrap();
        assert_eq!(member.committed, offsets([(1, 3)]), "the other one isn't");
    }

    #[tokio::test]
    async fn whoever_was_thrown_out_goes_on_and_prints_nothing_twice_that_nobody_else_had() {
        let mut member = member([0, 1], [thrown_out(), thrown_out()]);
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5), (1, 3)]));
        printed.commit(&mut member).await.unwrap();
        member.held.clear();
        printed.revoked(&[partition(0), partition(1)], &mut member).await.unwrap();
        printed.assigned(&assignment([(0, 2), (1, 9)]), &mut member).unwrap();
        assert_eq!(member.sought, offsets([(0, 5)]), "somebody else has read the other one");
        member.held.extend([partition(0), partition(1)]);
        printed.commit(&mut member).await.unwrap();
        assert_eq!(member.committed, offsets([(0, 5), (1, 9)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_waits_for_a_rebalance_and_says_what_it_could_not_commit() {
        let mut one = member([0, 1], [rebalancing(), rebalancing(), rebalancing()]);
        one.polls.push_back(Polled::Revoked(vec![partition(1)]));
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5), (1, 3)]));
        assert_eq!(printed.settle(&mut one).await.unwrap(), [partition(1)], "its revocation met one, too");
        assert_eq!(one.committed, offsets([(0, 5)]));

        let mut other = member([0], std::iter::repeat_with(rebalancing).take(1000));
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5)]));
        assert_eq!(printed.settle(&mut other).await.unwrap(), [partition(0)]);
    }

    #[tokio::test]
    async fn what_does_not_pass_ends_it() {
        let mut member = member([0], [BusError::Closed]);
        let mut printed = Printed::default();
        printed.note(offsets([(0, 5)]));
        assert!(matches!(printed.commit(&mut member).await, Err(BusError::Closed)));
    }
}
