//! How fast batches are encoded, validated and decoded, on one thread.
//!
//! `cargo bench -p farol-log --bench batch`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use farol_log::{Batch, BatchBuilder, BatchLimits, Compression};
use support::*;

const EVENTS: usize = 1000;
const EVENT_BYTES: usize = 150;

fn main() {
    println!("batches of {EVENTS} records of {EVENT_BYTES} bytes, million records a second, one thread");
    println!("{:>8} {:>8} {:>9} {:>8} {:>12}", "", "encode", "validate", "decode", "bytes/record");
    for compression in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let batch = events(EVENTS, EVENT_BYTES, compression);
        let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        let encode = rate(|| {
            let mut builder = BatchBuilder::new(compression);
            for record in &records {
                builder
                    .push(record.key.as_deref(), record.value.as_deref(), &[], record.timestamp_ms)
                    .unwrap();
            }
            black_box(builder.build().unwrap());
        });
        let limits = BatchLimits::default();
        let validate = rate(|| {
            black_box(Batch::validate(batch.bytes().clone(), &limits).unwrap());
        });
        let decode = rate(|| {
            for record in batch.records().unwrap() {
                black_box(record.unwrap());
            }
        });
        let bytes = batch.bytes().len() as f64 / EVENTS as f64;
        let name = format!("{compression:?}");
        println!("{name:>8} {encode:>8.2} {validate:>9.2} {decode:>8.2} {bytes:>12.1}");
    }
}

/// Million records a second of something that handles one batch.
fn rate(mut one_batch: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut batches = 0u32;
    while started.elapsed() < Duration::from_millis(700) {
        one_batch();
        batches += 1;
    }
    f64::from(batches) * EVENTS as f64 / started.elapsed().as_secs_f64() / 1e6
}
