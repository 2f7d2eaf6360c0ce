//! What others may keep beside a partition, and how they find what came since.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use farol_log::{AppendRequest, LogOptions, PartitionError, PartitionOptions};
use support::*;

#[test]
fn a_companion_is_replaced_whole_survives_and_goes_with_its_partition() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", PartitionOptions::default());
    assert_eq!(sensors.load_companion("state", 100).unwrap(), None);
    sensors.save_companion("state", b"first, and longer").unwrap();
    sensors.save_companion("state", b"second").unwrap();
    assert!(matches!(sensors.load_companion("state", 5), Err(PartitionError::Io { .. })), "over its bound");
    append(&log, &sensors, batch(&["a"]));
    log.close().unwrap();
    drop(log);

    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = log.partition(&id("p")).unwrap();
    assert_eq!(sensors.load_companion("state", 100).unwrap().unwrap(), b"second");
    assert_eq!(contents(&sensors).len(), 1);
    log.delete_partition(&id("p")).unwrap();
    let again = partition(&log, "p", PartitionOptions::default());
    assert!(matches!(sensors.save_companion("state", b"late"), Err(PartitionError::Missing { .. })));
    assert_eq!(again.load_companion("state", 100).unwrap(), None);
}

#[test]
fn a_durable_offset_is_what_a_checkpoint_covers() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", PartitionOptions::default());
    append(&log, &sensors, batch(&["a", "b"]));
    log.checkpoint().unwrap();
    append(&log, &sensors, batch(&["c"]));
    assert_eq!((sensors.durable_offset(), sensors.end_offset()), (2, 3));
}

#[test]
fn headers_are_visited_from_any_offset_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let options = PartitionOptions { segment_bytes: 2_000, ..PartitionOptions::default() };
    let sensors = partition(&log, "p", options);
    for _ in 0..100 {
        append(&log, &sensors, batch(&["a", "b", "c"]));
    }
    assert!(sensors.metrics().segments > 3);
    for from in [0, 1, 2, 3, 149, 150, 298, 299, 300] {
        let mut visited = Vec::new();
        sensors.visit_headers(from, |header| visited.push(header.base_offset)).unwrap();
        let expected: Vec<i64> = (0..100).map(|n| n * 3).filter(|base| base + 2 >= from).collect();
        assert_eq!(visited, expected, "from {from}");
    }
}

#[test]
fn a_listener_is_told_after_the_callbacks_of_its_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", PartitionOptions::default());
    let decided = Arc::new(AtomicI64::new(0));
    let (seen, told) = std::sync::mpsc::channel();
    let deciding = Arc::clone(&decided);
    let _listening = sensors.on_advance(move |end| {
        let _ = seen.send((deciding.load(Ordering::SeqCst), end));
    });
    for n in 1..=20 {
        let decided = Arc::clone(&decided);
        let callback = Box::new(move |_| decided.store(n, Ordering::SeqCst));
        log.append_with(AppendRequest::single(sensors.clone(), batch(&["x"])), callback);
        let (decided, end) = told.recv().unwrap();
        assert_eq!((decided, end), (n, n));
    }
}
