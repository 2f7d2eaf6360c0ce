//! One shared journal against a sync for each partition's file, for commits that touch 1, 3 or 12 partitions; the
//! measurement behind `docs/decisions/0001-shared-journal.md`.
//!
//! `cargo bench -p farol-log --bench group_commit [-- SECONDS]`
//!
//! * `per file`: what a log without a journal has to do: write each partition's file, fdatasync one after another;
//! * `parallel`: the same with the fdatasyncs on threads of their own;
//! * `log`: an append to all the partitions through this crate, recovery information, indexes, checkpoints and all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use farol_log::{AppendRequest, Batch, Compression, Log, LogOptions, PartitionId, PartitionOptions};
use support::*;

fn main() {
    let seconds: u64 = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(3);
    let length = Duration::from_secs(seconds);
    println!("one commit at a time, {seconds} s each");
    println!(
        "{:>10} {:>9} {:>9} {:>10} | {:>8} {:>8} {:>8} {:>8}",
        "partitions", "bytes", "way", "commits/s", "p50 ms", "p99 ms", "p99.9", "max"
    );
    for (partitions, bytes) in [(1, 300), (3, 300), (12, 300), (4, 4 * 1024), (3, 256 * 1024)] {
        let batch = batch_of(bytes);
        report(partitions, bytes, "per file", &per_file(partitions, &batch, length));
        report(partitions, bytes, "parallel", &parallel(partitions, &batch, length));
        report(partitions, bytes, "log", &log(partitions, &batch, length));
    }
}

fn batch_of(bytes: usize) -> Batch {
    if bytes < 1_000 {
        events(1, bytes - 100, Compression::None)
    } else {
        events(bytes / 180, 150, Compression::None)
    }
}

fn report(partitions: usize, bytes: usize, way: &str, (rate, latencies): &(f64, Latencies)) {
    println!("{partitions:>10} {bytes:>9} {way:>9} {rate:>10.0} | {}", percentiles(latencies));
}

/// Runs commits until the time is over.
fn measure(length: Duration, mut commit: impl FnMut()) -> (f64, Latencies) {
    let mut latencies = latencies();
    // The first commits allocate; they aren't what is asked.
    (0..20).for_each(|_| commit());
    let started = Instant::now();
    while started.elapsed() < length {
        let before = Instant::now();
        commit();
        record(&mut latencies, before.elapsed());
    }
    (latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies)
}

fn files(dir: &std::path::Path, count: usize) -> Vec<File> {
    (0..count).map(|nth| File::create(dir.join(nth.to_string())).unwrap()).collect()
}

fn per_file(partitions: usize, batch: &Batch, length: Duration) -> (f64, Latencies) {
    let dir = folder();
    let files = files(dir.path(), partitions);
    let mut position = 0;
    measure(length, || {
        for file in &files {
            file.write_all_at(batch.bytes(), position).unwrap();
        }
        for file in &files {
            file.sync_data().unwrap();
        }
        position += batch.bytes().len() as u64;
    })
}

fn parallel(partitions: usize, batch: &Batch, length: Duration) -> (f64, Latencies) {
    let dir = folder();
    let files = files(dir.path(), partitions);
    std::thread::scope(|scope| {
        let (done, all_done) = mpsc::channel();
        let writers: Vec<mpsc::Sender<u64>> = files
            .iter()
            .map(|file| {
                let (sender, positions) = mpsc::channel();
                let (done, batch) = (done.clone(), batch.clone());
                scope.spawn(move || {
                    for position in positions {
                        file.write_all_at(batch.bytes(), position).unwrap();
                        file.sync_data().unwrap();
                        done.send(()).unwrap();
                    }
                });
                sender
            })
            .collect();
        let mut position = 0;
        measure(length, || {
            writers.iter().for_each(|writer| writer.send(position).unwrap());
            writers.iter().for_each(|_| all_done.recv().unwrap());
            position += batch.bytes().len() as u64;
        })
    })
}

fn log(partitions: usize, batch: &Batch, length: Duration) -> (f64, Latencies) {
    let dir = folder();
    let (log, _) = Log::open(LogOptions::new(dir.path())).unwrap();
    let partitions: Vec<_> = (0..partitions)
        .map(|nth| {
            let id = PartitionId::new(&format!("p-{nth}")).unwrap();
            log.create_partition(&id, PartitionOptions::default()).unwrap()
        })
        .collect();
    let measured = measure(length, || {
        let batches = partitions.iter().map(|partition| (partition.clone(), batch.clone())).collect();
        log.append(AppendRequest::new(batches)).wait().unwrap();
    });
    log.close().unwrap();
    measured
}
