//! Which consumer has which partition, as the group's assignments and joins tell.
//!
//! This follows what the members do; it doesn't decide it. It serves two purposes: the record of a rebalance says what
//! moved and for how long it stood still, and commits of members of this process are checked against it, partition by
//! partition. Of groups whose assignments can't be read it is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farol_event::Timestamp;

use crate::partition::TopicPartition;

/// Partitions of one group that are followed; more are not recorded.
const MAX_FOLLOWED: usize = 65_536;

/// Who has what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ownership {
    places: BTreeMap<TopicPartition, Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    member_id: String,
    /// The generation from which on it has had the partition without a break.
    since: i32,
    /// When it gave it up; it stays its last owner until somebody else gets it.
    given_up: Option<Timestamp>,
    /// Since when it has stood still, if its last owner never went on with it, or the broker was stopped.
    standing: Option<Timestamp>,
}

impl Ownership {
    /// A member joins again and keeps `kept`: whatever else it had is free.
    pub(super) fn keep(&mut self, member_id: &str, kept: &BTreeSet<TopicPartition>, now: Timestamp) {
        for (partition, place) in &mut self.places {
            if place.member_id == member_id && !kept.contains(partition) {
                place.given_up.get_or_insert(now);
            }
        }
    }

    /// A member is gone; it was last known to work at `at`.
    pub(super) fn release(&mut self, member_id: &str, at: Timestamp) {
        for place in self.places.values_mut().filter(|place| place.member_id == member_id) {
            place.given_up.get_or_insert(at);
        }
    }

    /// A static member came back under another id, with what it had.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        for place in self.places.values_mut().filter(|place| place.member_id == old) {
            new.clone_into(&mut place.member_id);
        }
    }

    /// Partitions that others had when the broker was last stopped: they have stood still since then. Who had them, nobody knows any
    /// more; that they come back for them is waited for from `now` on.
    pub(super) fn resume_from(
        &mut self,
        partitions: impl Iterator<Item = TopicPartition>,
        stopped_at: Timestamp,
        now: Timestamp,
    ) {
        for partition in partitions.take(MAX_FOLLOWED) {
            let (given_up, standing) = (Some(now), Some(stopped_at));
            self.places.insert(partition, Place { member_id: String::new(), since: 0, given_up, standing });
        }
    }

    /// A generation's assignment. What changes hands stands still until its owner goes on with it.
    pub(super) fn assign(
        &mut self,
        generation: i32,
        assigned: &BTreeMap<String, BTreeSet<TopicPartition>>,
        now: Timestamp,
    ) {
        for (member_id, partitions) in assigned {
            for partition in partitions {
                let before = self.places.get(partition);
                if before.is_none() && self.places.len() >= MAX_FOLLOWED {
                    continue;
                }
                if before.is_some_and(|place| place.member_id == *member_id && place.given_up.is_none()) {
                    continue;
                }
                let standing = before.and_then(|place| {
                    let hands_over = place.member_id != *member_id;
                    place.standing.or_else(|| hands_over.then(|| place.given_up.unwrap_or(now)))
                });
                let place =
                    Place { member_id: member_id.clone(), since: generation, given_up: None, standing };
                self.places.insert(partition.clone(), place);
            }
        }
    }

    /// Whether a partition was given to somebody who doesn't go on with it yet.
    pub(super) fn any_stands(&self) -> bool {
        self.places.values().any(|place| place.given_up.is_none() && place.standing.is_some())
    }

    /// The owner of a partition that stands still although it has one.
    pub(super) fn owner_of_standing(&self, partition: &TopicPartition) -> Option<&str> {
        let place = self.places.get(partition)?;
        (place.given_up.is_none() && place.standing.is_some()).then_some(place.member_id.as_str())
    }

    /// The owner goes on with a partition. Gives how long it stood still, if it did.
    pub(super) fn goes_on(&mut self, partition: &TopicPartition, now: Timestamp) -> Option<Duration> {
        let standing = self.places.get_mut(partition)?.standing.take()?;
        Some(now.since(standing))
    }

    /// Whoever has not gone on with its partitions does so unnoticed: they count as standing still until `at`.
    pub(super) fn end_standing(&mut self, at: Timestamp) -> BTreeMap<TopicPartition, Duration> {
        let ended = |(partition, place): (&TopicPartition, &mut Place)| {
            let since = if place.given_up.is_none() { place.standing.take() } else { None };
            since.map(|since| (partition.clone(), at.since(since)))
        };
        self.places.iter_mut().filter_map(ended).collect()
    }

    /// Forgets free partitions that nobody wants.
    pub(super) fn forget_unwanted(&mut self, wanted: impl Fn(&TopicPartition) -> bool) {
        self.places.retain(|partition, place| place.given_up.is_none() || wanted(partition));
    }

    /// Forgets free partitions that were given up long ago.
    pub(super) fn forget_given_up_before(&mut self, limit: Timestamp) {
        self.places.retain(|_, place| place.given_up.is_none_or(|at| at >= limit));
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
    }

    /// Whether a member has had a partition without a break since `generation` or before.
    pub(super) fn has_held(&self, member_id: &str, partition: &TopicPartition, generation: i32) -> bool {
        self.places.get(partition).is_some_and(|place| {
            place.member_id == member_id && place.given_up.is_none() && place.since <= generation
        })
    }

    /// What a member has.
    pub(super) fn of(&self, member_id: &str) -> impl Iterator<Item = &TopicPartition> {
        self.places
            .iter()
            .filter(move |(_, place)| place.member_id == member_id && place.given_up.is_none())
            .map(|(partition, _)| partition)
    }

    /// The partitions that somebody has, with their owners.
    pub(super) fn owned(&self) -> impl Iterator<Item = (&TopicPartition, &str)> {
        self.places
            .iter()
            .filter(|(_, place)| place.given_up.is_none())
            .map(|(partition, place)| (partition, place.member_id.as_str()))
    }
}
