//! Compaction beside transactions: what a reader of committed records sees stays the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::{
    AppendRequest, Background, Batch, BatchBuilder, BatchHeader, BatchProducer, Compaction, CompactionGuard,
    LogOptions, Marker, Partition, PartitionOptions, Verify,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::*;

const NOW_MS: i64 = 10_000_000;
const GRACE: Duration = Duration::from_secs(60);

/// The transactions, as whoever keeps them knows them.
#[derive(Default)]
struct Known {
    /// Producer, first offset, offset of the marker.
    aborted: Vec<(i64, i64, i64)>,
    /// First offsets by producer.
    open: BTreeMap<i64, i64>,
    end: i64,
    compacted_through: i64,
    /// How many passes got to their end.
    passes: u32,
    /// Nobody needs a marker below.
    markers_needed_from: i64,
}

#[derive(Clone, Default)]
struct Guard(Arc<Mutex<Known>>);

impl Known {
    fn is_aborted(&self, header: &BatchHeader) -> bool {
        header.is_transactional()
            && self.aborted.iter().any(|(producer, first, marker)| {
                *producer == header.producer_id && (*first..*marker).contains(&header.base_offset)
            })
    }

    fn stable(&self) -> i64 {
        self.open.values().min().copied().unwrap_or(self.end)
    }
}

impl CompactionGuard for Guard {
    fn stable_offset(&self) -> i64 {
        self.0.lock().stable()
    }

    fn is_aborted(&self, batch: &BatchHeader) -> bool {
        let known = self.0.lock();
        assert!(batch.base_offset < known.stable(), "asked about what isn't decided");
        known.is_aborted(batch)
    }

    fn needs_marker(&self, offset: i64) -> bool {
        offset >= self.0.lock().markers_needed_from
    }

    fn compacted_through(&self, offset: i64) {
        let mut known = self.0.lock();
        known.compacted_through = offset;
        known.passes += 1;
    }
}

fn compacted() -> PartitionOptions {
    let compaction =
        Compaction { tombstone_grace: GRACE, min_dirty_bytes: 1, max_lag: None, max_key_bytes: 2_000 };
    PartitionOptions { segment_bytes: 800, compaction: Some(compaction), ..PartitionOptions::default() }
}

fn in_memory(seed: u64) -> LogOptions {
    LogOptions {
        background: Background::Inline,
        file_system: Arc::new(FaultFileSystem::new(seed)),
        journal_first_bytes: 64 * 1024,
        ..LogOptions::new("/data")
    }
}

fn records(producer: Option<i64>, key: &str, value: Option<&str>) -> Batch {
    records_at(NOW_MS, producer, key, value)
}

fn records_at(timestamp_ms: i64, producer: Option<i64>, key: &str, value: Option<&str>) -> Batch {
    let mut builder = BatchBuilder::default();
    if let Some(producer_id) = producer {
        let is_transactional = true;
        let fields = BatchProducer { producer_id, producer_epoch: 0, base_sequence: 0, is_transactional };
        builder = builder.written_by(fields);
    }
    builder.push(Some(key.as_bytes()), value.map(str::as_bytes), &[], timestamp_ms).unwrap();
    builder.build().unwrap()
}

fn batches(partition: &Partition) -> Vec<Batch> {
    let mut found = Vec::new();
    let mut from = partition.start_offset();
    while from < partition.end_offset() {
        let fetched = partition.read(from, 10_000, Verify::Checksums).unwrap();
        found.extend(fetched.batches().map(Result::unwrap));
        from = fetched.next_offset;
    }
    found
}

/// The newest of each key, as a reader of committed records sees it. Tombstones and what never was are the same.
fn newest(partition: &Partition, known: &Known) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut newest = BTreeMap::new();
    for batch in batches(partition) {
        let header = batch.header();
        if header.is_control() || known.is_aborted(header) || header.base_offset >= known.stable() {
            continue;
        }
        for record in batch.records().unwrap().map(Result::unwrap) {
            let key = text(&record.key.unwrap());
            match record.value {
                Some(value) => newest.insert(key, text(&value)),
                None => newest.remove(&key),
            };
        }
    }
    newest
}

/// Aborted records go in the first pass over them, markers stay as long as they are needed.
fn check_what_is_left(partition: &Partition, known: &Known) {
    let mut markers = BTreeSet::new();
    for batch in batches(partition) {
        let header = batch.header();
        if header.is_control() {
            markers.insert(header.base_offset);
        } else if known.is_aborted(header) {
            assert!(header.base_offset >= known.compacted_through, "{header:?} was compacted and is there");
        }
    }
    for (_, _, marker) in &known.aborted {
        assert!(markers.contains(marker) || *marker < known.markers_needed_from, "marker {marker} is gone");
    }
}

fn run(seed: u64) -> (u64, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (log, _) = open(in_memory(seed));
    let state = partition(&log, "state", compacted());
    let guard = Guard::default();
    state.set_compaction_guard(Arc::new(guard.clone()));
    let mut removed = 0;
    for round in 0..300 {
        let key = format!("key {}", random.random_range(0..6));
        let value = (!random.random_bool(0.2)).then(|| format!("{round}"));
        let producer = random.random_range(0..3);
        match random.random_range(0..10) {
            0..3 => {
                append(&log, &state, records(None, &key, value.as_deref()));
            }
            3..7 => {
                // Known before it is written, as in the broker.
                guard.0.lock().open.entry(producer).or_insert_with(|| state.end_offset());
                append(&log, &state, records(Some(producer), &key, value.as_deref()));
            }
            7..9 => {
                let Some(first) = guard.0.lock().open.get(&producer).copied() else { continue };
                let marker = if random.random_bool(0.5) { Marker::Commit } else { Marker::Abort };
                let offset = append(&log, &state, Batch::marker(marker, producer, 0, NOW_MS).unwrap());
                let mut known = guard.0.lock();
                known.open.remove(&producer);
                if marker == Marker::Abort {
                    known.aborted.push((producer, first, offset));
                }
            }
            _ => {
                let now_ms = if random.random_bool(0.5) { NOW_MS } else { NOW_MS + 100_000 };
                let before = newest(&state, &guard.0.lock());
                removed += state.compact(now_ms).unwrap();
                assert_eq!(newest(&state, &guard.0.lock()), before, "seed {seed}, round {round}");
                check_what_is_left(&state, &guard.0.lock());
                if random.random_bool(0.5) {
                    let mut known = guard.0.lock();
                    known.markers_needed_from = known.compacted_through;
                }
            }
        }
        guard.0.lock().end = state.end_offset();
    }
    // With nothing open, the oldest of it all goes, markers too.
    guard.0.lock().open.clear();
    let before = newest(&state, &guard.0.lock());
    for _ in 0..20 {
        append(&log, &state, records(None, "last", Some("x")));
        guard.0.lock().end = state.end_offset();
        removed += state.compact(NOW_MS + 100_000).unwrap();
        let through = guard.0.lock().compacted_through;
        guard.0.lock().markers_needed_from = through;
    }
    let mut after = newest(&state, &guard.0.lock());
    after.remove("last");
    assert_eq!(after, before, "seed {seed}");
    let markers = batches(&state).iter().filter(|batch| batch.header().is_control()).count();
    (removed, markers)
}

#[test]
fn compaction_never_changes_the_newest_committed_record_of_a_key() {
    let mut removed = 0;
    for seed in 0..25 {
        println!("seed {seed}");
        let (gone, markers) = run(seed);
        removed += gone;
        assert_eq!(markers, 0, "seed {seed}: old markers go");
    }
    assert!(removed > 1_000, "{removed} records went");
}

#[test]
fn what_an_earlier_pass_has_seen_makes_no_other_one_due() {
    let (log, _) = open(in_memory(0));
    let max_lag = Some(Duration::from_secs(5));
    let least = Compaction { max_lag, ..Compaction::default() };
    // By age alone, and by bytes: a pass leaves more than that, and what comes is less.
    for (name, compaction) in [("aged", least), ("large", Compaction { min_dirty_bytes: 1_000, ..least })] {
        let options = PartitionOptions { compaction: Some(compaction), ..PartitionOptions::default() };
        let state = partition(&log, name, options);
        let guard = Guard::default();
        state.set_compaction_guard(Arc::new(guard.clone()));
        let put = |at, producer, key: &str| append(&log, &state, records_at(at, producer, key, Some("x")));
        let passes_by = |now_ms| {
            guard.0.lock().end = state.end_offset();
            state.compact(now_ms).unwrap();
            guard.0.lock().passes
        };
        for nth in 0..30 {
            put(NOW_MS, None, &format!("key {nth}"));
        }
        guard.0.lock().open.insert(1, state.end_offset());
        put(NOW_MS + 5_000, Some(1), "a");
        assert_eq!(passes_by(NOW_MS + 5_001), 1, "{name}");
        // The transaction ends and others follow, so that the first that is open moves on.
        for producer in 2..7 {
            guard.0.lock().open.insert(producer, state.end_offset());
            put(NOW_MS + 5_000, Some(producer), "a");
            append(&log, &state, Batch::marker(Marker::Commit, producer - 1, 0, NOW_MS + 5_000).unwrap());
            guard.0.lock().open.remove(&(producer - 1));
            assert_eq!(passes_by(NOW_MS + 10_000), 1, "{name}: what is new is young and little");
        }
        assert_eq!(passes_by(NOW_MS + 10_001), 2, "{name}: now it is old");
        // From there on the transaction is open that keeps every pass from going on.
        assert_eq!(passes_by(NOW_MS + 100_000), 2, "{name}");
    }
}

#[test]
fn a_partition_that_takes_no_appends_is_not_compacted_in_vain() {
    let file_system = FaultFileSystem::new(3);
    let (log, _) = open(LogOptions { file_system: Arc::new(file_system.clone()), ..in_memory(3) });
    let state = partition(&log, "state", compacted());
    let guard = Guard::default();
    state.set_compaction_guard(Arc::new(guard.clone()));
    let passes = || {
        guard.0.lock().end = state.end_offset();
        state.compact(NOW_MS).unwrap();
        guard.0.lock().passes
    };
    append(&log, &state, records(None, "a", Some("1")));
    assert_eq!(passes(), 1);
    append(&log, &state, records(None, "a", Some("2")));
    file_system.fail_next(Operation::Write, ".log");
    log.append(AppendRequest::single(state.clone(), records(None, "a", Some("3")))).wait().unwrap_err();
    // Its segment can't be closed any more.
    assert_eq!((passes(), passes()), (1, 1));
    assert_eq!(newest(&state, &guard.0.lock()), BTreeMap::from([("a".to_owned(), "2".to_owned())]));
}

#[test]
fn without_a_guard_batches_of_transactions_stay() {
    let (log, _) = open(in_memory(0));
    let state = partition(&log, "state", compacted());
    for producer in [None, Some(1), Some(1), None] {
        append(&log, &state, records(producer, "a", Some("x")));
    }
    append(&log, &state, Batch::marker(Marker::Abort, 1, 0, NOW_MS).unwrap());
    assert_eq!(state.compact(NOW_MS + 100_000).unwrap(), 1, "the older of the two plain ones");
    assert_eq!(batches(&state).len(), 4);
}
