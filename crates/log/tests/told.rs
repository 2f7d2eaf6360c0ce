//! What the log's threads say of something that fails for a while: once that it does, and once that it is over.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::{AppendError, AppendRequest, Compaction, LogOptions, PartitionOptions};
use support::*;

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, text: &str) -> usize {
        let lines = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        lines.lines().filter(|line| line.contains(text)).count()
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The only test here: the log's threads are its own, so it needs what is told in the whole process.
#[test]
fn what_fails_again_and_again_is_told_when_it_begins_and_when_it_is_over() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let told_once = |begun: &str, over: &str| {
        eventually(over, || lines.with(over) > 0);
        assert_eq!((lines.with(begun), lines.with(over)), (1, 1), "{begun}, {over}");
    };

    let file_system = FaultFileSystem::new(1);
    let (log, _) = open(LogOptions {
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 64 * 1024,
        reserve_bytes: 512,
        checkpoint_interval: Duration::from_millis(5),
        maintenance_interval: Duration::from_millis(5),
        ..LogOptions::new("/data")
    });
    let compaction = Some(Compaction { min_dirty_bytes: 1_000, ..Compaction::default() });
    let options = PartitionOptions { compaction, ..PartitionOptions::default() };
    let partitions = ["p", "q"].map(|name| partition(&log, name, options.clone()));
    let put = || {
        let batches = partitions.iter().map(|p| (p.clone(), keyed(1, "key", Some("value"))));
        log.append(AppendRequest::new(batches.collect())).wait()
    };
    let fails_often = || {
        let before = file_system.counts().failures;
        eventually("it tries again", || file_system.counts().failures > before + 50);
        file_system.cancel_failures();
    };

    // A compaction that finds no space, of two partitions.
    file_system.refuse(Operation::Open, ".cleaned", ErrorKind::StorageFull);
    for _ in 0..30 {
        put().unwrap();
    }
    fails_often();
    told_once("retention or compaction failed", "retention and compaction work again");

    // A checkpoint for which nobody waits.
    file_system.refuse(Operation::Open, "checkpoint", ErrorKind::PermissionDenied);
    put().unwrap();
    fails_often();
    told_once("no checkpoint was written", "checkpoints are written again");

    // A full disk.
    file_system.set_capacity(file_system.used_bytes());
    let refused = (0..1_000).find_map(|_| put().err()).unwrap();
    assert!(matches!(refused, AppendError::WaitingForSpace { .. }), "{refused}");
    let looked = || log.metrics().checkpoints;
    let before = looked();
    eventually("it looks again", || looked() > before + 50);
    file_system.set_capacity(u64::MAX);
    told_once("the disk is full", "there is space again");
    put().unwrap();
    log.close().unwrap();
}
