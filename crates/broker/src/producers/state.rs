//! The producers of one partition: pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::{BatchHeader, Marker};
use hashbrown::HashMap;

use super::aborted::{AbortedIndex, AbortedTransaction};

/// Batches that a partition remembers of a producer: as many as clients have on their way at most.
pub const MAX_REMEMBERED_BATCHES: usize = 5;
/// Producers that a partition remembers, unless [`ProducerLimits`] say otherwise.
pub const MAX_PRODUCERS: usize = 10_000;
/// How long a silent producer is remembered: Kafka's `producer.id.expiration.ms`.
const DEFAULT_EXPIRATION: Duration = Duration::from_secs(24 * 3600);

/// Bounds of what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Producers a partition.
    pub max_producers: usize,
    /// How long a producer is remembered after its last batch.
    pub expiration: Duration,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        Self { max_producers: MAX_PRODUCERS, expiration: DEFAULT_EXPIRATION }
    }
}

/// Why a batch of a producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// The batch doesn't follow the producer's last one.
    #[error(
        "producer {producer_id} epoch {epoch} sent sequence {sequence}; {expected} would have been the next"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The first sequence of the batch.
        sequence: i32,
        /// The one that was expected.
        expected: i32,
    },
    /// A newer epoch of the producer is in force.
    #[error("producer {producer_id} sent epoch {epoch}, but epoch {current} is in force")]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// The epoch sent.
        epoch: i16,
        /// The epoch in force.
        current: i16,
    },
    /// A batch outside a transaction from a producer that has one open.
    #[error("producer {producer_id} has a transaction open and sent a batch outside of it")]
    NotTransactional {
        /// The producer.
        producer_id: i64,
    },
    /// The producer's fields contradict one another, or a client sent a control batch.
    #[error("the batch's producer fields are not acceptable: {problem}")]
    InvalidFields {
        /// What is wrong.
        problem: &'static str,
    },
    /// Every place is taken by a producer with an open transaction.
    #[error("the partition has {limit} producers with open transactions")]
    TooManyProducers {
        /// The bound.
        limit: usize,
    },
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be appended; it counts from now on.
    Append,
    /// It is there already, at this offset.
    Duplicate(i64),
    /// It is on its way already.
    DuplicateOnItsWay,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It counts.
    Committed,
    /// Its transaction was aborted.
    Aborted,
    /// Its transaction is open.
    Open,
}

/// A producer as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The last sequence that it wrote, -1 if none.
    pub last_sequence: i32,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Where its open transaction began, -1 if it has none.
    pub open_from: i64,
}

/// A batch that a producer has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequenced {
    pub(super) first: i32,
    pub(super) last: i32,
    /// `None` while it is on its way.
    pub(super) base_offset: Option<i64>,
}

/// An open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// The offset of its first record, or one before that as long as its first batch is on its way.
    pub(super) first_offset: i64,
    pub(super) is_on_its_way: bool,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    /// Of this epoch, oldest first.
    pub(super) batches: VecDeque<Sequenced>,
    /// Where it goes on, if the batches that it wrote last were not appended.
    resumes_at: Option<i32>,
    pub(super) open: Option<Open>,
    pub(super) last_seen: Timestamp,
}

/// What one partition remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerState {
    limits: ProducerLimits,
    pub(super) producers: HashMap<i64, Producer>,
    /// First offset and producer of every open transaction.
    open: BTreeSet<(i64, i64)>,
    pub(super) aborted: AbortedIndex,
    evicted: u64,
}

/// The last sequence of a batch. Sequences count from 0 to the largest 32-bit number and then from 0 again.
pub(super) fn last_sequence(header: &BatchHeader) -> i32 {
    let room = i32::MAX - header.base_sequence.max(0);
    if header.last_offset_delta > room {
        header.last_offset_delta - room - 1
    } else {
        header.base_sequence + header.last_offset_delta
    }
}

fn next_sequence(last: i32) -> i32 {
    if last == i32::MAX { 0 } else { last + 1 }
}

impl ProducerState {
    pub(crate) fn new(limits: ProducerLimits) -> Self {
        Self {
            limits,
            producers: HashMap::new(),
            open: BTreeSet::new(),
            aborted: AbortedIndex::default(),
            evicted: 0,
        }
    }

    /// Whether a batch may be written, asked in the order of the log. If it may, it counts as written from now on.
    /// `end_offset` is the partition's at this moment: the batch will stand there or later.
    pub(crate) fn admit(
        &mut self,
        header: &BatchHeader,
        end_offset: i64,
        now: Timestamp,
    ) -> Result<Admission, ProducerError> {
        check_fields(header)?;
        let last = last_sequence(header);
        if let Some(producer) = self.producers.get(&header.producer_id) {
            if let Some(known) = producer.duplicate_of(header, last) {
                return Ok(known.base_offset.map_or(Admission::DuplicateOnItsWay, Admission::Duplicate));
            }
            producer.check(header)?;
        } else {
            self.make_room()?;
        }
        // A producer that isn't known may have been forgotten, so any sequence will do, as in Kafka.
        let id = header.producer_id;
        let producer = self.producers.entry(id).or_insert_with(|| Producer::new(header.producer_epoch, now));
        producer.enter_epoch(header.producer_epoch);
        producer.note(Sequenced { first: header.base_sequence, last, base_offset: None }, now);
        if header.is_transactional() && producer.open.is_none() {
            producer.open = Some(Open { first_offset: end_offset, is_on_its_way: true });
            self.open.insert((end_offset, id));
        }
        Ok(Admission::Append)
    }

    /// An admitted batch stands at `base_offset`.
    pub(crate) fn complete(&mut self, header: &BatchHeader, base_offset: i64) {
        let id = header.producer_id;
        let Some(producer) = self.producers.get_mut(&id) else { return };
        if let Some(batch) = producer.on_its_way(header) {
            batch.base_offset = Some(base_offset);
            producer.forget_old();
        }
        // Batches of a producer end in their order, so the first that ends is the one that opened the transaction.
        if header.is_transactional()
            && let Some(open) = &mut producer.open
            && open.is_on_its_way
        {
            self.open.remove(&(open.first_offset, id));
            *open = Open { first_offset: base_offset, is_on_its_way: false };
            self.open.insert((base_offset, id));
        }
    }

    /// An admitted batch was not appended, nor was any that was admitted after it: the producer goes on with the first of them.
    pub(crate) fn withdraw(&mut self, header: &BatchHeader) {
        let Some(producer) = self.producers.get_mut(&header.producer_id) else { return };
        let last = last_sequence(header);
        if producer.epoch == header.producer_epoch {
            producer.batches.retain(|batch| {
                batch.base_offset.is_some() || (batch.first, batch.last) != (header.base_sequence, last)
            });
            producer.resumes_at.get_or_insert(header.base_sequence);
            // The transaction that it was to open: whatever comes next opens it.
            if !producer.is_writing()
                && let Some(open) = producer.open.take_if(|open| open.is_on_its_way)
            {
                self.open.remove(&(open.first_offset, header.producer_id));
            }
        }
    }

    /// Takes note of a producer and of the transaction that a batch of it opens.
    fn note_producer(&mut self, header: &BatchHeader, opens: Open, now: Timestamp) {
        let id = header.producer_id;
        let producer = self.producers.entry(id).or_insert_with(|| Producer::new(header.producer_epoch, now));
        producer.enter_epoch(header.producer_epoch);
        producer.last_seen = now;
        if header.is_transactional() && producer.open.is_none() {
            producer.open = Some(opens);
            self.open.insert((opens.first_offset, id));
        }
    }

    /// A marker stands at `marker_offset`: the producer's transaction has ended. Without one open, only the epoch counts; a producer that
    /// isn't known needs room for that, and if everybody writes, there is none: an older producer of its id is fenced by the coordinator.
    pub(crate) fn end(
        &mut self,
        producer_id: i64,
        epoch: i16,
        marker: Marker,
        marker_offset: i64,
        now: Timestamp,
    ) {
        if !self.producers.contains_key(&producer_id) && self.make_room().is_err() {
            return;
        }
        let producer = self.producers.entry(producer_id).or_insert_with(|| Producer::new(epoch, now));
        producer.enter_epoch(epoch);
        producer.last_seen = now;
        let Some(open) = producer.open.take() else { return };
        self.open.remove(&(open.first_offset, producer_id));
        if marker == Marker::Abort {
            let stable_offset = self.stable_offset(marker_offset.saturating_add(1));
            self.aborted.add(AbortedTransaction {
                producer_id,
                first_offset: open.first_offset,
                marker_offset,
                stable_offset,
            });
        }
    }

    /// Takes note of a batch that the log holds, when the state is made again from it.
    pub(crate) fn replay(&mut self, header: &BatchHeader, marker: Option<Marker>, now: Timestamp) {
        if header.producer_id < 0 {
            return;
        }
        if header.is_control() {
            if let Some(marker) = marker {
                self.end(header.producer_id, header.producer_epoch, marker, header.base_offset, now);
            }
            return;
        }
        if !self.producers.contains_key(&header.producer_id) && self.make_room().is_err() {
            // More open transactions than there are places were never admitted.
            return;
        }
        let opens = Open { first_offset: header.base_offset, is_on_its_way: false };
        self.note_producer(header, opens, now);
        if header.base_sequence >= 0
            && let Some(producer) = self.producers.get_mut(&header.producer_id)
        {
            let (first, last) = (header.base_sequence, last_sequence(header));
            producer.note(Sequenced { first, last, base_offset: Some(header.base_offset) }, now);
        }
    }

    /// What readers of committed records may see of a partition that ends at `end_offset`.
    pub(crate) fn stable_offset(&self, end_offset: i64) -> i64 {
        self.open.first().map_or(end_offset, |(first_offset, _)| end_offset.min(*first_offset))
    }

    /// What became of a batch of the log.
    pub(crate) fn fate(&self, header: &BatchHeader) -> Fate {
        if !header.is_transactional() || header.is_control() {
            return Fate::Committed;
        }
        if self.aborted.contains(header.producer_id, header.base_offset) {
            return Fate::Aborted;
        }
        let open = self.producers.get(&header.producer_id).and_then(|producer| producer.open);
        match open {
            Some(open) if open.first_offset <= header.base_offset => Fate::Open,
            _ => Fate::Committed,
        }
    }

    /// The aborted transactions that a reader of `from..to` must know.
    pub(crate) fn aborted_in(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        self.aborted.overlapping(from, to)
    }

    /// Forgets the aborted transactions that ended before `offset`.
    pub(crate) fn prune_before(&mut self, offset: i64) {
        self.aborted.prune_before(offset);
    }

    /// Forgets producers that were silent for too long. Returns how many.
    pub(crate) fn expire(&mut self, now: Timestamp) -> usize {
        let before = self.producers.len();
        let expiration = self.limits.expiration;
        self.producers.retain(|_, producer| {
            producer.open.is_some()
                || producer.is_writing()
                || producer.last_seen.saturating_add(expiration) > now
        });
        before - self.producers.len()
    }

    /// Ends open transactions that nobody can end any more, as committed: see the module doc on damaged snapshots.
    pub(crate) fn settle_open_except(&mut self, mut is_open: impl FnMut(i64) -> bool) -> usize {
        let mut settled = 0;
        for (id, producer) in &mut self.producers {
            if producer.open.is_some() && !is_open(*id) {
                producer.open = None;
                settled += 1;
            }
        }
        let producers = &self.producers;
        self.open.retain(|(_, id)| producers.get(id).is_some_and(|producer| producer.open.is_some()));
        settled
    }

    /// Producers that were forgotten for want of room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn producer_count(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn aborted_count(&self) -> usize {
        self.aborted.len()
    }

    /// Every producer, by id.
    pub(crate) fn describe(&self) -> Vec<ProducerDescription> {
        let mut described: Vec<_> = self
            .producers
            .iter()
            .map(|(id, producer)| ProducerDescription {
                producer_id: *id,
                epoch: producer.epoch,
                last_sequence: producer.batches.back().map_or(-1, |batch| batch.last),
                last_seen: producer.last_seen,
                open_from: producer.open.map_or(-1, |open| open.first_offset),
            })
            .collect();
        described.sort_by_key(|producer| producer.producer_id);
        described
    }

    /// Puts a producer in that a snapshot holds.
    pub(super) fn restore(&mut self, id: i64, producer: Producer) {
        if let Some(open) = producer.open {
            self.open.insert((open.first_offset, id));
        }
        self.producers.insert(id, producer);
    }

    /// Makes room for one more producer, at the cost of the one that was silent longest.
    fn make_room(&mut self) -> Result<(), ProducerError> {
        while self.producers.len() >= self.limits.max_producers.max(1) {
            let silent = self
                .producers
                .iter()
                .filter(|(_, producer)| producer.open.is_none() && !producer.is_writing())
                .min_by_key(|(id, producer)| (producer.last_seen, **id))
                .map(|(id, _)| *id);
            let Some(silent) = silent else {
                return Err(ProducerError::TooManyProducers { limit: self.limits.max_producers });
            };
            self.producers.remove(&silent);
            self.evicted += 1;
        }
        Ok(())
    }
}

impl Producer {
    fn new(epoch: i16, now: Timestamp) -> Self {
        Self { epoch, batches: VecDeque::new(), resumes_at: None, open: None, last_seen: now }
    }

    pub(super) fn restored(
        epoch: i16,
        batches: VecDeque<Sequenced>,
        open: Option<Open>,
        last_seen: Timestamp,
    ) -> Self {
        Self { epoch, batches, resumes_at: None, open, last_seen }
    }

    fn duplicate_of(&self, header: &BatchHeader, last: i32) -> Option<&Sequenced> {
        let same = |batch: &&Sequenced| (batch.first, batch.last) == (header.base_sequence, last);
        if self.epoch == header.producer_epoch { self.batches.iter().find(same) } else { None }
    }

    fn check(&self, header: &BatchHeader) -> Result<(), ProducerError> {
        let (producer_id, epoch, sequence) =
            (header.producer_id, header.producer_epoch, header.base_sequence);
        if epoch < self.epoch {
            return Err(ProducerError::InvalidEpoch { producer_id, epoch, current: self.epoch });
        }
        if self.open.is_some() && !header.is_transactional() {
            return Err(ProducerError::NotTransactional { producer_id });
        }
        let expected = match (self.resumes_at, self.batches.back()) {
            (Some(sequence), _) if epoch == self.epoch => sequence,
            (None, Some(newest)) if epoch == self.epoch => next_sequence(newest.last),
            _ => 0,
        };
        if sequence == expected {
            Ok(())
        } else {
            Err(ProducerError::OutOfOrderSequence { producer_id, epoch, sequence, expected })
        }
    }

    /// A new epoch counts its sequences from 0.
    fn enter_epoch(&mut self, epoch: i16) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.batches.clear();
            self.resumes_at = None;
        }
    }

    fn note(&mut self, batch: Sequenced, now: Timestamp) {
        self.batches.push_back(batch);
        self.resumes_at = None;
        self.last_seen = now;
        self.forget_old();
    }

    /// Remembers the newest that were written, beside those on their way: they may yet be taken back.
    fn forget_old(&mut self) {
        let written = self.batches.iter().take_while(|batch| batch.base_offset.is_some()).count();
        self.batches.drain(..written.saturating_sub(MAX_REMEMBERED_BATCHES));
    }

    fn on_its_way(&mut self, header: &BatchHeader) -> Option<&mut Sequenced> {
        let wanted = (header.base_sequence, last_sequence(header));
        let same =
            |batch: &&mut Sequenced| batch.base_offset.is_none() && (batch.first, batch.last) == wanted;
        if self.epoch == header.producer_epoch { self.batches.iter_mut().find(same) } else { None }
    }

    fn is_writing(&self) -> bool {
        self.batches.iter().any(|batch| batch.base_offset.is_none())
    }
}

fn check_fields(header: &BatchHeader) -> Result<(), ProducerError> {
    let problem = if header.is_control() {
        "a client can't write control batches"
    } else if header.producer_id < 0 {
        "a transactional batch needs a producer id"
    } else if header.producer_epoch < 0 {
        "a producer's epoch is not negative"
    } else if header.base_sequence < 0 {
        "a producer's sequence is not negative"
    } else {
        return Ok(());
    };
    Err(ProducerError::InvalidFields { problem })
}
