//! Transactions over the wire, and the ids of producers.
//!
//! A client's transaction differs from one inside the process ([`crate::TransactionalId`]): its batches go into the partitions
//! at once, as they come, and count when a marker says so. What is open or aborted, the partitions know ([`crate::producers`]);
//! who may write where and how a transaction ends is decided here ([`state`], pure).
//!
//! # How a transaction ends
//!
//! Markers to all its partitions, the offsets that it commits and the new state of its id are *one* append of the log, all or
//! nothing, across a crash too. So there is no phase between the decision and the last marker, nothing to be
//! finished after a restart, and `PrepareCommit` and `PrepareAbort` never occur.
//!
//! # Offsets in a transaction
//!
//! What a transaction will commit of a group's offsets stands in [`TRANSACTIONS_TOPIC`], too, and the group knows that it is
//! pending. With the commit it is written to the topic of committed offsets like any other commit. So that topic holds
//! nothing but what is committed, and its readers and compaction needn't know of transactions.
//!
//! # What is durable
//!
//! Every change of a transactional id is a record of the compacted topic [`TRANSACTIONS_TOPIC`] ([`record`]) before it is
//! answered. After a restart, an open transaction is still open and can be ended by its producer, fenced by the next one,
//! or run out of time. Ids of producers are taken from blocks of [`PRODUCER_ID_BLOCK`], each written down before its first is
//! given away, so an id never comes twice.
//!
//! # Limits
//!
//! A transaction is open for [`MAX_TRANSACTION_TIMEOUT`] at most and has [`MAX_TRANSACTION_PARTITIONS`] partitions, all open ones
//! together [`MAX_OPEN_PARTITIONS`], and [`MAX_TRANSACTION_GROUPS`] groups; there are [`MAX_TRANSACTIONAL_IDS`] ids, each forgotten a week after its last use.
//!
//! # Failures
//!
//! If a partition of an open transaction takes no more appends, the transaction can't be ended until the broker is opened
//! again; ending it answers with the reason, and the time-out tries again. A partition that was deleted needs no marker.

pub(crate) mod held;
pub(crate) mod record;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farol_log::{AppendRequest, Appended, Batch, BatchBuilder, Marker, Partition};
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::error::BrokerError;
use crate::groups::{Groups, InFlightCommit, MAX_NAME_BYTES, OffsetChange, OffsetCommit};
use crate::offsets;
use crate::partition::TopicPartition;
use crate::producers::tracker::{EndOfTransaction, Tracker};
use crate::topic::{OFFSETS_TOPIC, read_records};
use record::StateRecord;
use state::{Change, Coordinator, Step};
pub use state::{
    MAX_OPEN_PARTITIONS, MAX_TRANSACTION_GROUPS, MAX_TRANSACTION_PARTITIONS, MAX_TRANSACTION_TIMEOUT,
    MAX_TRANSACTIONAL_IDS, ProducerIdentity, Status, TransactionError, Transactional,
};

/// The topic of transactional ids.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
/// Ids that are taken at a time.
pub const PRODUCER_ID_BLOCK: i64 = 1000;
/// How often open transactions are looked at: Kafka's `transaction.abort.timed.out.transaction.cleanup.interval.ms`, but sooner.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often unused ids are looked for, in expiry intervals.
const FORGET_EVERY: u32 = 600;

/// The shell around the coordinator.
pub(crate) struct Transactions {
    coordinator: Mutex<Coordinator>,
    /// Held while a block is being taken.
    ids: tokio::sync::Mutex<ProducerIds>,
    partition: Partition,
    clock: Clock,
    timed_out: AtomicU64,
}

/// Offsets that an open transaction holds.
pub(crate) struct HeldOffsets {
    pub(crate) producer_id: i64,
    pub(crate) commit: OffsetCommit,
}

/// Ids that are taken and not given away.
#[derive(Debug, Clone, Copy)]
struct ProducerIds {
    next: i64,
    end: i64,
}

/// What the task that watches open transactions does again and again.
#[derive(Debug, Default)]
pub(crate) struct ExpiryRounds {
    rounds: u32,
}

/// A change on its way through the log, shared by its precondition and its completion.
struct InFlightChange {
    transactions: Arc<Transactions>,
    change: Change,
    /// The partitions that get a marker, in the order of the request.
    trackers: Vec<Arc<Tracker>>,
    groups: Arc<Groups>,
    /// The offsets that are committed with it.
    offsets: Option<Arc<InFlightCommit>>,
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Admitted,
    Finished,
}

impl Transactions {
    /// Reads the topic's partition.
    ///
    /// Gives the offsets that open transactions hold, too, for the groups to know.
    pub(crate) fn load(partition: &Partition, clock: Clock) -> Result<(Self, Vec<HeldOffsets>), BrokerError> {
        let mut coordinator = Coordinator::default();
        let mut held = BTreeMap::new();
        let mut next_id = 0;
        let mut unknown = 0u64;
        read_records(TRANSACTIONS_TOPIC, partition, |key, value| match StateRecord::decode(key, value) {
            Some(StateRecord::Id(id, state)) => coordinator.restore(id, *state),
            Some(StateRecord::Forgotten(id)) => coordinator.forget(&id),
            Some(StateRecord::NextProducerId(next)) => next_id = next,
            Some(StateRecord::Offsets { transactional_id, group, pending: Some(pending) }) => {
                held.insert((transactional_id, group), pending);
            }
            Some(StateRecord::Offsets { transactional_id, group, pending: None }) => {
                held.remove(&(transactional_id, group));
            }
            None => unknown += 1,
        })?;
        if unknown > 0 {
            tracing::warn!(unknown, topic = TRANSACTIONS_TOPIC, "records of an unknown layout were skipped");
        }
        let held = held
            .into_iter()
            .filter(|((id, group), pending)| coordinator.restore_group(id, pending.producer, group))
            .map(|((_, group), pending)| HeldOffsets {
                producer_id: pending.producer.producer_id,
                commit: OffsetCommit { group, committer: None, offsets: pending.offsets },
            })
            .collect();
        let transactions = Self {
            coordinator: Mutex::new(coordinator),
            // What was taken before and not given away is lost, which is why an id never comes twice.
            ids: tokio::sync::Mutex::new(ProducerIds { next: next_id, end: next_id }),
            partition: partition.clone(),
            clock,
            timed_out: AtomicU64::new(0),
        };
        Ok((transactions, held))
    }

    /// See [`Coordinator::may_write`].
    pub(crate) fn may_write(
        &self,
        producer: ProducerIdentity,
        partition: &TopicPartition,
    ) -> Result<(), TransactionError> {
        self.coordinator.lock().may_write(producer, partition)
    }

    /// Whether a producer has a transaction open.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.coordinator.lock().is_open(producer_id)
    }

    /// Transactions that ran out of time since the broker was opened.
    pub(crate) fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Transactions that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.coordinator.lock().ids().filter(|(_, state)| state.status == Status::Ongoing).count()
    }
}

impl Broker {
    /// An id for a producer, and the epoch that it begins with. A producer without transactions gets a new id. One with a
    /// transactional id becomes the one in force: its open transaction, if any, is aborted, and producers before it are
    /// fenced. With `expected` it says which producer it was.
    ///
    /// # Errors
    /// [`BrokerError::Transaction`], [`BrokerError::TooLarge`] for an id that is too long, and those of [`Broker::append`].
    pub async fn init_producer(
        &self,
        transactional_id: Option<&str>,
        timeout_ms: i32,
        expected: Option<ProducerIdentity>,
    ) -> Result<ProducerIdentity, BrokerError> {
        self.check_open()?;
        let fresh_id = self.new_producer_id().await?;
        let Some(id) = transactional_id else {
            return Ok(ProducerIdentity { producer_id: fresh_id, epoch: 0 });
        };
        check_id(id)?;
        let transactions = self.transactions();
        let now = transactions.clock.now();
        let (step, identity) =
            transactions.coordinator.lock().begin_init(id, timeout_ms, expected, fresh_id, now)?;
        self.carry_out(step).await?;
        Ok(identity)
    }

    /// Adds partitions to the producer's transaction, which begins if none is open.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], then nothing is added; [`BrokerError::Transaction`], and those of
    /// [`Broker::append`].
    pub async fn add_to_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<(), BrokerError> {
        for partition in partitions {
            self.partition(partition)?;
        }
        let transactions = self.transactions();
        let now = transactions.clock.now();
        let step = transactions.coordinator.lock().begin_add(transactional_id, producer, partitions, now)?;
        self.carry_out(step).await
    }

    /// Commits or aborts the producer's transaction.
    ///
    /// # Errors
    /// [`BrokerError::Transaction`], and those of [`Broker::append`]; the transaction is then still open.
    pub async fn end_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        marker: Marker,
    ) -> Result<(), BrokerError> {
        let transactions = self.transactions();
        let now = transactions.clock.now();
        let step = transactions.coordinator.lock().begin_end(transactional_id, producer, marker, now)?;
        self.carry_out(step).await
    }

    /// One transactional id.
    pub fn transaction(&self, transactional_id: &str) -> Option<Transactional> {
        self.transactions().coordinator.lock().describe(transactional_id)
    }

    /// Transactional ids, sorted, with what `look` takes of each; those are left out of which it takes nothing. It is called under the lock
    /// that the thread that commits takes, too.
    pub fn transactional_ids<T>(&self, look: impl Fn(&Transactional) -> Option<T>) -> Vec<(String, T)> {
        let mut found: Vec<_> = {
            let coordinator = self.transactions().coordinator.lock();
            coordinator.ids().filter_map(|(id, state)| Some((id.to_owned(), look(state)?))).collect()
        };
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// An id that no producer has, had or will have.
    async fn new_producer_id(&self) -> Result<i64, BrokerError> {
        let transactions = self.transactions();
        let mut ids = transactions.ids.lock().await;
        if ids.next >= ids.end {
            let end = ids.end.saturating_add(PRODUCER_ID_BLOCK);
            let record = StateRecord::NextProducerId(end);
            let batch = encode(&[record], transactions.clock.now().as_millis())?;
            self.append(vec![(transactions.partition.clone(), batch)]).await?;
            *ids = ProducerIds { next: ids.end, end };
        }
        let id = ids.next;
        ids.next += 1;
        Ok(id)
    }

    async fn carry_out(&self, step: Step) -> Result<(), BrokerError> {
        match step {
            Step::Done => self.check_open(),
            Step::Write(change) => self.write_change(*change).await,
        }
    }

    /// Appends markers and the new state in one step.
    async fn write_change(&self, change: Change) -> Result<(), BrokerError> {
        let transactions = Arc::clone(self.transactions());
        let now_ms = transactions.clock.now().as_millis();
        // A deleted partition needs no marker.
        let partitions: Vec<Partition> = change.ending.as_ref().map_or_else(Vec::new, |ending| {
            // Nor does that of committed offsets, where only what is committed stands.
            let marked = ending.partitions.iter().filter(|partition| &*partition.topic != OFFSETS_TOPIC);
            marked.filter_map(|partition| self.partition(partition).ok()).collect()
        });
        let mut in_flight = InFlightChange {
            transactions: Arc::clone(&transactions),
            change,
            trackers: partitions.iter().map(|partition| self.producers().tracker(partition)).collect(),
            groups: Arc::clone(self.groups()),
            offsets: None,
            stage: Mutex::new(Stage::Queued),
        };
        for tracker in &in_flight.trackers {
            tracker.mark(self.producers().limits()).await.map_err(|source| BrokerError::Snapshot {
                partition: tracker.partition().id().to_string(),
                problem: source.to_string(),
            })?;
        }
        let (record, marker) = in_flight.change.encode(now_ms)?;
        let mut batches: Vec<(Partition, Batch)> =
            marker.iter().flat_map(|marker| partitions.iter().map(|p| (p.clone(), marker.clone()))).collect();
        batches.push((transactions.partition.clone(), record));
        let mut offsets = in_flight.committed_offsets();
        if let Some(batch) = offsets::encode(&mut offsets, now_ms)? {
            batches.push((self.offsets_partition().clone(), batch));
            in_flight.offsets = Some(InFlightCommit::new(Arc::clone(self.groups()), offsets, None));
        }
        let in_flight = Arc::new(in_flight);
        let deciding = Arc::clone(&in_flight);
        let request =
            AppendRequest::new(batches).with_precondition(move || deciding.admit().map_err(Into::into));
        let written = self.submit(request, move |outcome| in_flight.finish(outcome.as_ref().ok())).await;
        match written {
            Ok(_) => Ok(()),
            // Deleted between the look at it and the append: the next attempt doesn't find it.
            Err(BrokerError::UnknownTopicOrPartition(_)) => Err(TransactionError::Concurrent.into()),
            Err(error) => Err(error),
        }
    }

    /// Aborts the transactions whose time is up.
    async fn abort_expired(&self) {
        let transactions = self.transactions();
        let now = transactions.clock.now();
        let expired = transactions.coordinator.lock().expired(now);
        for id in expired {
            let change = transactions.coordinator.lock().begin_expire(&id, now);
            let Some(change) = change else { continue };
            match self.write_change(change).await {
                Ok(()) => {
                    transactions.timed_out.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(transactional_id = id, "transaction aborted: its time was up");
                }
                Err(error) => tracing::debug!(transactional_id = id, %error, "abort failed"),
            }
        }
    }

    async fn forget_unused_ids(&self) {
        let transactions = self.transactions();
        let now = transactions.clock.now();
        let names = transactions.coordinator.lock().names();
        for id in names {
            let change = transactions.coordinator.lock().begin_forget(&id, now);
            let Some(change) = change else { continue };
            if let Err(error) = self.write_change(change).await {
                tracing::debug!(transactional_id = id, %error, "forgetting failed");
            }
        }
    }
}

impl ExpiryRounds {
    pub(crate) async fn wait(&self) {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
    }

    /// Aborts what has run out of time, and forgets unused ids now and then.
    pub(crate) async fn run(&mut self, broker: &Broker) {
        broker.abort_expired().await;
        self.rounds += 1;
        if self.rounds >= FORGET_EVERY {
            self.rounds = 0;
            broker.forget_unused_ids().await;
        }
    }
}

impl InFlightChange {
    /// The offsets that are committed with the change.
    fn committed_offsets(&self) -> Vec<OffsetChange> {
        let Some(ending) = self.change.ending.as_ref().filter(|ending| ending.marker == Marker::Commit)
        else {
            return Vec::new();
        };
        let commit = |group: &String| {
            let offsets = self.groups.pending(ending.producer_id, group);
            // Who commits was checked when the transaction took the offsets.
            OffsetChange::Commit(OffsetCommit { group: group.clone(), committer: None, offsets })
        };
        ending.groups.iter().map(commit).collect()
    }

    /// Run by the thread that commits, just before the markers are written.
    fn admit(&self) -> Result<(), BrokerError> {
        if let Some(offsets) = &self.offsets {
            offsets.decide()?;
        }
        *self.stage.lock() = Stage::Admitted;
        for tracker in &self.trackers {
            tracker.admit_marker();
        }
        Ok(())
    }

    /// The append has ended: if it was written, the change counts.
    fn finish(&self, appended: Option<&Appended>) {
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Finished);
        if stage == Stage::Finished {
            return;
        }
        if let Some(ending) = self.change.ending.as_ref().filter(|_| stage == Stage::Admitted) {
            let end = EndOfTransaction {
                producer_id: ending.producer_id,
                epoch: ending.epoch,
                marker: ending.marker,
            };
            let now = self.transactions.clock.now();
            for (place, tracker) in self.trackers.iter().enumerate() {
                let offset = appended.and_then(|appended| appended.base_offsets.get(place).copied());
                tracker.finish_marker(end, offset, now);
            }
            if let Some(offsets) = &self.offsets {
                offsets.finish(appended.is_some());
            }
            if appended.is_some() {
                for group in &ending.groups {
                    self.groups.end_pending(ending.producer_id, group);
                }
            }
        }
        self.transactions.coordinator.lock().finish(self.change.clone(), appended.is_some());
    }
}

impl Drop for InFlightChange {
    /// A caller that was dropped before the append, or a log that forgot its callback, must not leave the id busy for ever.
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl Change {
    /// The records of the new state, and the marker for each partition.
    fn encode(&self, now_ms: i64) -> Result<(Batch, Option<Batch>), BrokerError> {
        let id = || self.transactional_id.clone();
        let mut records = vec![match &self.next {
            Some(next) => StateRecord::Id(id(), Box::new(next.clone())),
            None => StateRecord::Forgotten(id()),
        }];
        let groups = self.ending.iter().flat_map(|ending| &ending.groups);
        records.extend(groups.map(|group| StateRecord::Offsets {
            transactional_id: id(),
            group: group.clone(),
            pending: None,
        }));
        let marker = self.ending.as_ref().map(|ending| {
            Batch::marker(ending.marker, ending.producer_id, ending.epoch, now_ms)
                .map_err(BrokerError::Encode)
        });
        Ok((encode(&records, now_ms)?, marker.transpose()?))
    }
}

impl From<TransactionError> for BrokerError {
    fn from(error: TransactionError) -> Self {
        Self::Transaction(error)
    }
}

fn check_id(transactional_id: &str) -> Result<(), BrokerError> {
    let bytes = transactional_id.len();
    if bytes > MAX_NAME_BYTES {
        return Err(BrokerError::TooLarge { what: "transactional id", bytes, limit: MAX_NAME_BYTES });
    }
    Ok(())
}

fn encode(records: &[StateRecord], now_ms: i64) -> Result<Batch, BrokerError> {
    let mut builder = BatchBuilder::default();
    for record in records {
        let (key, value) = (record.encode_key(), record.encode_value());
        builder.push(Some(&key), value.as_deref(), &[], now_ms).map_err(BrokerError::Encode)?;
    }
    builder.build().map_err(BrokerError::Encode)
}
