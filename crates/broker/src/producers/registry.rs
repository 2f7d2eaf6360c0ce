//! The producers of every partition that has some.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farol_log::{Partition, PartitionError, PartitionId, Trouble};
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::state::ProducerLimits;
use super::tracker::{Opened, Tracker};
use crate::clock::Clock;
use crate::transactions::Transactions;

/// How often snapshots are looked at.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Trackers by partition, made when first needed.
pub(crate) struct Registry {
    trackers: RwLock<HashMap<PartitionId, Arc<Tracker>>>,
    limits: ProducerLimits,
    clock: Clock,
    snapshots_rebuilt: AtomicU64,
    snapshot_failures: AtomicU64,
    failing: Trouble,
}

/// What is remembered of producers, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerStats {
    /// Producers, counted once for each partition.
    pub producers: usize,
    /// Aborted transactions in the index, counted once for each partition.
    pub aborted_transactions: usize,
    /// Producers that a partition forgot for want of room.
    pub evicted: u64,
    /// Snapshots that were damaged when the broker was opened.
    pub snapshots_rebuilt: u64,
    /// Snapshots that could not be written.
    pub snapshot_failures: u64,
}

impl Registry {
    pub(crate) fn new(limits: ProducerLimits, clock: Clock) -> Self {
        Self {
            trackers: RwLock::default(),
            limits,
            clock,
            snapshots_rebuilt: AtomicU64::new(0),
            snapshot_failures: AtomicU64::new(0),
            failing: Trouble::default(),
        }
    }

    pub(crate) fn limits(&self) -> ProducerLimits {
        self.limits
    }

    /// Reads what a partition remembers from disk. `transactions` knows which are open.
    pub(crate) fn open(
        &self,
        partition: &Partition,
        transactions: &Transactions,
    ) -> Result<(), PartitionError> {
        let (tracker, opened) = Tracker::open(partition, self.limits, self.clock.now())?;
        if opened == Opened::Rebuilt {
            self.snapshots_rebuilt.fetch_add(1, Ordering::Relaxed);
            let settled = tracker.settle_open_except(|producer_id| transactions.is_open(producer_id));
            tracing::warn!(
                partition = %partition.id(), settled,
                "the snapshot of producers was damaged; it was made again from the partition's records"
            );
        }
        if opened != Opened::NoProducers {
            let tracker = Arc::new(tracker);
            tracker.guard_compaction();
            self.trackers.write().insert(partition.id().clone(), tracker);
        }
        Ok(())
    }

    /// The producers of a partition. One that was deleted and made again begins with none.
    pub(crate) fn tracker(&self, partition: &Partition) -> Arc<Tracker> {
        if let Some(tracker) = self.trackers.read().get(partition.id())
            && tracker.partition() == partition
        {
            return Arc::clone(tracker);
        }
        let mut trackers = self.trackers.write();
        match trackers.get(partition.id()) {
            Some(tracker) if tracker.partition() == partition => Arc::clone(tracker),
            _ => {
                let tracker = Arc::new(Tracker::empty(partition.clone(), self.limits, self.clock.now()));
                if partition.is_deleted() {
                    // Whoever holds a deleted partition still must not replace the one that was made again.
                    return tracker;
                }
                tracker.guard_compaction();
                trackers.insert(partition.id().clone(), Arc::clone(&tracker));
                tracker
            }
        }
    }

    pub(crate) fn stats(&self) -> ProducerStats {
        let mut stats = ProducerStats {
            snapshots_rebuilt: self.snapshots_rebuilt.load(Ordering::Relaxed),
            snapshot_failures: self.snapshot_failures.load(Ordering::Relaxed),
            ..ProducerStats::default()
        };
        for tracker in self.trackers.read().values() {
            let (producers, aborted, evicted) = tracker.counts();
            stats.producers += producers;
            stats.aborted_transactions += aborted;
            stats.evicted += evicted;
        }
        stats
    }

    /// Writes snapshots now and then. Never ends.
    pub(crate) async fn maintain(self: Arc<Self>) {
        loop {
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
            let registry = Arc::clone(&self);
            let maintained = tokio::task::spawn_blocking(move || {
                let now = registry.clock.now();
                registry.each("writing a snapshot of producers", |tracker| tracker.maintain(now));
            });
            if maintained.await.is_err() {
                tracing::error!("the maintenance of producers panicked");
            }
        }
    }

    /// Writes every snapshot that has something new, after the log's checkpoint.
    pub(crate) fn save_all(&self) {
        let now = self.clock.now();
        self.each("writing a last snapshot of producers", |tracker| tracker.save(now));
    }

    /// Forgets a partition that was deleted.
    fn forget(&self, tracker: &Arc<Tracker>) {
        let mut trackers = self.trackers.write();
        let id = tracker.partition().id();
        if trackers.get(id).is_some_and(|known| Arc::ptr_eq(known, tracker)) {
            trackers.remove(id);
        }
    }

    /// `run` says whether it wrote something.
    fn each(&self, step: &str, run: impl Fn(&Tracker) -> Result<bool, PartitionError>) {
        let trackers: Vec<_> = self.trackers.read().values().cloned().collect();
        let (mut written, mut failed) = (false, Vec::new());
        for tracker in trackers {
            // It holds the partition, and with it the files that reading has opened: their space would stay taken.
            if tracker.partition().is_deleted() {
                self.forget(&tracker);
                continue;
            }
            match run(&tracker) {
                Ok(wrote) => written |= wrote,
                Err(PartitionError::Closed) => {}
                Err(PartitionError::Missing { .. }) => self.forget(&tracker),
                Err(error) => {
                    self.snapshot_failures.fetch_add(1, Ordering::Relaxed);
                    failed.push(error);
                }
            }
        }
        match failed.first() {
            Some(error) => {
                if let Some(untold) = self.failing.again(Instant::now()) {
                    let partitions = failed.len();
                    tracing::warn!(%error, partitions, untold, "{step} failed; opening will read more headers");
                }
            }
            None if written && self.failing.is_over() => {
                tracing::warn!("snapshots of producers are written again")
            }
            None => {}
        }
    }
}
