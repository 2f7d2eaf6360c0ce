//! The producers of a partition against a simple model of the log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::{
    AppendRequest, BatchBuilder, BatchHeader, Log, LogOptions, Marker, PartitionId, PartitionOptions,
};
use proptest::prelude::*;

use super::snapshot;
use super::state::{Admission, Fate, ProducerError, ProducerLimits, ProducerState};
use super::tracker::Tracker;

const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis_clamped(second * 1000)
}

fn header(id: i64, epoch: i16, sequence: i32, records: i32, attributes: i16) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        total_bytes: 100,
        partition_leader_epoch: 0,
        crc: 0,
        attributes,
        last_offset_delta: records - 1,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        record_count: records,
    }
}

fn state() -> ProducerState {
    ProducerState::new(ProducerLimits::default())
}

/// Admits and completes a batch.
fn write(state: &mut ProducerState, header: &BatchHeader, offset: i64) -> Result<Admission, ProducerError> {
    let admission = state.admit(header, offset, at(0))?;
    if admission == Admission::Append {
        state.complete(header, offset);
    }
    Ok(admission)
}

#[test]
fn a_producer_whose_batches_were_taken_back_goes_on_with_the_first_of_them() {
    let mut state = state();
    for (known, first) in [(false, 0), (true, 3)] {
        let taken_back: Vec<_> = (first..first + 9).map(|sequence| header(7, 0, sequence, 1, 0)).collect();
        for header in &taken_back {
            assert_eq!(state.admit(header, 0, at(0)), Ok(Admission::Append), "{known}");
        }
        for header in &taken_back {
            state.withdraw(header);
        }
        let gap = state.admit(&taken_back[1], 0, at(0));
        assert!(matches!(gap, Err(ProducerError::OutOfOrderSequence { expected, .. }) if expected == first));
        for sequence in first..first + 3 {
            assert_eq!(
                write(&mut state, &header(7, 0, sequence, 1, 0), i64::from(sequence)),
                Ok(Admission::Append)
            );
        }
    }
    // A new epoch begins anew.
    state.admit(&header(7, 0, 6, 1, 0), 6, at(0)).unwrap();
    state.withdraw(&header(7, 0, 6, 1, 0));
    assert_eq!(write(&mut state, &header(7, 1, 0, 1, 0), 6), Ok(Admission::Append));
}

#[test]
fn batches_are_taken_in_sequence_once() {
    let mut state = state();
    assert_eq!(write(&mut state, &header(7, 0, 0, 10, 0), 0), Ok(Admission::Append));
    assert_eq!(write(&mut state, &header(7, 0, 10, 5, 0), 10), Ok(Admission::Append));
    assert_eq!(write(&mut state, &header(7, 0, 0, 10, 0), 15), Ok(Admission::Duplicate(0)));
    assert_eq!(write(&mut state, &header(7, 0, 10, 5, 0), 15), Ok(Admission::Duplicate(10)));
    let gap = write(&mut state, &header(7, 0, 16, 1, 0), 15);
    assert!(matches!(gap, Err(ProducerError::OutOfOrderSequence { expected: 15, sequence: 16, .. })));
    // The same beginning with another end is another batch.
    let other = write(&mut state, &header(7, 0, 10, 6, 0), 15);
    assert!(matches!(other, Err(ProducerError::OutOfOrderSequence { .. })));
}

#[test]
fn a_batch_that_is_sent_again_while_on_its_way_is_recognised() {
    let mut state = state();
    let first = header(7, 0, 0, 1, 0);
    assert_eq!(state.admit(&first, 0, at(0)), Ok(Admission::Append));
    assert_eq!(state.admit(&first, 0, at(0)), Ok(Admission::DuplicateOnItsWay));
    assert_eq!(state.admit(&header(7, 0, 1, 1, 0), 0, at(0)), Ok(Admission::Append));
    state.complete(&first, 4);
    assert_eq!(state.admit(&first, 5, at(0)), Ok(Admission::Duplicate(4)));
}

#[test]
fn sequences_count_from_zero_again_after_the_largest() {
    let mut state = state();
    // An unknown producer may begin anywhere: it may have been forgotten.
    assert_eq!(write(&mut state, &header(7, 0, i32::MAX - 1, 4, 0), 0), Ok(Admission::Append));
    assert_eq!(state.describe()[0].last_sequence, 1);
    assert_eq!(write(&mut state, &header(7, 0, 2, 1, 0), 4), Ok(Admission::Append));
    assert_eq!(write(&mut state, &header(8, 0, i32::MAX, 1, 0), 5), Ok(Admission::Append));
    assert_eq!(write(&mut state, &header(8, 0, 0, 1, 0), 6), Ok(Admission::Append));
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    let mut state = state();
    write(&mut state, &header(7, 3, 0, 1, 0), 0).unwrap();
    let old = write(&mut state, &header(7, 2, 1, 1, 0), 1);
    assert_eq!(old, Err(ProducerError::InvalidEpoch { producer_id: 7, epoch: 2, current: 3 }));
    let skipping = write(&mut state, &header(7, 4, 1, 1, 0), 1);
    assert!(matches!(skipping, Err(ProducerError::OutOfOrderSequence { expected: 0, .. })));
    assert_eq!(write(&mut state, &header(7, 4, 0, 1, 0), 1), Ok(Admission::Append));
    // A marker of a newer epoch fences as a batch does.
    state.end(7, 5, Marker::Abort, 2, at(0));
    assert!(matches!(write(&mut state, &header(7, 4, 1, 1, 0), 3), Err(ProducerError::InvalidEpoch { .. })));
    assert_eq!(write(&mut state, &header(7, 5, 0, 1, 0), 3), Ok(Admission::Append));
}

#[test]
fn fields_that_contradict_one_another_are_refused() {
    let mut state = state();
    for bad in [
        header(-1, 0, 0, 1, TRANSACTIONAL),
        header(7, -1, 0, 1, 0),
        header(7, 0, -1, 1, 0),
        header(7, 0, 0, 1, TRANSACTIONAL | CONTROL),
    ] {
        assert!(matches!(state.admit(&bad, 0, at(0)), Err(ProducerError::InvalidFields { .. })), "{bad:?}");
    }
    write(&mut state, &header(7, 0, 0, 1, TRANSACTIONAL), 0).unwrap();
    let outside = write(&mut state, &header(7, 0, 1, 1, 0), 1);
    assert_eq!(outside, Err(ProducerError::NotTransactional { producer_id: 7 }));
}

#[test]
fn silent_producers_are_forgotten_but_for_open_transactions() {
    let limits = ProducerLimits { max_producers: 3, expiration: Duration::from_secs(100) };
    let mut state = ProducerState::new(limits);
    for (id, second, attributes) in [(1, 0, TRANSACTIONAL), (2, 10, 0), (3, 20, 0), (4, 30, 0)] {
        let batch = header(id, 0, 0, 1, attributes);
        assert_eq!(state.admit(&batch, id, at(second)), Ok(Admission::Append));
        state.complete(&batch, id);
    }
    let known: Vec<i64> = state.describe().iter().map(|producer| producer.producer_id).collect();
    assert_eq!((known, state.evicted()), (vec![1, 3, 4], 1));
    assert_eq!(state.expire(at(125)), 1);
    assert_eq!(state.expire(at(1_000)), 1);
    assert_eq!(state.describe()[0].producer_id, 1, "its transaction is open");
    for id in [5, 6] {
        write(&mut state, &header(id, 0, 0, 1, TRANSACTIONAL), 10 + id).unwrap();
    }
    let refused = write(&mut state, &header(7, 0, 0, 1, 0), 20);
    assert_eq!(refused, Err(ProducerError::TooManyProducers { limit: 3 }));
}

#[test]
fn a_first_snapshot_says_nothing_of_what_was_written_after_it_was_asked_for() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(dir.path())).unwrap().0;
        let id = PartitionId::new("t-0").unwrap();
        let partition = log.create_partition(&id, PartitionOptions::default()).unwrap();
        let limits = ProducerLimits::default();
        let tracker = Arc::new(Tracker::empty(partition.clone(), limits, at(0)));
        // The one thread that writes snapshots is busy.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        let mut mark = Box::pin(tracker.mark(limits));
        tokio::select! {
            biased;
            _ = &mut mark => panic!("it can't be written yet"),
            () = std::future::ready(()) => {}
        }
        let mut builder = BatchBuilder::default();
        builder.push(None, Some(b"value"), &[], 1).unwrap();
        log.append(AppendRequest::single(partition.clone(), builder.build().unwrap())).wait().unwrap();
        log.checkpoint().unwrap();
        assert_eq!(partition.durable_offset(), 1);
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        mark.await.unwrap();
        let bytes = partition.load_companion(snapshot::FILE_NAME, snapshot::MAX_SNAPSHOT_BYTES).unwrap();
        let (_, covered) = snapshot::decode(&bytes.unwrap(), limits).unwrap();
        assert_eq!(covered, 0);
    });
}

#[test]
fn markers_of_unknown_producers_keep_to_the_bound_too() {
    let limits = ProducerLimits { max_producers: 3, expiration: Duration::from_secs(100) };
    let mut state = ProducerState::new(limits);
    for id in 1..10 {
        state.end(id, 0, Marker::Abort, id, at(id));
        assert!(state.producer_count() <= 3, "{}", state.producer_count());
    }
    let known: Vec<i64> = state.describe().iter().map(|producer| producer.producer_id).collect();
    assert_eq!((known, state.evicted()), (vec![7, 8, 9], 6));
    for id in 11..14 {
        write(&mut state, &header(id, 0, 0, 1, TRANSACTIONAL), 10 + id).unwrap();
    }
    state.end(20, 0, Marker::Abort, 30, at(30));
    assert_eq!(state.producer_count(), 3, "all of them have a transaction open");
}

#[test]
fn a_snapshot_has_the_bytes_of_its_first_version() {
    let mut state = state();
    write(&mut state, &header(7, 1, 0, 2, TRANSACTIONAL), 0).unwrap();
    state.end(7, 1, Marker::Abort, 2, at(1));
    write(&mut state, &header(8, 0, 5, 1, TRANSACTIONAL), 3).unwrap();
    let bytes = snapshot::encode(&state, 4);
    #[rustfmt::skip]
    let expected = [
        b'F', b'P', b'R', b'O', b'D', b'S', b'0', b'1',
        12, 139, 174, 214,
        0, 0, 0, 0, 0, 0, 0, 4, // covered
        0, 0, 0, 2,
        0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40,
        255, 255, 255, 255, 255, 255, 255, 255, 1,
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 3, 1,
        0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 1,
        0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3,
    ];
    assert_eq!(bytes, expected);
    assert_eq!(snapshot::decode(&bytes, ProducerLimits::default()), Some((state, 4)));
}

/// What a client does, or what happens to the broker.
#[derive(Debug, Clone)]
enum Step {
    /// Sends a producer's next batch.
    Send {
        producer: usize,
        records: i32,
    },
    /// Sends one of its last batches again.
    Again {
        producer: usize,
        back: usize,
    },
    /// What is on its way is not appended.
    TakeBack,
    /// Skips a batch.
    Gap {
        producer: usize,
    },
    /// The oldest append on its way ends.
    Finish,
    End {
        producer: usize,
        commit: bool,
    },
    /// A new epoch, whose abort fences what was open.
    Fence {
        producer: usize,
    },
    /// Everything on its way ends, and the state is read back from a snapshot and the log after it.
    Restart {
        back: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let producer = 0usize..4;
    prop::collection::vec(
        prop_oneof![
            6 => (producer.clone(), 1i32..4).prop_map(|(producer, records)| Step::Send { producer, records }),
            2 => (producer.clone(), 0usize..7).prop_map(|(producer, back)| Step::Again { producer, back }),
            1 => producer.clone().prop_map(|producer| Step::Gap { producer }),
            6 => Just(Step::Finish),
            1 => Just(Step::TakeBack),
            3 => (producer.clone(), any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
            1 => producer.prop_map(|producer| Step::Fence { producer }),
            1 => (0usize..10).prop_map(|back| Step::Restart { back }),
        ],
        1..120,
    )
}

/// A producer as its client sees it. Those with an odd number write transactions.
#[derive(Debug, Default)]
struct Client {
    epoch: i16,
    next: i32,
    sent: Vec<BatchHeader>,
}

/// The log, batch by batch, and what is on its way into it.
#[derive(Default)]
struct Model {
    entries: Vec<(BatchHeader, Option<Marker>)>,
    end: i64,
    on_its_way: VecDeque<BatchHeader>,
    clients: Vec<Client>,
    stable: i64,
    /// Whether something was taken back: state and snapshots know of producers then that the log doesn't.
    took_back: bool,
    /// Snapshots as they were taken, by where the log stood.
    snapshots: Vec<(usize, Vec<u8>)>,
}

impl Model {
    fn append(&mut self, mut header: BatchHeader, marker: Option<Marker>) -> i64 {
        header.base_offset = self.end;
        self.end = header.next_offset();
        self.entries.push((header, marker));
        header.base_offset
    }

    fn finish_one(&mut self, state: &mut ProducerState) {
        if let Some(header) = self.on_its_way.pop_front() {
            let offset = self.append(header, None);
            state.complete(&header, offset);
        }
    }

    fn finish_all(&mut self, state: &mut ProducerState) {
        while !self.on_its_way.is_empty() {
            self.finish_one(state);
        }
    }

    fn end_transaction(&mut self, state: &mut ProducerState, producer: usize, marker: Marker) {
        // The coordinator lets nothing of a transaction behind its end; what was admitted before is before it in the log.
        self.finish_all(state);
        let (id, epoch) = (i64::try_from(producer).unwrap(), self.clients[producer].epoch);
        let offset = self.append(header(id, epoch, -1, 1, TRANSACTIONAL | CONTROL), Some(marker));
        state.end(id, epoch, marker, offset, at(0));
    }

    /// What became of every batch, told from the whole log.
    fn fates(&self) -> (Vec<Fate>, i64) {
        let mut fates = vec![Fate::Committed; self.entries.len()];
        let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (place, (header, marker)) in self.entries.iter().enumerate() {
            match marker {
                Some(marker) => {
                    for ended in open.remove(&header.producer_id).unwrap_or_default() {
                        fates[ended] = if *marker == Marker::Abort { Fate::Aborted } else { Fate::Committed };
                    }
                }
                None if header.is_transactional() => {
                    fates[place] = Fate::Open;
                    open.entry(header.producer_id).or_default().push(place);
                }
                None => {}
            }
        }
        let first_open = open.values().map(|places| self.entries[places[0]].0.base_offset).min();
        (fates, first_open.unwrap_or(self.end))
    }

    fn check(&mut self, state: &ProducerState) {
        let (fates, stable) = self.fates();
        let now = state.stable_offset(self.end);
        assert!(
            now <= stable && now >= self.stable,
            "stable offset {now}, was {}, should be {stable}",
            self.stable
        );
        if self.on_its_way.is_empty() {
            assert_eq!(now, stable);
        }
        self.stable = now;
        for ((header, _), fate) in self.entries.iter().zip(&fates) {
            if !header.is_control() {
                assert_eq!(state.fate(header), *fate, "{header:?}");
            }
        }
        // A client that goes by the list for any range sees what the log says.
        for from in (0..=now).step_by(3) {
            let listed = state.aborted_in(from, now);
            for ((header, _), fate) in self.entries.iter().zip(&fates) {
                let here = !header.is_control()
                    && header.is_transactional()
                    && (from..now).contains(&header.base_offset);
                let aborted = listed.iter().any(|aborted| {
                    aborted.producer_id == header.producer_id
                        && (aborted.first_offset..aborted.marker_offset).contains(&header.base_offset)
                });
                assert_eq!(here && aborted, here && *fate == Fate::Aborted, "from {from}: {header:?}");
            }
        }
    }

    /// Every sequence of every epoch is there once and in order.
    fn check_log(&self) {
        let mut last: BTreeMap<(i64, i16), i32> = BTreeMap::new();
        for (header, _) in self.entries.iter().filter(|(header, _)| !header.is_control()) {
            let next = last.entry((header.producer_id, header.producer_epoch)).or_insert(0);
            assert_eq!(header.base_sequence, *next, "{header:?}");
            *next += header.record_count;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_interleaving_writes_each_batch_once_and_in_order(steps in steps()) {
        let mut state = state();
        let mut model = Model { clients: (0..4).map(|_| Client::default()).collect(), ..Model::default() };
        for step in steps {
            match step {
                Step::Send { producer, records } => {
                    let client = &mut model.clients[producer];
                    let attributes = if producer % 2 == 1 { TRANSACTIONAL } else { 0 };
                    let id = i64::try_from(producer).unwrap();
                    let batch = header(id, client.epoch, client.next, records, attributes);
                    prop_assert_eq!(state.admit(&batch, model.end, at(0)), Ok(Admission::Append));
                    client.next += records;
                    client.sent.push(batch);
                    model.on_its_way.push_back(batch);
                }
                Step::Again { producer, back } => {
                    let sent = &model.clients[producer].sent;
                    let Some(place) = sent.len().checked_sub(1 + back) else { continue };
                    let batch = sent[place];
                    let answer = state.admit(&batch, model.end, at(0));
                    let same = |known: &BatchHeader| {
                        (known.producer_id, known.producer_epoch, known.base_sequence)
                            == (batch.producer_id, batch.producer_epoch, batch.base_sequence)
                    };
                    let written = model.entries.iter().find(|(known, _)| !known.is_control() && same(known));
                    let on_their_way = model.on_its_way.iter().filter(|sent| sent.producer_id == batch.producer_id).count();
                    if back >= on_their_way + 5 {
                        prop_assert!(matches!(answer, Err(ProducerError::OutOfOrderSequence { .. })), "{answer:?}");
                    } else if let Some((known, _)) = written {
                        prop_assert_eq!(answer, Ok(Admission::Duplicate(known.base_offset)));
                    } else {
                        prop_assert!(model.on_its_way.iter().any(same));
                        prop_assert_eq!(answer, Ok(Admission::DuplicateOnItsWay));
                    }
                }
                Step::Gap { producer } => {
                    let client = &model.clients[producer];
                    if client.sent.is_empty() {
                        continue;
                    }
                    let attributes = if producer % 2 == 1 { TRANSACTIONAL } else { 0 };
                    let id = i64::try_from(producer).unwrap();
                    let batch = header(id, client.epoch, client.next + 1, 1, attributes);
                    let answer = state.admit(&batch, model.end, at(0));
                    prop_assert!(matches!(answer, Err(ProducerError::OutOfOrderSequence { .. })), "{answer:?}");
                }
                Step::Finish => model.finish_one(&mut state),
                Step::TakeBack => {
                    model.took_back |= !model.on_its_way.is_empty();
                    for batch in model.on_its_way.drain(..).collect::<Vec<_>>() {
                        state.withdraw(&batch);
                        let client = &mut model.clients[usize::try_from(batch.producer_id).unwrap()];
                        client.next = client.next.min(batch.base_sequence);
                        let next = client.next;
                        client.sent.retain(|sent| sent.base_sequence < next);
                    }
                }
                Step::End { producer, commit } => {
                    if producer % 2 == 1 {
                        let marker = if commit { Marker::Commit } else { Marker::Abort };
                        model.end_transaction(&mut state, producer, marker);
                    }
                }
                Step::Fence { producer } => {
                    if producer % 2 == 1 {
                        model.finish_all(&mut state);
                        model.clients[producer] =
                            Client { epoch: model.clients[producer].epoch + 1, ..Client::default() };
                        model.end_transaction(&mut state, producer, Marker::Abort);
                    }
                }
                Step::Restart { back } => {
                    model.finish_all(&mut state);
                    let place = model.snapshots.len().checked_sub(1 + back);
                    let taken = place.and_then(|place| model.snapshots.get(place));
                    let (from, mut restored) = match taken {
                        Some((from, bytes)) => {
                            let decoded = snapshot::decode(bytes, ProducerLimits::default());
                            let (restored, covered) = decoded.unwrap();
                            let end = model.entries.get(*from).map_or(model.end, |(header, _)| header.base_offset);
                            prop_assert_eq!(covered, end);
                            (*from, restored)
                        }
                        None => (0, ProducerState::new(ProducerLimits::default())),
                    };
                    for (header, marker) in &model.entries[from..] {
                        restored.replay(header, *marker, at(0));
                    }
                    if !model.took_back {
                        prop_assert_eq!(&restored, &state);
                    }
                    state = restored;
                }
            }
            model.check(&state);
            // What is on its way is in none of them.
            model.snapshots.push((model.entries.len(), snapshot::encode(&state, model.end)));
        }
        model.finish_all(&mut state);
        model.check(&state);
        model.check_log();
    }

    #[test]
    fn a_damaged_snapshot_is_no_snapshot(bytes: Vec<u8>, flip in 0usize..1000, cut in 0usize..1000) {
        let limits = ProducerLimits::default();
        let _ = snapshot::decode(&bytes, limits);
        let mut state = state();
        write(&mut state, &header(7, 1, 0, 2, TRANSACTIONAL), 0).unwrap();
        let whole = snapshot::encode(&state, 4);
        let mut flipped = whole.clone();
        flipped[flip % whole.len()] ^= 0x10;
        prop_assert_eq!(snapshot::decode(&flipped, limits), None);
        prop_assert_eq!(snapshot::decode(&whole[..cut % whole.len()], limits), None);
    }
}
