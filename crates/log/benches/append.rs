//! How many events a second the log takes, synced: batches of 1000 events of 150 bytes, from 1 to 4 threads, each
//! encoding its batches and keeping a few in flight.
//!
//! `cargo bench -p farol-log --bench append [-- SECONDS]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farol_log::{AppendRequest, Compression, Log, LogOptions, PartitionId, PartitionOptions};
use support::*;

const EVENTS: usize = 1000;
const EVENT_BYTES: usize = 150;
const IN_FLIGHT: usize = 4;

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(4);
    println!(
        "{EVENTS} events of {EVENT_BYTES} bytes a batch, fdatasync before every acknowledgement, {seconds} s each"
    );
    println!(
        "{:>7} {:>12} {:>8} {:>8} {:>8} | {:>8} {:>8} {:>8} {:>8} | {:>8}",
        "threads", "events/s", "MB/s", "groups/s", "waits", "p50 ms", "p99 ms", "p99.9", "max", "peak MB"
    );
    for threads in 1..=4 {
        run(threads, Duration::from_secs(seconds));
    }
}

fn run(threads: usize, length: Duration) {
    let dir = folder();
    let (log, _) = Log::open(LogOptions::new(dir.path())).unwrap();
    let started = Instant::now();
    let all: Vec<Latencies> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..threads)
            .map(|nth| {
                let id = PartitionId::new(&format!("events-{nth}")).unwrap();
                let partition = log.create_partition(&id, PartitionOptions::default()).unwrap();
                let log = &log;
                scope.spawn(move || {
                    let mut latencies = latencies();
                    let mut in_flight = VecDeque::new();
                    let sources = sources(EVENTS, EVENT_BYTES);
                    while started.elapsed() < length {
                        let batch = encode(&sources, Compression::None);
                        let request = AppendRequest::single(partition.clone(), batch);
                        in_flight.push_back((Instant::now(), log.append(request)));
                        if in_flight.len() >= IN_FLIGHT {
                            let (sent, pending) = in_flight.pop_front().unwrap();
                            pending.wait().unwrap();
                            record(&mut latencies, sent.elapsed());
                        }
                    }
                    for (_, pending) in in_flight {
                        pending.wait().unwrap();
                    }
                    latencies
                })
            })
            .collect();
        producers.into_iter().map(|producer| producer.join().unwrap()).collect()
    });
    let took = started.elapsed().as_secs_f64();
    let metrics = log.metrics();
    let mut latencies = latencies();
    all.iter().for_each(|one| latencies.add(one).unwrap());
    println!(
        "{threads:>7} {:>12.0} {:>8.0} {:>8.0} {:>8} | {} | {:>8}",
        metrics.records as f64 / took,
        metrics.bytes as f64 / took / 1e6,
        metrics.groups as f64 / took,
        metrics.journal_waits,
        percentiles(&latencies),
        memory().1,
    );
    log.close().unwrap();
}
