//! Compaction keeps the newest record of every key, also when it is interrupted at any step.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farol_log::fs::FileSystem;
use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::{
    Background, BatchBuilder, Compaction, Compression, Log, LogOptions, Partition, PartitionOptions, Verify,
};
use support::*;

const NOW_MS: i64 = 10_000_000;

fn compacted(max_key_bytes: usize) -> PartitionOptions {
    let compaction = Compaction {
        tombstone_grace: Duration::from_secs(60),
        min_dirty_bytes: 1,
        max_lag: None,
        max_key_bytes,
    };
    PartitionOptions { segment_bytes: 1_500, compaction: Some(compaction), ..PartitionOptions::default() }
}

/// The newest value of each key, by reading everything.
fn newest(partition: &Partition) -> BTreeMap<String, Option<String>> {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    records_from(partition, partition.start_offset())
        .into_iter()
        .map(|record| (text(record.key.unwrap()), record.value.map(text)))
        .collect()
}

fn fill(log: &Log, partition: &Partition, rounds: i64) -> BTreeMap<String, Option<String>> {
    let mut expected = BTreeMap::new();
    for round in 0..rounds {
        let mut builder =
            BatchBuilder::new(if round % 2 == 0 { Compression::None } else { Compression::Lz4 });
        for nth in 0..5 {
            let key = format!("key {}", (round * 3 + nth) % 11);
            let value = format!("{round}.{nth}");
            builder.push(Some(key.as_bytes()), Some(value.as_bytes()), &[("h", None)], NOW_MS).unwrap();
            expected.insert(key, Some(value));
        }
        append(log, partition, builder.build().unwrap());
    }
    expected
}

#[test]
fn compaction_keeps_the_newest_record_of_each_key_at_its_offset() {
    // Enough memory for all keys, and so little that it takes several passes.
    for max_key_bytes in [1 << 20, 300] {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(LogOptions::new(dir.path()));
        let state = partition(&log, "state", compacted(max_key_bytes));
        let expected = fill(&log, &state, 60);
        let before = records_from(&state, 0);
        let (end, segments) = (state.end_offset(), state.metrics().segments);
        let mut removed = 0;
        for _ in 0..200 {
            removed += state.compact(NOW_MS).unwrap();
        }
        let after = records_from(&state, 0);
        assert_eq!(newest(&state), expected);
        assert_eq!(u64::try_from(before.len() - after.len()).unwrap(), removed);
        assert_eq!(after.len(), 11, "one record a key is left");
        assert!(after.iter().all(|record| before.contains(record)), "a record changed");
        assert_eq!((state.start_offset(), state.end_offset()), (0, end));
        // A reader may ask for any offset in a gap.
        for from in 0..end {
            let fetched = state.read(from, 1, Verify::Checksums).unwrap();
            assert!(fetched.next_offset > from);
        }
        assert_locating_finds_what_reading_finds(&state);
        let more = fill(&log, &state, 3);
        state.compact(NOW_MS).unwrap();
        assert!(state.metrics().segments < segments / 2, "segments that have become small are joined");
        log.close().unwrap();
        drop(log);
        let (log, report) = open(LogOptions::new(dir.path()));
        assert_eq!(report.batches_replayed, 0);
        let state = log.partition(&id("state")).unwrap();
        let mut expected = expected;
        expected.extend(more);
        assert_eq!(newest(&state), expected);
    }
}

#[test]
fn a_tombstone_outlives_what_it_deletes_and_goes_after_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let state = partition(&log, "state", compacted(1 << 20));
    append(&log, &state, keyed(NOW_MS, "a", Some("1")));
    append(&log, &state, keyed(NOW_MS, "b", Some("2")));
    append(&log, &state, keyed(NOW_MS, "a", None));
    let late = NOW_MS + 100_000;
    state.compact(late).unwrap();
    assert_eq!(
        newest(&state).get("a"),
        Some(&None),
        "the pass that removes the old value keeps the tombstone"
    );
    append(&log, &state, keyed(NOW_MS, "c", Some("3")));
    state.compact(NOW_MS + 1_000).unwrap();
    assert_eq!(newest(&state).get("a"), Some(&None), "within its grace it stays");
    append(&log, &state, keyed(NOW_MS, "c", Some("4")));
    state.compact(late).unwrap();
    assert_eq!(newest(&state).get("a"), None);
    assert_eq!(newest(&state).len(), 2);
}

#[test]
fn little_that_is_new_waits_for_more_until_the_longest_lag_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let mut options = compacted(1 << 20);
    options.compaction = Some(Compaction { max_lag: Some(Duration::from_secs(5)), ..Compaction::default() });
    let state = partition(&log, "state", options);
    for value in ["1", "2", "3"] {
        append(&log, &state, keyed(NOW_MS, "a", Some(value)));
    }
    assert_eq!(state.compact(NOW_MS + 5_000).unwrap(), 0, "it isn't much, and not old");
    assert_eq!(state.compact(NOW_MS + 5_001).unwrap(), 2);
    assert_eq!(state.compact(NOW_MS + 100_000).unwrap(), 0, "nothing is new");
    append(&log, &state, keyed(NOW_MS + 100_000, "a", Some("4")));
    assert_eq!(state.compact(NOW_MS + 100_001).unwrap(), 0, "what is new is young");
    assert_eq!(state.compact(NOW_MS + 105_001).unwrap(), 1);
    assert_eq!(newest(&state), BTreeMap::from([("a".to_owned(), Some("4".to_owned()))]));
}

#[test]
fn records_without_a_key_and_partitions_without_compaction_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let state = partition(&log, "state", compacted(1 << 20));
    append(&log, &state, batch(&["no key", "no key"]));
    let plain = partition(&log, "plain", PartitionOptions::default());
    append(&log, &plain, keyed(NOW_MS, "a", Some("1")));
    append(&log, &plain, keyed(NOW_MS, "a", Some("2")));
    assert_eq!(state.compact(NOW_MS).unwrap() + plain.compact(NOW_MS).unwrap(), 0);
    assert_eq!((contents(&state).len(), contents(&plain).len()), (2, 2));
}

#[test]
fn a_compaction_interrupted_at_any_step_loses_and_repeats_nothing() {
    let options = |file_system: &FaultFileSystem| LogOptions {
        background: Background::Inline,
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 64 * 1024,
        ..LogOptions::new("/data")
    };
    let (mut interrupted, mut completed) = (0, 0);
    for operations in 0..400 {
        let file_system = FaultFileSystem::new(operations);
        let (log, _) = open(options(&file_system));
        let state = partition(&log, "state", compacted(1 << 20));
        let expected = fill(&log, &state, 25);
        file_system.crash_after(operations);
        if state.compact(NOW_MS).is_ok() {
            completed += 1;
            if completed > 5 {
                break;
            }
        } else {
            interrupted += 1;
        }
        drop((state, log));
        file_system.restart();
        let (log, _) = open(options(&file_system));
        let state = log.partition(&id("state")).unwrap();
        assert_eq!(newest(&state), expected, "crash after {operations} operations");
        let offsets: Vec<_> = records_from(&state, 0).iter().map(|record| record.offset).collect();
        assert!(offsets.is_sorted_by(|a, b| a < b), "crash after {operations} operations: {offsets:?}");
        state.set_options(compacted(1 << 20));
        state.compact(NOW_MS).unwrap();
        assert_eq!(newest(&state), expected);
    }
    println!("{interrupted} interrupted, {completed} completed");
    assert!(interrupted > 30 && completed > 0, "{interrupted} interrupted, {completed} completed");
}

/// A file that a compaction has begun and not finished.
fn interrupted_compaction(file_system: &FaultFileSystem, folder: &Path) -> Option<PathBuf> {
    file_system.read_dir(folder).unwrap().into_iter().find_map(|entry| {
        let path = folder.join(&entry.name);
        let is_it = entry.name.ends_with(".cleaned").then(|| path.clone());
        is_it.or_else(|| if entry.is_dir { interrupted_compaction(file_system, &path) } else { None })
    })
}

#[test]
fn a_compaction_that_finds_no_space_leaves_none_used() {
    let file_system = FaultFileSystem::new(9);
    let (log, _) = open(LogOptions {
        background: Background::Inline,
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 64 * 1024,
        ..LogOptions::new("/data")
    });
    let state = partition(&log, "state", compacted(1 << 20));
    // Of each segment nearly all is kept, so what is written anew is as large.
    for n in 0..200 {
        append(&log, &state, keyed(NOW_MS, &format!("key {n}"), Some("value")));
        append(&log, &state, keyed(NOW_MS, "key", Some(&n.to_string())));
    }
    let expected = newest(&state);
    let mut left_out = 0;
    for room in (0..).step_by(100) {
        file_system.set_capacity(file_system.used_bytes() + room);
        if state.compact(NOW_MS).is_ok() {
            break;
        }
        let left = interrupted_compaction(&file_system, Path::new("/data"));
        assert_eq!(left, None, "with room for {room} bytes");
        left_out += 1;
        // The log looks for space by itself; here it has some.
        file_system.set_capacity(u64::MAX);
        log.checkpoint().unwrap();
    }
    assert!(left_out > 3, "{left_out}");
    file_system.set_capacity(u64::MAX);
    assert_eq!(newest(&state), expected);

    // Nor does one whose file doesn't get its name.
    append(&log, &state, keyed(NOW_MS, "key 0", Some("newer")));
    file_system.fail_next(Operation::Rename, ".cleaned");
    state.compact(NOW_MS).unwrap_err();
    assert_eq!(interrupted_compaction(&file_system, Path::new("/data")), None);
}
