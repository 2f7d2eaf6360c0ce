//! One partition of readings, or of services' events, in the hands of one worker: its detector, and how its state is written and
//! restored.
//!
//! Records of topic `detector-state` (for events, `service-detector-state`), in the partition of the same number:
//!
//! | key | value |
//! | --- | --- |
//! | `s:` + sensor id (of a service, the series' name) | the newest state of that series, as the detector serialises it |
//! | `m` | the marker, JSON: up to which offset every series' state is written, and under which rules |
//! | `b` | the barrier, without content: whoever takes the partition over has written it and reads up to it |
//!
//! The barrier is there because the end of a partition is no fixed place: a transaction of the previous owner may be decided and not yet
//! be visible there. Committed records before the barrier are all visible as soon as the barrier itself is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{
    Bus, BusError, ConsumedBatch, ConsumedRecord, ConsumerSettings, OffsetSpec, Partitioning, Polled,
    ProducerRecord, StartAt, TopicPartition,
};
use farol_detect::PartitionState;
use farol_event::{AlertTransition, Timestamp};
use serde::{Deserialize, Serialize};

use crate::detect_worker::{DeadLetter, Records, WorkerDeps};
use crate::intake::{Intake, Judged, Place};
use crate::rules::RulesInForce;
use crate::system_events::now;

/// How much of a dead letter's value is kept, in bytes.
const MAX_DEAD_LETTER_BYTES: usize = 64 * 1024;
/// How much of its key.
const MAX_DEAD_LETTER_KEY_BYTES: usize = 1024;
/// How many series' states one transaction writes at most.
const MAX_FLUSHED: usize = 20_000;
/// How many records an outcome has at most before it is committed and a new one begun.
const MAX_OUTCOME_RECORDS: usize = 4096;
/// How many bytes an outcome has, about, before it is committed and a new one begun: a quarter of what a transaction may have.
const MAX_OUTCOME_BYTES: usize = 8 * 1024 * 1024;
/// How long reading back state may wait for one poll before it is tried again.
const LOAD_POLL: Duration = Duration::from_secs(1);

/// The marker record of a partition.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    /// Every series' state includes all readings before this offset.
    flushed_through: i64,
    /// The rules under which that was so.
    rules_fingerprint: String,
}

const MARKER_VERSION: u32 = 1;
const MARKER_KEY: &[u8] = b"m";
const BARRIER_KEY: &[u8] = b"b";
const SERIES_PREFIX: &[u8] = b"s:";

/// What processing brought: records to be sent, and series whose state must go with them.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) alerts: Records,
    pub(crate) dead_letters: Records,
    pub(crate) state: Records,
}

impl Outcome {
    pub(crate) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.dead_letters.is_empty() && self.state.is_empty()
    }

    /// Whether it is as large as one transaction should be.
    pub(crate) fn is_full(&self) -> bool {
        let records = self.alerts.len() + self.dead_letters.len() + self.state.len();
        // Counting bytes is for outcomes that could matter: hundreds of records even of the largest kind are no danger.
        records >= MAX_OUTCOME_RECORDS
            || (records >= 64
                && [&self.alerts, &self.dead_letters, &self.state]
                    .into_iter()
                    .flatten()
                    .map(bytes_of)
                    .sum::<usize>()
                    >= MAX_OUTCOME_BYTES)
    }
}

fn bytes_of(record: &ProducerRecord) -> usize {
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}

/// One partition's detector.
pub(crate) struct DetectPartition {
    intake: Intake,
    partition: TopicPartition,
    /// How many partitions the topic has.
    partitions: i32,
    /// Whether that was asked for in this poll.
    counted: bool,
    detector: PartitionState,
    next_offset: i64,
    /// How many records have been processed; those that are nothing to rules don't count.
    processed: u64,
    flushing: Option<Flushing>,
}

/// How far the application of a batch came.
pub(crate) enum Applied {
    /// To its end.
    Wholly,
    /// The outcome is full: commit it, and apply the same batch again.
    OutcomeFull,
    /// A record seems out of place: say how many partitions the topic has now ([`DetectPartition::partitions_are`]), and apply
    /// the same batch again.
    NeedsCount,
}

/// Writing the state of all changed series, spread over several transactions.
struct Flushing {
    /// When all that had changed at the start is written, the marker says this offset.
    flushed_through: i64,
    /// How many series that had changed at the start are still to be written.
    remaining: usize,
}

impl DetectPartition {
    /// Restores the state that the previous owner had when it committed `next_offset`.
    pub(crate) async fn load(
        deps: &WorkerDeps,
        worker: &str,
        (intake, partition, partitions): (Intake, &TopicPartition, i32),
        next_offset: i64,
        rules: &RulesInForce,
    ) -> Result<Self, BusError> {
        let mut detector =
            PartitionState::new(Arc::clone(&partition.topic), partition.partition, Arc::clone(&rules.rules));
        // Nothing could arrive while the program was down: that silence is not the sensors'.
        detector.listening_since(deps.started_at);
        let mut loaded = Self {
            intake,
            partition: partition.clone(),
            partitions,
            counted: false,
            detector,
            next_offset,
            processed: 0,
            flushing: None,
        };
        let state = TopicPartition::new(intake.state_topic(), partition.partition);
        let (mut marker, mut forgotten) = (None, BTreeSet::new());
        let barrier = loaded.record(Bytes::from_static(BARRIER_KEY), Bytes::new(), now());
        let written = deps.events.producer().send(intake.state_topic(), vec![barrier]).await?;
        let end = written.first().map_or(0, |barrier| barrier.offset + 1);
        let reader = format!("{worker}-state");
        read_range(deps.bus.as_ref(), &reader, &state, StartAt::Earliest, end, |record| {
            loaded.restore(record, &mut marker, &mut forgotten, deps.started_at);
        })
        .await?;
        // Until compaction has passed, older states of theirs stand before their tombstones.
        if !forgotten.is_empty() {
            loaded.detector.forget(&forgotten);
        }
        // The first commit of all writes a marker, so without one nothing was committed.
        let from =
            marker.filter(|m: &Marker| m.rules_fingerprint == rules.fingerprint).map(|m| m.flushed_through);
        let place = loaded.place();
        if let Some(from) = from.filter(|from| *from < next_offset) {
            let ends = deps.bus.offsets(std::slice::from_ref(partition), OffsetSpec::Latest).await?;
            let end = ends.get(partition).map_or(next_offset, |end| next_offset.min(*end));
            let start = StartAt::Offset(from);
            read_range(deps.bus.as_ref(), &reader, partition, start, end, |record| {
                // What comes of it was published when the offsets were committed. What is refused was refused then, too.
                let _ = intake.judge(record, place, &mut loaded.detector);
            })
            .await?;
            tracing::debug!(%partition, from, to = next_offset, "applied readings again to restore state");
        }
        Ok(loaded)
    }

    fn place(&self) -> Place {
        Place { partition: self.partition.partition, partitions: self.partitions }
    }

    /// Another poll begins: how many partitions the topic has may have changed.
    pub(crate) fn begin_poll(&mut self) {
        self.counted = false;
    }

    /// Takes note of how many partitions the topic has now.
    pub(crate) fn partitions_are(&mut self, partitions: i32) {
        (self.partitions, self.counted) = (partitions, true);
    }

    /// How many series it has seen.
    pub(crate) fn series(&self) -> usize {
        self.detector.series_count()
    }

    /// The offset of the next reading to apply.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// How many records have been processed since this was last asked.
    pub(crate) fn take_processed(&mut self) -> u64 {
        std::mem::take(&mut self.processed)
    }

    /// Applies one batch of records, or what is left of it.
    pub(crate) fn apply(&mut self, batch: &ConsumedBatch, worker: &str, outcome: &mut Outcome) -> Applied {
        let (next_offset, place) = (self.next_offset, self.place());
        for record in batch.records.iter().filter(|record| record.offset >= next_offset) {
            let arrival = record.timestamp();
            let judged = self.intake.judge(record, place, &mut self.detector);
            if !self.counted && matches!(judged, Judged::OutOfPlace(_)) {
                return Applied::NeedsCount;
            }
            self.processed += u64::from(!matches!(judged, Judged::PassedOver));
            match judged {
                Judged::PassedOver => {}
                Judged::Applied(transitions) if transitions.is_empty() => {}
                Judged::Applied(transitions) => self.report(transitions, arrival, outcome),
                Judged::Ended(transitions, forgotten) => {
                    self.report(transitions, arrival, outcome);
                    self.forget(forgotten, arrival, outcome);
                }
                Judged::Refused(reason) | Judged::OutOfPlace(reason) => {
                    outcome.dead_letters.push(self.dead_letter(record, reason, worker));
                }
            }
            self.next_offset = record.offset + 1;
            if outcome.is_full() {
                return Applied::OutcomeFull;
            }
        }
        self.next_offset = self.next_offset.max(batch.next_offset);
        Applied::Wholly
    }

    /// Ends alerts whose rule is gone.
    pub(crate) fn settle(&mut self, now: Timestamp, outcome: &mut Outcome) {
        let transitions = self.detector.settle(now);
        self.report(transitions, now, outcome);
    }

    /// Lets time pass without a reading.
    pub(crate) fn tick(&mut self, now: Timestamp, outcome: &mut Outcome) {
        let transitions = self.detector.tick(now);
        self.report(transitions, now, outcome);
    }

    /// Goes over to new rules.
    pub(crate) fn rules_changed(&mut self, rules: &RulesInForce, now: Timestamp, outcome: &mut Outcome) {
        // What is left of a flush would be marked as if these rules had been in force all along.
        self.flushing = None;
        let transitions = self.detector.rules_changed(Arc::clone(&rules.rules), now);
        self.report(transitions, now, outcome);
    }

    /// Forgets sensors of which nothing arrived since `before`, and their saved state.
    pub(crate) fn forget_idle(&mut self, before: Timestamp, now: Timestamp, outcome: &mut Outcome) {
        let forgotten = self.detector.forget_idle(before);
        self.forget(forgotten, now, outcome);
    }

    /// Deletes the saved state of series that the detector has forgotten.
    fn forget(&mut self, series: Vec<String>, now: Timestamp, outcome: &mut Outcome) {
        if series.is_empty() {
            return;
        }
        // Forgetting puts the changed series into another order, on which a flush relies.
        self.flushing = None;
        for series in series {
            let tombstone =
                ProducerRecord { value: None, ..self.record(series_key(&series), Bytes::new(), now) };
            outcome.state.push(tombstone);
        }
    }

    /// Adds the state of changed series, at most [`MAX_FLUSHED`] of them and about [`MAX_OUTCOME_BYTES`], and the marker once all that had changed when this
    /// flush began are written. True when it is done.
    pub(crate) fn flush(&mut self, rules: &RulesInForce, now: Timestamp, state: &mut Records) -> bool {
        let next_offset = self.next_offset;
        let changed = self.detector.dirty();
        let flushing =
            self.flushing.get_or_insert(Flushing { flushed_through: next_offset, remaining: changed });
        // Series are taken in the order in which they changed, so these are the ones that had changed at the start.
        let room = MAX_FLUSHED.saturating_sub(state.len());
        let byte_room = MAX_OUTCOME_BYTES.saturating_sub(state.iter().map(bytes_of).sum());
        if (room == 0 || byte_room == 0) && flushing.remaining > 0 {
            return false;
        }
        let taken = self.detector.take_dirty(flushing.remaining.min(room), byte_room);
        flushing.remaining =
            if taken.is_empty() { 0 } else { flushing.remaining.saturating_sub(taken.len()) };
        let done = (flushing.remaining == 0).then_some(flushing.flushed_through);
        state.extend(taken.into_iter().map(|s| self.record(series_key(&s.sensor_id), s.bytes.into(), now)));
        let Some(flushed_through) = done else {
            return false;
        };
        self.flushing = None;
        let marker =
            Marker { version: MARKER_VERSION, flushed_through, rules_fingerprint: rules.fingerprint.clone() };
        let value = serde_json::to_vec(&marker).expect("a marker has only numbers and text");
        state.push(self.record(Bytes::from_static(MARKER_KEY), value.into(), now));
        true
    }

    fn report(&mut self, transitions: Vec<AlertTransition>, at: Timestamp, outcome: &mut Outcome) {
        for transition in transitions {
            let event = farol_alert::to_event(&transition, None);
            let key = transition.alert.series.clone().into_bytes();
            outcome.state.extend(self.state_record(&transition.alert.series, at));
            outcome.alerts.push(ProducerRecord::new(key, event.to_json(), at));
        }
    }

    fn state_record(&self, series: &str, at: Timestamp) -> Option<ProducerRecord> {
        let value = self.detector.series_state(series)?;
        Some(self.record(series_key(series), value.into(), at))
    }

    fn record(&self, key: Bytes, value: Bytes, at: Timestamp) -> ProducerRecord {
        let partitioning = Partitioning::Explicit(self.partition.partition);
        ProducerRecord { partitioning, ..ProducerRecord::new(key, value, at) }
    }

    /// Takes back one saved record. `forgotten` are the sensors of which the newest record so far is a tombstone.
    fn restore(
        &mut self,
        record: &ConsumedRecord,
        marker: &mut Option<Marker>,
        forgotten: &mut BTreeSet<String>,
        now: Timestamp,
    ) {
        let Some(key) = &record.key else { return };
        let sensor_id = key.strip_prefix(SERIES_PREFIX).and_then(|id| std::str::from_utf8(id).ok());
        let Some(value) = &record.value else {
            forgotten.extend(sensor_id.map(str::to_owned));
            return;
        };
        if let Some(sensor_id) = sensor_id {
            forgotten.remove(sensor_id);
        }
        if key == MARKER_KEY {
            match serde_json::from_slice::<Marker>(value) {
                Ok(found) if found.version == MARKER_VERSION => *marker = Some(found),
                Ok(found) => tracing::error!(
                    partition = %self.partition, version = found.version,
                    "the detector state was written by a newer Farol; alerts that are active may be raised again"
                ),
                Err(error) => {
                    tracing::error!(partition = %self.partition, %error, "damaged marker of detector state")
                }
            }
        } else if key.starts_with(SERIES_PREFIX)
            && let Err(error) = self.detector.restore(value, now)
        {
            tracing::error!(partition = %self.partition, offset = record.offset, %error, "damaged detector state skipped");
        }
    }

    fn dead_letter(&self, record: &ConsumedRecord, reason: String, worker: &str) -> ProducerRecord {
        let value = record.value.as_deref().unwrap_or_default();
        let at = record.timestamp();
        let letter = DeadLetter {
            at,
            reason,
            source: self.partition.at(record.offset),
            key: record.key.as_deref().map(|key| shown(key, MAX_DEAD_LETTER_KEY_BYTES)),
            value: shown(value, MAX_DEAD_LETTER_BYTES),
            consumer_id: worker,
        };
        let json = serde_json::to_vec(&letter).expect("a dead letter has only text and numbers");
        // A whole key could be larger than a record may be, and the letter could never be written.
        let key = record.key.as_ref().map(|key| key.slice(..key.len().min(MAX_DEAD_LETTER_KEY_BYTES)));
        ProducerRecord { key, ..ProducerRecord::new(Bytes::new(), json, at) }
    }
}

/// Bytes as text; what is cut off is hinted at.
fn shown(bytes: &[u8], max_bytes: usize) -> String {
    match bytes.get(..max_bytes) {
        Some(cut) if cut.len() < bytes.len() => format!("{}…", String::from_utf8_lossy(cut)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn series_key(series: &str) -> Bytes {
    [SERIES_PREFIX, series.as_bytes()].concat().into()
}

/// Reads records of one partition from `start` up to `end` (not included).
pub(crate) async fn read_range(
    bus: &dyn Bus,
    reader: &str,
    partition: &TopicPartition,
    start: StartAt,
    end: i64,
    mut apply: impl FnMut(&ConsumedRecord) + Send,
) -> Result<(), BusError> {
    // A consumer of its own: one of librdkafka that goes over to another partition first waits for what it has asked of the last one.
    let mut consumer = bus.consumer(ConsumerSettings::standalone(reader)).await?;
    consumer.assign(vec![(partition.clone(), start)]).await?;
    while consumer.position(partition).is_some_and(|next| next < end) {
        if let Polled::Records(batches) = consumer.poll(LOAD_POLL).await? {
            if batches.is_empty() {
                // Retention may take the rest away while it is being read.
                let earliest = bus.offsets(std::slice::from_ref(partition), OffsetSpec::Earliest).await?;
                if earliest.get(partition).is_some_and(|earliest| *earliest >= end) {
                    break;
                }
            }
            let records = batches.iter().flat_map(|batch| &batch.records);
            records.filter(|record| record.offset < end).for_each(&mut apply);
        }
    }
    Ok(())
}
