//! How long opening takes: an empty folder, one of some size closed in order, and the same after a crash.
//!
//! `cargo bench -p farol-log --bench open [-- MEGABYTES]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::time::Instant;

use farol_log::{
    AppendRequest, Compression, Log, LogOptions, PartitionId, PartitionOptions, SyncPolicy, Verify,
};
use support::*;

const PARTITIONS: u64 = 12;

/// Set for the process that appends and dies.
const FOLDER: &str = "FAROL_BENCH_CRASH_FOLDER";
const MEGABYTES_BEFORE_CRASH: u64 = 30;

fn main() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        let (log, _) = Log::open(LogOptions::new(dir)).unwrap();
        fill(&log, MEGABYTES_BEFORE_CRASH);
        std::process::abort();
    }
    let megabytes: u64 = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000);
    let dir = folder();
    let opened = open(dir.path(), "empty");
    let options = PartitionOptions { sync: SyncPolicy::Never, ..PartitionOptions::default() };
    for nth in 0..PARTITIONS {
        let id = PartitionId::new(&format!("p-{nth}")).unwrap();
        opened.create_partition(&id, options.clone()).unwrap();
    }
    fill(&opened, megabytes);
    let size: u64 = opened.partitions().iter().map(|partition| partition.size_bytes()).sum();
    println!("{} MB in {PARTITIONS} partitions", size / 1_000_000);
    opened.close().unwrap();
    drop(opened);
    let opened = open(dir.path(), "closed in order");
    first_reads(&opened);
    opened.close().unwrap();
    drop(opened);
    let died = std::process::Command::new(std::env::current_exe().unwrap()).env(FOLDER, dir.path()).status();
    assert!(!died.unwrap().success());
    let opened = open(dir.path(), "after a crash");
    opened.close().unwrap();
    println!("resident {} MB, peak {} MB", memory().0, memory().1);
}

fn open(dir: &std::path::Path, what: &str) -> Log {
    let started = Instant::now();
    let (log, report) = Log::open(LogOptions::new(dir)).unwrap();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    println!("{what:>20}: {ms:8.1} ms, {} frames replayed", report.frames_replayed);
    log
}

fn fill(log: &Log, megabytes: u64) {
    let batch = events(5_000, 150, Compression::None);
    let partitions = log.partitions();
    let rounds = megabytes * 1_000_000 / (batch.bytes().len() as u64 * PARTITIONS);
    for _ in 0..rounds.max(1) {
        let requests = partitions.iter().map(|p| AppendRequest::single(p.clone(), batch.clone())).collect();
        log.append_each(requests).into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    }
}

/// The first read of a segment loads its index.
fn first_reads(log: &Log) {
    let mut latencies = latencies();
    for partition in log.partitions() {
        for tenth in 0..10 {
            let offset = partition.end_offset() / 10 * tenth;
            let before = Instant::now();
            partition.read(offset, 1_000, Verify::Headers).unwrap();
            record(&mut latencies, before.elapsed());
        }
    }
    println!("{:>20}: p50, p99, p99.9, max ms {}", "first reads", percentiles(&latencies));
}
