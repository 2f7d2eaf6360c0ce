//! What a channel tells of itself in its heartbeat: what it owns, how far it has come.

use std::collections::BTreeMap;
use std::time::Duration;

use farol_bus::{ConsumedBatch, TopicPartition};
use parking_lot::Mutex;

use crate::heartbeat::Heartbeat;
use crate::system_events::SystemEvents;

/// How often a channel says that it lives, and how long a poll of its waits at most.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// What a channel's heartbeat tells.
#[derive(Default)]
pub(super) struct Progress {
    lag: BTreeMap<TopicPartition, i64>,
    processed: u64,
}

impl Progress {
    pub(super) fn gain(&mut self, partitions: &[(TopicPartition, i64)]) {
        self.lag.extend(partitions.iter().map(|(partition, _)| (partition.clone(), 0)));
    }

    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) {
        self.lag.retain(|partition, _| !partitions.contains(partition));
    }

    /// So many records of a partition are still to be dealt with, and so many more have been.
    pub(super) fn came_to(&mut self, partition: &TopicPartition, lag: i64, processed: u64) {
        self.lag.insert(partition.clone(), lag);
        self.processed += processed;
    }

    pub(super) fn done(&mut self, batches: &[ConsumedBatch]) {
        for batch in batches {
            self.lag.insert(batch.partition.clone(), batch.end_offset - batch.next_offset);
            self.processed += batch.records.len() as u64;
        }
    }

    fn report(&self) -> (Vec<String>, u64, i64) {
        (self.lag.keys().map(ToString::to_string).collect(), self.processed, self.lag.values().sum())
    }
}

/// Publishes heartbeats of consumer `name`, the only member of the group of that name. Never ends.
pub(super) async fn keep_reporting(events: &SystemEvents, name: &str, progress: &Mutex<Progress>) {
    loop {
        let (partitions, records_processed, lag_records) = progress.lock().report();
        let heartbeat = Heartbeat {
            group: name,
            partitions,
            records_processed,
            records_per_s: 0.0,
            lag_records,
            lag_ms: 0,
            errors: 0,
        };
        heartbeat.publish(events, name).await;
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}
