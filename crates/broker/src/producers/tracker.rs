//! The producers of one partition, shared by whoever commits, readers and the task that writes snapshots.
//!
//! The lock is held for microseconds, never across an await or a call that writes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::{
    AppendError, Appended, BatchHeader, CompactionGuard, Marker, Partition, PartitionError, ReadError, Verify,
};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, oneshot};

use super::aborted::AbortedTransaction;
use super::snapshot::{self, FILE_NAME, MAX_SNAPSHOT_BYTES};
use super::state::{
    Admission, Fate, ProducerDescription, ProducerError, ProducerLimits, ProducerState, last_sequence,
};

/// Bytes appended to a partition after which its snapshot is written again: opening reads that much of headers.
const SNAPSHOT_AFTER_BYTES: u64 = 8 * 1024 * 1024;
/// The time after which a changed state is written in any case.
const SNAPSHOT_AFTER: Duration = Duration::from_secs(30);

/// One partition's producers.
pub(crate) struct Tracker {
    partition: Partition,
    inner: Mutex<Inner>,
    /// Set when the partition has a snapshot file, so that opening knows that there are producers.
    marked: OnceCell<()>,
}

struct Inner {
    state: ProducerState,
    /// Appends of producers and of markers that were admitted and aren't decided.
    in_flight: u32,
    /// After the last batch that the state knows.
    applied_through: i64,
    /// Who waits for a batch that is on its way.
    waiters: Vec<(Identity, oneshot::Sender<Option<i64>>)>,
    snapshots: Snapshots,
}

/// What names a batch among those on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    producer_id: i64,
    epoch: i16,
    first: i32,
    last: i32,
}

/// When the last snapshot was taken, and one that waits until it may be written.
struct Snapshots {
    taken_at: Timestamp,
    taken_bytes: u64,
    changed: bool,
    waiting: Option<Waiting>,
    /// Nothing that was aborted is left below this offset, and the index has forgotten it.
    pruned_through: i64,
    /// The same as the file says.
    pruned_through_on_disk: i64,
}

/// A snapshot that may be written when the log has made durable what it speaks of.
struct Waiting {
    covered: i64,
    pruned_through: i64,
    encoded: Vec<u8>,
}

/// What compaction asks of a partition's producers.
struct Guard(Weak<Tracker>);

/// What [`Tracker::admit`] says.
pub(crate) enum Admitted {
    /// It is to be appended.
    Append,
    /// It stands at this offset already.
    At(i64),
    /// It is on its way; gives its offset, or `None` if its append fails.
    OnItsWay(oneshot::Receiver<Option<i64>>),
}

/// What opening a partition's producers found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// There never was a producer.
    NoProducers,
    /// The snapshot, and what came after it.
    Restored,
    /// The snapshot was damaged, so everything came from the partition's headers.
    Rebuilt,
}

/// A marker that ends a transaction in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndOfTransaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) marker: Marker,
}

impl Identity {
    fn of(header: &BatchHeader) -> Self {
        Self {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first: header.base_sequence,
            last: last_sequence(header),
        }
    }
}

impl Tracker {
    /// Of a partition that never had a producer.
    pub(crate) fn empty(partition: Partition, limits: ProducerLimits, now: Timestamp) -> Self {
        Self::with_state(partition, ProducerState::new(limits), 0, now, false)
    }

    fn with_state(
        partition: Partition,
        state: ProducerState,
        applied_through: i64,
        now: Timestamp,
        is_marked: bool,
    ) -> Self {
        let snapshots = Snapshots {
            taken_at: now,
            taken_bytes: 0,
            changed: false,
            waiting: None,
            pruned_through: 0,
            pruned_through_on_disk: 0,
        };
        let inner = Inner { state, in_flight: 0, applied_through, waiters: Vec::new(), snapshots };
        let marked = OnceCell::new_with(is_marked.then_some(()));
        Self { partition, inner: Mutex::new(inner), marked }
    }

    /// Reads the snapshot and the headers of what came after it.
    pub(crate) fn open(
        partition: &Partition,
        limits: ProducerLimits,
        now: Timestamp,
    ) -> Result<(Self, Opened), PartitionError> {
        let Some(bytes) = partition.load_companion(FILE_NAME, MAX_SNAPSHOT_BYTES)? else {
            return Ok((Self::empty(partition.clone(), limits, now), Opened::NoProducers));
        };
        let end_offset = partition.end_offset();
        let usable =
            snapshot::decode(&bytes, limits).filter(|(_, covered)| (0..=end_offset).contains(covered));
        let (mut state, covered, opened) = match usable {
            Some((state, covered)) => (state, covered, Opened::Restored),
            None => (ProducerState::new(limits), 0, Opened::Rebuilt),
        };
        replay(partition, covered.max(partition.start_offset()), &mut state, now)
            .map_err(|source| PartitionError::Read { partition: partition.id().clone(), source })?;
        let tracker = Self::with_state(partition.clone(), state, end_offset, now, true);
        tracker.inner.lock().snapshots.changed = opened == Opened::Rebuilt || covered < end_offset;
        Ok((tracker, opened))
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Makes sure that the partition has a snapshot file, before its first producer writes.
    pub(crate) async fn mark(self: &Arc<Self>, limits: ProducerLimits) -> Result<(), PartitionError> {
        let marking = Arc::clone(self);
        let marked = self.marked.get_or_try_init(|| async move {
            // Nothing below had a producer, and no recovery cuts the partition shorter than this. Looked at now: what is begun below
            // goes on if the caller doesn't wait for it, and may come after the first batch of a producer.
            let covered = marking.partition.durable_offset();
            let saved = tokio::task::spawn_blocking(move || {
                let empty = snapshot::encode(&ProducerState::new(limits), covered);
                marking.partition.save_companion(FILE_NAME, &empty)
            });
            saved.await.unwrap_or(Err(PartitionError::Closed))
        });
        marked.await.copied()
    }

    /// Whether a producer's batch may be written: see [`ProducerState::admit`]. Asked by the thread that commits.
    pub(crate) fn admit(&self, header: &BatchHeader, now: Timestamp) -> Result<Admitted, ProducerError> {
        let end_offset = self.partition.end_offset();
        let mut inner = self.inner.lock();
        Ok(match inner.state.admit(header, end_offset, now)? {
            Admission::Append => {
                inner.in_flight += 1;
                Admitted::Append
            }
            Admission::Duplicate(base_offset) => Admitted::At(base_offset),
            Admission::DuplicateOnItsWay => {
                let (sender, receiver) = oneshot::channel();
                inner.waiters.push((Identity::of(header), sender));
                Admitted::OnItsWay(receiver)
            }
        })
    }

    /// What was admitted has been appended, or not.
    pub(crate) fn finish(&self, header: &BatchHeader, base_offset: Option<i64>) {
        let mut inner = self.inner.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        match base_offset {
            Some(base_offset) => {
                inner.state.complete(header, base_offset);
                inner.note_applied(base_offset.saturating_add(i64::from(header.last_offset_delta)));
            }
            None => inner.state.withdraw(header),
        }
        let finished = Identity::of(header);
        let (done, waiting) =
            std::mem::take(&mut inner.waiters).into_iter().partition(|(identity, _)| *identity == finished);
        inner.waiters = waiting;
        drop(inner);
        for (_, waiter) in done {
            // Whoever was dropped doesn't want to know.
            let _ = waiter.send(base_offset);
        }
    }

    /// A marker is about to be written.
    pub(crate) fn admit_marker(&self) {
        self.inner.lock().in_flight += 1;
    }

    /// The marker stands at `offset`, or wasn't written.
    pub(crate) fn finish_marker(&self, end: EndOfTransaction, offset: Option<i64>, now: Timestamp) {
        let mut inner = self.inner.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        if let Some(offset) = offset {
            inner.state.end(end.producer_id, end.epoch, end.marker, offset, now);
            inner.note_applied(offset);
        }
    }

    /// The offset up to which readers of committed records may read. It never goes back.
    pub(crate) fn stable_offset(&self) -> i64 {
        // The end first: a batch that opens a transaction behind it was admitted before it became readable.
        let end_offset = self.partition.end_offset();
        let stable = self.inner.lock().state.stable_offset(end_offset);
        stable.max(self.partition.start_offset())
    }

    /// The aborted transactions that a reader of `from..to` must know, `to` being at most the last stable offset.
    pub(crate) fn aborted_in(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        self.inner.lock().state.aborted_in(from, to)
    }

    pub(crate) fn fate(&self, header: &BatchHeader) -> Fate {
        self.inner.lock().state.fate(header)
    }

    /// The producers, by id.
    pub(crate) fn describe(&self) -> Vec<ProducerDescription> {
        self.inner.lock().state.describe()
    }

    /// See [`ProducerState::settle_open_except`].
    pub(crate) fn settle_open_except(&self, is_open: impl FnMut(i64) -> bool) -> usize {
        self.inner.lock().state.settle_open_except(is_open)
    }

    /// Lets compaction ask.
    pub(crate) fn guard_compaction(self: &Arc<Self>) {
        self.partition.set_compaction_guard(Arc::new(Guard(Arc::downgrade(self))));
    }

    /// Producers and aborted transactions remembered, and producers forgotten for want of room.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let inner = self.inner.lock();
        (inner.state.producer_count(), inner.state.aborted_count(), inner.state.evicted())
    }

    /// Forgets what has expired, takes a snapshot if it is time, and writes the one that waits if it may. Blocks for
    /// the disk. Whether it wrote one.
    pub(crate) fn maintain(&self, now: Timestamp) -> Result<bool, PartitionError> {
        if !self.marked.initialized() {
            return Ok(false);
        }
        let start_offset = self.partition.start_offset();
        let appended_bytes = self.partition.metrics().bytes;
        {
            let mut inner = self.inner.lock();
            inner.state.prune_before(start_offset);
            let expired = inner.state.expire(now);
            inner.snapshots.changed |= expired > 0;
            if inner.snapshots.is_due(appended_bytes, now) {
                self.take_snapshot(&mut inner, appended_bytes, now);
            }
        }
        self.write_waiting()
    }

    /// Writes a snapshot of all that the log has made durable. Blocks for the disk. Whether it wrote one.
    pub(crate) fn save(&self, now: Timestamp) -> Result<bool, PartitionError> {
        let appended_bytes = self.partition.metrics().bytes;
        {
            let mut inner = self.inner.lock();
            if !self.marked.initialized()
                || !(inner.snapshots.changed || appended_bytes > inner.snapshots.taken_bytes)
            {
                return Ok(false);
            }
            self.take_snapshot(&mut inner, appended_bytes, now);
        }
        self.write_waiting()
    }

    fn take_snapshot(&self, inner: &mut Inner, appended_bytes: u64, now: Timestamp) {
        // With nothing in flight, whatever came after the last producer's batch had no producer.
        let covered = if inner.in_flight == 0 { self.partition.end_offset() } else { inner.applied_through };
        let encoded = snapshot::encode(&inner.state, covered);
        inner.snapshots.taken_at = now;
        inner.snapshots.taken_bytes = appended_bytes;
        inner.snapshots.changed = false;
        if encoded.len() > MAX_SNAPSHOT_BYTES {
            tracing::warn!(
                partition = %self.partition.id(), bytes = encoded.len(),
                "the snapshot of producers is too large to be written; opening will read more headers"
            );
            return;
        }
        let pruned_through = inner.snapshots.pruned_through;
        inner.snapshots.waiting = Some(Waiting { covered, pruned_through, encoded });
    }

    fn write_waiting(&self) -> Result<bool, PartitionError> {
        let durable_offset = self.partition.durable_offset();
        let due = self.inner.lock().snapshots.waiting.take_if(|waiting| waiting.covered <= durable_offset);
        let Some(due) = due else { return Ok(false) };
        let saved = self.partition.save_companion(FILE_NAME, &due.encoded);
        let mut inner = self.inner.lock();
        match &saved {
            Ok(()) => inner.snapshots.pruned_through_on_disk = due.pruned_through,
            Err(_) => inner.snapshots.changed = true,
        }
        saved.map(|()| true)
    }
}

impl CompactionGuard for Guard {
    fn stable_offset(&self) -> i64 {
        // Without the tracker nobody knows, so nothing is compacted.
        self.0.upgrade().map_or(0, |tracker| tracker.stable_offset())
    }

    fn is_aborted(&self, batch: &BatchHeader) -> bool {
        self.0.upgrade().is_some_and(|tracker| tracker.fate(batch) == Fate::Aborted)
    }

    fn needs_marker(&self, offset: i64) -> bool {
        // As long as the file lists an aborted transaction, a restart tells clients of it, and they wait for its marker.
        self.0.upgrade().is_none_or(|tracker| offset >= tracker.inner.lock().snapshots.pruned_through_on_disk)
    }

    fn compacted_through(&self, offset: i64) {
        let Some(tracker) = self.0.upgrade() else { return };
        let mut inner = tracker.inner.lock();
        inner.state.prune_before(offset);
        inner.snapshots.pruned_through = offset;
        inner.snapshots.changed = true;
    }
}

impl Inner {
    fn note_applied(&mut self, last_offset: i64) {
        self.applied_through = self.applied_through.max(last_offset.saturating_add(1));
        self.snapshots.changed = true;
    }
}

impl Snapshots {
    fn is_due(&self, appended_bytes: u64, now: Timestamp) -> bool {
        self.waiting.is_none()
            && (appended_bytes.saturating_sub(self.taken_bytes) >= SNAPSHOT_AFTER_BYTES
                || (self.changed && self.taken_at.saturating_add(SNAPSHOT_AFTER) <= now))
    }
}

/// The base offset that an append of one batch got.
pub(crate) fn base_offset_of(outcome: &Result<Appended, AppendError>) -> Option<i64> {
    outcome.as_ref().ok().and_then(|appended| appended.base_offsets.first().copied())
}

/// Takes note of everything from `from` on.
fn replay(
    partition: &Partition,
    from: i64,
    state: &mut ProducerState,
    now: Timestamp,
) -> Result<(), ReadError> {
    let mut failed = None;
    partition.visit_headers(from, |header| {
        if failed.is_some() || header.producer_id < 0 {
            return;
        }
        match marker_of(partition, header) {
            Ok(marker) => state.replay(header, marker, now),
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// The marker that a batch of the partition is.
fn marker_of(partition: &Partition, header: &BatchHeader) -> Result<Option<Marker>, ReadError> {
    if !header.is_control() {
        return Ok(None);
    }
    let fetched = partition.read(header.base_offset, 1, Verify::Checksums)?;
    let damaged = |source| ReadError::Damaged {
        path: partition.id().as_str().into(),
        position: u64::try_from(header.base_offset).unwrap_or(0),
        source,
    };
    match fetched.batches().next() {
        Some(batch) => batch.and_then(|batch| batch.as_marker()).map_err(damaged),
        None => Ok(None),
    }
}
