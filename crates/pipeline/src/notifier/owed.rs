//! What a channel that tells at once still owes: transitions in order of each series, and how far its position may be committed.
//!
//! Of one series, one notification is on its way at a time: nobody is to hear of the end before the beginning. Series don't wait for
//! each other. At most [`MAX_OWED`] are held; the topic holds the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farol_bus::{ConsumedBatch, TopicPartition};
use farol_event::AlertTransition;
use parking_lot::Mutex;

use super::attempts::MAX_WAITING;
use super::direct::due;
use super::progress::Progress;

/// How many transitions are held before no more are read.
pub(super) const MAX_OWED: usize = MAX_WAITING;

/// A transition to be told, and where it stands.
#[derive(Debug)]
pub(super) struct Next {
    partition: TopicPartition,
    offset: i64,
    pub(super) transition: AlertTransition,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// By series, those that wait for one of the same series that is on its way.
    series: BTreeMap<String, VecDeque<Next>>,
    ready: Vec<Next>,
    partitions: BTreeMap<TopicPartition, Window>,
    held: usize,
}

/// How far a partition has been read and dealt with.
#[derive(Debug, Default)]
struct Window {
    next_offset: i64,
    end_offset: i64,
    open: BTreeSet<i64>,
    committed: i64,
}

impl Window {
    fn dealt_with(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next_offset)
    }
}

impl Owed {
    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.held < MAX_OWED
    }

    /// Takes what a batch holds.
    pub(super) fn take(&mut self, batch: &ConsumedBatch, progress: &Mutex<Progress>) {
        let mut passed_over = 0;
        let window = self.partitions.entry(batch.partition.clone()).or_default();
        for record in &batch.records {
            let Some(transition) = due(record) else {
                passed_over += 1;
                continue;
            };
            window.open.insert(record.offset);
            self.held += 1;
            let series = transition.alert.series.clone();
            let next = Next { partition: batch.partition.clone(), offset: record.offset, transition };
            match self.series.get_mut(&series) {
                Some(waiting) => waiting.push_back(next),
                None => {
                    self.series.insert(series, VecDeque::new());
                    self.ready.push(next);
                }
            }
        }
        (window.next_offset, window.end_offset) = (batch.next_offset, batch.end_offset);
        progress.lock().came_to(&batch.partition, window.end_offset - window.dealt_with(), passed_over);
    }

    /// What can be told now.
    pub(super) fn take_ready(&mut self) -> Vec<Next> {
        std::mem::take(&mut self.ready)
    }

    /// One was told, or given up.
    pub(super) fn ended(&mut self, ended: &Next, progress: &Mutex<Progress>) {
        self.held = self.held.saturating_sub(1);
        self.go_on(&ended.transition.alert.series);
        if let Some(window) = self.partitions.get_mut(&ended.partition) {
            window.open.remove(&ended.offset);
            progress.lock().came_to(&ended.partition, window.end_offset - window.dealt_with(), 1);
        }
    }

    /// The positions that have moved on since this was last asked.
    pub(super) fn take_commits(&mut self) -> BTreeMap<TopicPartition, i64> {
        let moved = |(partition, window): (&TopicPartition, &mut Window)| {
            let to = window.dealt_with();
            (to > window.committed).then(|| {
                window.committed = to;
                (partition.clone(), to)
            })
        };
        self.partitions.iter_mut().filter_map(moved).collect()
    }

    /// Partitions are somebody else's now. What is on its way ends as it may.
    pub(super) fn lose(&mut self, lost: &[TopicPartition]) {
        self.partitions.retain(|partition, _| !lost.contains(partition));
        let mut held = 0;
        for waiting in self.series.values_mut() {
            let before = waiting.len();
            waiting.retain(|next| !lost.contains(&next.partition));
            held += before - waiting.len();
        }
        let (gone, kept): (Vec<Next>, Vec<Next>) =
            std::mem::take(&mut self.ready).into_iter().partition(|next| lost.contains(&next.partition));
        self.ready = kept;
        self.held = self.held.saturating_sub(held + gone.len());
        for next in gone {
            self.go_on(&next.transition.alert.series);
        }
    }

    /// The next of a series, if one waits.
    fn go_on(&mut self, series: &str) {
        match self.series.get_mut(series).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push(next),
            None => {
                self.series.remove(series);
            }
        }
    }
}
