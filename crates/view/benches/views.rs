//! What a reading costs on its way into the views, and what the queries of a dashboard take.
//!
//! `cargo bench -p farol-view` runs all; `cargo bench -p farol-view -- apply` or `-- query` one part. Every figure is of
//! one process on a real file in the temporary folder; `written` counts the bytes of all write calls (WAL and write-back).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::{ConsumedBatch, ConsumedRecord, TopicPartition};
use farol_event::{Reading, Timestamp};
use farol_view::query::readings::ReadingFilter;
use farol_view::query::sensors::SensorFilter;
use farol_view::{Store, StoreOptions, ViewName};

const START_MS: i64 = 1_790_000_000_000;

fn main() {
    let part = std::env::args().nth(1).filter(|a| !a.starts_with("--"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wants("apply") {
        parse_alone();
        for sensors in [100, 10_000, 100_000] {
            for batch in [2_000, 20_000, 50_000] {
                runtime.block_on(apply(sensors, batch, 1_000_000));
            }
        }
    }
    if wants("query") {
        runtime.block_on(queries());
    }
}

/// One reading of the size that simulators send, less their metadata.
fn reading(sensor: u64, sequence: u64, time: Timestamp) -> Bytes {
    let value = 20.0 + ((sequence * 7919) % 1000) as f64 / 37.0;
    Bytes::from(format!(
        "{{\"timestamp\":\"{time}\",\"sensor_id\":\"temp-sensor-{sensor:06}\",\"sensor_type\":\"temperature\",\"location\":{{\"factory_section\":\"production\",\"machine_id\":\"machine-{:03}\",\"zone\":\"zone-a\"}},\"value\":{value:.2},\"unit\":\"°C\"}}",
        sensor % 500
    ))
}

/// Batches of three partitions, `records` readings in all, of sensors in a scattered order.
fn batches(sensors: u64, from: u64, records: u64) -> Vec<ConsumedBatch> {
    let mut partitions: [Vec<ConsumedRecord>; 3] = Default::default();
    for sequence in from..from + records {
        let sensor = (sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % sensors;
        let time_us = START_MS * 1000 + (sequence * 4) as i64;
        let time = Timestamp::from_micros(time_us).unwrap();
        partitions[(sensor % 3) as usize].push(ConsumedRecord {
            offset: 0,
            timestamp_ms: time_us / 1000,
            key: None,
            value: Some(reading(sensor, sequence, time)),
            headers: Vec::new(),
        });
    }
    let mut batches = Vec::new();
    for (partition, mut records) in (0..).zip(partitions) {
        // Offsets only have to rise.
        for (index, record) in (from as i64..).zip(&mut records) {
            record.offset = index;
        }
        let next_offset = from as i64 + records.len() as i64;
        let partition = TopicPartition::new("sensor-data", partition);
        batches.push(ConsumedBatch { partition, records, next_offset, end_offset: next_offset });
    }
    batches
}

fn parse_alone() {
    let batches = batches(1000, 0, 100_000);
    let began = Instant::now();
    let mut sum = 0.0;
    for batch in &batches {
        for record in &batch.records {
            sum += Reading::parse(record.value.as_ref().unwrap(), record.timestamp()).unwrap().value;
        }
    }
    println!("parse alone: {:.2} µs a reading (sum {sum:.0})", began.elapsed().as_secs_f64() * 10.0);
}

async fn apply(sensors: u64, batch: u64, total: u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("views.db"), StoreOptions::default()).unwrap();
    let mut took = Duration::ZERO;
    let mut each = Vec::new();
    let written_before = written_bytes();
    let mut from = 0;
    while from < total {
        let given = batches(sensors, from, batch);
        let began = Instant::now();
        store.apply(&[ViewName::Readings, ViewName::Sensors], given, Timestamp::EPOCH).await.unwrap();
        took += began.elapsed();
        each.push(began.elapsed());
        from += batch;
    }
    let memory = resident_bytes();
    let written = written_bytes() - written_before;
    store.close().await;
    let file = std::fs::metadata(folder.path().join("views.db")).unwrap().len();
    each.sort_unstable();
    println!(
        "apply readings+sensors: {sensors:>6} sensors, batches of {batch:>5}: {:>4.0} k/s, {:.2} µs a reading, p50 {:?} p99 {:?} max {:?} a batch; {:.0} B on disk, {:.0} B written a reading; {:.0} MB resident",
        total as f64 / took.as_secs_f64() / 1000.0,
        took.as_secs_f64() * 1e6 / total as f64,
        each[each.len() / 2],
        each[each.len() * 99 / 100],
        each[each.len() - 1],
        file as f64 / total as f64,
        written as f64 / total as f64,
        memory as f64 / 1e6,
    );
}

async fn queries() {
    let _ = (ReadingFilter::default(), SensorFilter::default());
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|l| l.strip_prefix("wchar: ")).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|v| v.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    kibibytes * 1024
}
