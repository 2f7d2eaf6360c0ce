//! The transaction coordinator: pure.
//!
//! Each transactional id has one producer in force, named by its producer id and epoch, and at most one open transaction.
//! A change is decided by a `begin_…` call, which gives a [`Change`] to be written to the log, and takes effect with
//! [`Coordinator::finish`]. Until then the id is *busy* and refuses other changes, as Kafka does.
//!
//! ```text
//! (unknown) ──init──► Empty ──add──► Ongoing ──end──► CompleteCommit | CompleteAbort ──add──► Ongoing …
//!                       ▲               │ init, time-out: aborts, with a new epoch
//!                       └───────init────┘
//! ```
//!
//! Kafka has two more states, between the decision and the last marker. Here markers, pending offsets and the new state are one
//! append of the log, all or nothing, so there is nothing in between.

use std::collections::BTreeSet;
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::Marker;
use hashbrown::HashMap;

use crate::partition::TopicPartition;

/// Longest time that a transaction may stay open: Kafka's `transaction.max.timeout.ms`.
pub const MAX_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Partitions that one transaction may have.
pub const MAX_TRANSACTION_PARTITIONS: usize = 4096;
/// Partitions that all open transactions may have together: they are held in memory, and again at the next start.
pub const MAX_OPEN_PARTITIONS: usize = 1_000_000;
/// Groups whose offsets one transaction may commit.
pub const MAX_TRANSACTION_GROUPS: usize = 64;
/// Transactional ids that are known at a time.
pub const MAX_TRANSACTIONAL_IDS: usize = 100_000;
/// How long an unused id is known: Kafka's `transactional.id.expiration.ms`.
const ID_EXPIRATION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The last epoch is never given to a producer, so that there is always one to fence with.
const LAST_EPOCH: i16 = i16::MAX - 1;
const NO_TIME: i64 = -1;

/// Why a transactional call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The id is unknown, or has another producer id.
    #[error("the producer id is not the one of this transactional id")]
    UnknownProducerId,
    /// A newer producer has the id.
    #[error("a newer producer has the transactional id")]
    Fenced,
    /// The epoch is older than the one in force: the same to a batch.
    #[error("the producer's epoch is not in force any more")]
    InvalidEpoch,
    /// Another change of the same id is on its way.
    #[error("another change of the same transactional id is on its way")]
    Concurrent,
    /// It can't be done in the state that the transaction is in.
    #[error("the transaction's state doesn't allow it: {problem}")]
    InvalidState {
        /// What doesn't fit.
        problem: &'static str,
    },
    /// The timeout is not positive, or over [`MAX_TRANSACTION_TIMEOUT`].
    #[error("the transaction timeout of {timeout_ms} ms is not between 1 ms and 15 minutes")]
    InvalidTimeout {
        /// What was asked for.
        timeout_ms: i32,
    },
    /// A bound was passed.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

/// Where a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// No transaction yet.
    #[default]
    Empty,
    /// A transaction is open.
    Ongoing,
    /// The last one was committed.
    CompleteCommit,
    /// The last one was aborted.
    CompleteAbort,
}

/// A transactional id as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transactional {
    /// The producer in force.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The epoch before it, if a producer that missed the answer may ask for its own again. Not kept on disk.
    pub(crate) previous_epoch: Option<i16>,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// Where it stands.
    pub status: Status,
    /// The open transaction's partitions. Among them is that of committed offsets if it may commit some.
    pub partitions: BTreeSet<TopicPartition>,
    /// The groups whose offsets it will commit. Each has a record of its own on disk.
    pub(crate) groups: BTreeSet<String>,
    /// When the open transaction began, milliseconds since the Unix epoch; -1 if there is none.
    pub started_at_ms: i64,
    /// When it last changed.
    pub changed_at_ms: i64,
}

/// A change to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) transactional_id: String,
    /// How the id stands afterwards; `None` if it is to be forgotten.
    pub(crate) next: Option<Transactional>,
    /// The markers that go with it.
    pub(crate) ending: Option<Ending>,
}

/// The markers that end a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) producer_id: i64,
    /// The producer's, or the next one if the producer is to be fenced.
    pub(crate) epoch: i16,
    pub(crate) marker: Marker,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    /// The groups whose offsets go with it, one way or the other.
    pub(crate) groups: BTreeSet<String>,
}

/// What a call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it holds already.
    Done,
    /// This change.
    Write(Box<Change>),
}

/// A producer, as it names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// All transactional ids.
#[derive(Debug)]
pub(crate) struct Coordinator {
    ids: HashMap<String, Entry>,
    /// Which transactional id a producer belongs to.
    by_producer: HashMap<i64, String>,
    /// Partitions that are counted, of all ids.
    open_partitions: usize,
    max_open_partitions: usize,
}

#[derive(Debug)]
struct Entry {
    state: Transactional,
    busy: Busy,
    /// Partitions of its transaction that are counted among the open ones: those that are being added, too.
    counted: usize,
}

/// Whether a change of an id is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    No,
    /// One that leaves its transaction open.
    Adding,
    /// One after which the transaction is over, or the producer another.
    Ending,
}

impl Status {
    /// Kafka's number for it.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    pub(crate) fn from_code(code: i8) -> Option<Self> {
        [Self::Empty, Self::Ongoing, Self::CompleteCommit, Self::CompleteAbort]
            .into_iter()
            .find(|status| status.code() == code)
    }

    /// Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

impl Default for Transactional {
    fn default() -> Self {
        Self {
            producer_id: -1,
            epoch: -1,
            previous_epoch: None,
            timeout_ms: 0,
            status: Status::Empty,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            started_at_ms: NO_TIME,
            changed_at_ms: NO_TIME,
        }
    }
}

impl Transactional {
    /// Its producer in force.
    pub fn producer(&self) -> ProducerIdentity {
        ProducerIdentity { producer_id: self.producer_id, epoch: self.epoch }
    }

    /// The same after its transaction has ended with `ending`.
    fn ended(&self, ending: &Ending, now: Timestamp) -> Self {
        Self {
            epoch: ending.epoch,
            // A producer that was fenced can't come back by asking again.
            previous_epoch: if ending.epoch == self.epoch { self.previous_epoch } else { None },
            status: match ending.marker {
                Marker::Commit => Status::CompleteCommit,
                Marker::Abort => Status::CompleteAbort,
            },
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            started_at_ms: NO_TIME,
            changed_at_ms: now.as_millis(),
            ..*self
        }
    }

    /// The markers that abort its transaction and fence its producer.
    fn fencing_abort(&self) -> Ending {
        Ending {
            producer_id: self.producer_id,
            epoch: self.epoch.saturating_add(1),
            marker: Marker::Abort,
            partitions: self.partitions.clone(),
            groups: self.groups.clone(),
        }
    }

    /// When it is to be aborted if it is still open.
    fn deadline_ms(&self) -> i64 {
        self.started_at_ms.saturating_add(i64::from(self.timeout_ms))
    }
}

impl Default for Coordinator {
    fn default() -> Self {
        Self::with_bound(MAX_OPEN_PARTITIONS)
    }
}

impl Coordinator {
    /// One whose open transactions may have so many partitions together.
    pub(crate) fn with_bound(max_open_partitions: usize) -> Self {
        Self { ids: HashMap::new(), by_producer: HashMap::new(), open_partitions: 0, max_open_partitions }
    }

    /// Puts an id in that the log holds.
    pub(crate) fn restore(&mut self, transactional_id: String, state: Transactional) {
        self.forget(&transactional_id);
        self.by_producer.insert(state.producer_id, transactional_id.clone());
        let counted = state.partitions.len();
        self.open_partitions = self.open_partitions.saturating_add(counted);
        self.ids.insert(transactional_id, Entry { state, busy: Busy::No, counted });
    }

    /// Takes an id out.
    pub(crate) fn forget(&mut self, transactional_id: &str) {
        if let Some(entry) = self.ids.remove(transactional_id) {
            self.by_producer.remove(&entry.state.producer_id);
            self.open_partitions = self.open_partitions.saturating_sub(entry.counted);
        }
    }

    /// A producer begins, or begins again. With `expected` it says who it was (KIP-360) and goes on under a new epoch unless it
    /// was fenced meanwhile. An open transaction is aborted. `fresh_id` is an id that nobody has, in case a new one is needed.
    pub(crate) fn begin_init(
        &mut self,
        transactional_id: &str,
        timeout_ms: i32,
        expected: Option<ProducerIdentity>,
        fresh_id: i64,
        now: Timestamp,
    ) -> Result<(Step, ProducerIdentity), TransactionError> {
        if timeout_ms <= 0 || u128::from(timeout_ms.unsigned_abs()) > MAX_TRANSACTION_TIMEOUT.as_millis() {
            return Err(TransactionError::InvalidTimeout { timeout_ms });
        }
        let known = match self.ids.get(transactional_id) {
            Some(entry) if entry.busy != Busy::No => return Err(TransactionError::Concurrent),
            Some(entry) => Some(entry.state.clone()),
            None if self.ids.len() >= MAX_TRANSACTIONAL_IDS => {
                return Err(TransactionError::TooMany {
                    what: "transactional ids",
                    limit: MAX_TRANSACTIONAL_IDS,
                });
            }
            None => None,
        };
        let fresh = ProducerIdentity { producer_id: fresh_id, epoch: 0 };
        let Some(known) = known else {
            // A producer whose id was forgotten may come back under its own name: it gets another.
            let next = Transactional {
                producer_id: fresh.producer_id,
                epoch: fresh.epoch,
                timeout_ms,
                changed_at_ms: now.as_millis(),
                ..Transactional::default()
            };
            self.ids.insert(
                transactional_id.to_owned(),
                Entry { state: Transactional::default(), busy: Busy::No, counted: 0 },
            );
            return Ok((self.write(transactional_id, Some(next), None), fresh));
        };
        if let Some(expected) = expected {
            if expected.producer_id != known.producer_id {
                return Err(TransactionError::Fenced);
            }
            if expected.epoch != known.epoch {
                // It missed the answer to its last call, so it gets that answer again.
                let asks_again =
                    Some(expected.epoch) == known.previous_epoch && known.status == Status::Empty;
                return if asks_again {
                    Ok((Step::Done, known.producer()))
                } else {
                    Err(TransactionError::Fenced)
                };
            }
        }
        let ending = (known.status == Status::Ongoing).then(|| known.fencing_abort());
        let identity = if known.epoch >= LAST_EPOCH {
            fresh
        } else {
            ProducerIdentity { producer_id: known.producer_id, epoch: known.epoch + 1 }
        };
        let next = Transactional {
            producer_id: identity.producer_id,
            epoch: identity.epoch,
            // A producer that doesn't say who it was fences the one before it for good.
            previous_epoch: expected
                .filter(|_| identity.producer_id == known.producer_id)
                .map(|expected| expected.epoch),
            timeout_ms,
            changed_at_ms: now.as_millis(),
            ..Transactional::default()
        };
        Ok((self.write(transactional_id, Some(next), ending), identity))
    }

    /// Adds partitions to the producer's transaction, which begins if none is open.
    pub(crate) fn begin_add(
        &mut self,
        transactional_id: &str,
        producer: ProducerIdentity,
        partitions: &BTreeSet<TopicPartition>,
        now: Timestamp,
    ) -> Result<Step, TransactionError> {
        let state = self.in_force(transactional_id, producer)?;
        let is_open = state.status == Status::Ongoing;
        if is_open && partitions.is_subset(&state.partitions) {
            return Ok(Step::Done);
        }
        let mut next = state.clone();
        if !is_open {
            next.status = Status::Ongoing;
            next.started_at_ms = now.as_millis();
        }
        next.partitions.extend(partitions.iter().cloned());
        if next.partitions.len() > MAX_TRANSACTION_PARTITIONS {
            let limit = MAX_TRANSACTION_PARTITIONS;
            return Err(TransactionError::TooMany { what: "partitions in one transaction", limit });
        }
        let more = next.partitions.len().saturating_sub(state.partitions.len());
        if self.open_partitions.saturating_add(more) > self.max_open_partitions {
            let limit = self.max_open_partitions;
            return Err(TransactionError::TooMany { what: "partitions in open transactions", limit });
        }
        self.count(transactional_id, next.partitions.len());
        // What was written since the epoch began isn't asked for again.
        next.previous_epoch = None;
        next.changed_at_ms = now.as_millis();
        Ok(self.write(transactional_id, Some(next), None))
    }

    /// Ends the producer's transaction. Ending it again in the same way is fine.
    pub(crate) fn begin_end(
        &mut self,
        transactional_id: &str,
        producer: ProducerIdentity,
        marker: Marker,
        now: Timestamp,
    ) -> Result<Step, TransactionError> {
        let state = self.in_force(transactional_id, producer)?;
        match (state.status, marker) {
            (Status::Ongoing, _) => {}
            (Status::CompleteCommit, Marker::Commit) | (Status::CompleteAbort, Marker::Abort) => {
                return Ok(Step::Done);
            }
            (Status::Empty, _) => {
                return Err(TransactionError::InvalidState { problem: "no transaction is open" });
            }
            (Status::CompleteCommit, Marker::Abort) => {
                return Err(TransactionError::InvalidState { problem: "it was committed already" });
            }
            (Status::CompleteAbort, Marker::Commit) => {
                return Err(TransactionError::InvalidState { problem: "it was aborted already" });
            }
        }
        let ending = Ending {
            producer_id: state.producer_id,
            epoch: state.epoch,
            marker,
            partitions: state.partitions.clone(),
            groups: state.groups.clone(),
        };
        let next = state.ended(&ending, now);
        Ok(self.write(transactional_id, Some(next), Some(ending)))
    }

    /// Aborts a transaction whose time is up, and fences its producer. `None` if there is none (any more), or if the id is busy.
    pub(crate) fn begin_expire(&mut self, transactional_id: &str, now: Timestamp) -> Option<Change> {
        let entry = self.ids.get(transactional_id).filter(|entry| entry.busy == Busy::No)?;
        let state = &entry.state;
        if state.status != Status::Ongoing || state.deadline_ms() > now.as_millis() {
            return None;
        }
        let ending = state.fencing_abort();
        let next = state.ended(&ending, now);
        match self.write(transactional_id, Some(next), Some(ending)) {
            Step::Write(change) => Some(*change),
            Step::Done => None,
        }
    }

    /// Forgets an id that was not used for a week. `None` if it was, or if the id is busy.
    pub(crate) fn begin_forget(&mut self, transactional_id: &str, now: Timestamp) -> Option<Change> {
        let entry = self.ids.get(transactional_id).filter(|entry| entry.busy == Busy::No)?;
        let expiration_ms = i64::try_from(ID_EXPIRATION.as_millis()).unwrap_or(i64::MAX);
        let is_unused = entry.state.status != Status::Ongoing
            && entry.state.changed_at_ms.saturating_add(expiration_ms) <= now.as_millis();
        if !is_unused {
            return None;
        }
        match self.write(transactional_id, None, None) {
            Step::Write(change) => Some(*change),
            Step::Done => None,
        }
    }

    /// The change was written and counts, or it wasn't and all is as before.
    pub(crate) fn finish(&mut self, change: Change, is_written: bool) {
        let Some(entry) = self.ids.get(&change.transactional_id) else { return };
        let stands = change.next.as_ref().filter(|_| is_written).unwrap_or(&entry.state);
        self.count(&change.transactional_id, stands.partitions.len());
        let Some(entry) = self.ids.get_mut(&change.transactional_id) else { return };
        entry.busy = Busy::No;
        let next = match change.next {
            Some(next) if is_written => next,
            None if is_written => return self.forget(&change.transactional_id),
            _ => {
                // An id that was never written isn't known.
                if entry.state.producer_id < 0 {
                    self.ids.remove(&change.transactional_id);
                }
                return;
            }
        };
        if entry.state.producer_id != next.producer_id {
            self.by_producer.remove(&entry.state.producer_id);
            self.by_producer.insert(next.producer_id, change.transactional_id);
        }
        entry.state = next;
    }

    /// Whether a producer may write to a partition within its transaction. Asked in the order of the log.
    pub(crate) fn may_write(
        &self,
        producer: ProducerIdentity,
        partition: &TopicPartition,
    ) -> Result<(), TransactionError> {
        let transactional_id =
            self.by_producer.get(&producer.producer_id).ok_or(TransactionError::UnknownProducerId)?;
        let entry = self.ids.get(transactional_id).ok_or(TransactionError::UnknownProducerId)?;
        let state = &entry.state;
        if producer.epoch != state.epoch {
            return Err(TransactionError::InvalidEpoch);
        }
        if state.status != Status::Ongoing || !state.partitions.contains(partition) {
            return Err(TransactionError::InvalidState {
                problem: "the partition was not added to the transaction",
            });
        }
        // Busy with more partitions is fine; what comes behind an end would be in no transaction.
        if entry.busy == Busy::Ending {
            return Err(TransactionError::InvalidState { problem: "the transaction is being ended" });
        }
        Ok(())
    }

    /// Adds offsets of a group to the producer's transaction, which must have `offsets`, the partition of committed offsets.
    /// [`Coordinator::finish_offsets`] ends it.
    pub(crate) fn begin_offsets(
        &mut self,
        transactional_id: &str,
        producer: ProducerIdentity,
        offsets: &TopicPartition,
        group: &str,
    ) -> Result<(), TransactionError> {
        let state = self.in_force(transactional_id, producer)?;
        if state.status != Status::Ongoing || !state.partitions.contains(offsets) {
            let problem = "no offsets were announced in the transaction";
            return Err(TransactionError::InvalidState { problem });
        }
        if state.groups.len() >= MAX_TRANSACTION_GROUPS && !state.groups.contains(group) {
            let limit = MAX_TRANSACTION_GROUPS;
            return Err(TransactionError::TooMany { what: "groups in one transaction", limit });
        }
        if let Some(entry) = self.ids.get_mut(transactional_id) {
            entry.busy = Busy::Adding;
        }
        Ok(())
    }

    /// The offsets of a group were written, or weren't.
    pub(crate) fn finish_offsets(&mut self, transactional_id: &str, group: &str, is_written: bool) {
        let Some(entry) = self.ids.get_mut(transactional_id) else { return };
        entry.busy = Busy::No;
        if is_written {
            entry.state.groups.insert(group.to_owned());
        }
    }

    /// Puts a group back in that the log holds for an open transaction. Whether the transaction is this producer's.
    pub(crate) fn restore_group(
        &mut self,
        transactional_id: &str,
        producer: ProducerIdentity,
        group: &str,
    ) -> bool {
        let Some(entry) = self.ids.get_mut(transactional_id) else { return false };
        let is_open = entry.state.status == Status::Ongoing && entry.state.producer() == producer;
        if is_open {
            entry.state.groups.insert(group.to_owned());
        }
        is_open
    }

    /// Whether a producer has a transaction open.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        let id = self.by_producer.get(&producer_id);
        id.and_then(|id| self.ids.get(id)).is_some_and(|entry| entry.state.status == Status::Ongoing)
    }

    /// One id.
    pub(crate) fn describe(&self, transactional_id: &str) -> Option<Transactional> {
        self.ids
            .get(transactional_id)
            .filter(|entry| entry.state.producer_id >= 0)
            .map(|entry| entry.state.clone())
    }

    /// Every id, in no order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (&str, &Transactional)> {
        let known = self.ids.iter().filter(|(_, entry)| entry.state.producer_id >= 0);
        known.map(|(id, entry)| (id.as_str(), &entry.state))
    }

    /// The ids whose transaction's time is up.
    pub(crate) fn expired(&self, now: Timestamp) -> Vec<String> {
        let late = |entry: &Entry| {
            entry.state.status == Status::Ongoing && entry.state.deadline_ms() <= now.as_millis()
        };
        self.ids.iter().filter(|(_, entry)| late(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// All ids by name, for the search for unused ones.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ids.keys().cloned().collect()
    }

    /// The state of an id that isn't busy, if `producer` is the one in force.
    fn in_force(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
    ) -> Result<&Transactional, TransactionError> {
        let entry = self.ids.get(transactional_id).ok_or(TransactionError::UnknownProducerId)?;
        if entry.state.producer_id != producer.producer_id {
            return Err(TransactionError::UnknownProducerId);
        }
        if entry.state.epoch != producer.epoch {
            return Err(TransactionError::Fenced);
        }
        if entry.busy == Busy::No { Ok(&entry.state) } else { Err(TransactionError::Concurrent) }
    }

    /// Counts so many partitions for an id from now on.
    fn count(&mut self, transactional_id: &str, partitions: usize) {
        if let Some(entry) = self.ids.get_mut(transactional_id) {
            let others = self.open_partitions.saturating_sub(entry.counted);
            self.open_partitions = others.saturating_add(partitions);
            entry.counted = partitions;
        }
    }

    fn write(&mut self, transactional_id: &str, next: Option<Transactional>, ending: Option<Ending>) -> Step {
        if let Some(entry) = self.ids.get_mut(transactional_id) {
            let stays_open = next.as_ref().is_some_and(|next| next.status == Status::Ongoing);
            entry.busy = if stays_open { Busy::Adding } else { Busy::Ending };
        }
        Step::Write(Box::new(Change { transactional_id: transactional_id.to_owned(), next, ending }))
    }
}
