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
use farol_view::{Queries, Store, StoreOptions, ViewError, ViewName};

const START_MS: i64 = 1_790_000_000_000;

fn main() {
    let part = std::env::args().nth(1).filter(|a| !a.starts_with("--"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(idle());
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wants("apply") {
        parse_alone();
        for views in
            [&[ViewName::Readings, ViewName::Sensors][..], &[ViewName::Readings], &[ViewName::Sensors]]
        {
            for sensors in [100, 10_000, 100_000] {
                for batch in [2_000, 20_000, 50_000] {
                    runtime.block_on(apply(views, sensors, batch, 1_000_000));
                }
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
    let batches = batches(1000, 0, 300_000);
    let (began, cpu_before) = (Instant::now(), cpu_time());
    let mut sum = 0.0;
    for batch in &batches {
        for record in &batch.records {
            sum += Reading::parse(record.value.as_ref().unwrap(), record.timestamp()).unwrap().value;
        }
    }
    println!(
        "parse alone: {:.2} µs a reading ({:.2} µs of CPU; sum {sum:.0})",
        began.elapsed().as_secs_f64() * 1e6 / 300_000.0,
        (cpu_time() - cpu_before).as_secs_f64() * 1e6 / 300_000.0
    );
}

async fn apply(views: &[ViewName], sensors: u64, batch: u64, total: u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("views.db"), StoreOptions::default()).unwrap();
    let mut took = Duration::ZERO;
    let mut cpu = Duration::ZERO;
    let mut each = Vec::new();
    let written_before = written_bytes();
    let mut from = 0;
    while from < total {
        let given = batches(sensors, from, batch);
        let (began, cpu_before) = (Instant::now(), cpu_time());
        store.apply(views, given, Timestamp::EPOCH).await.unwrap();
        took += began.elapsed();
        cpu += cpu_time() - cpu_before;
        each.push(began.elapsed());
        from += batch;
    }
    let memory = resident_bytes();
    let written = written_bytes() - written_before;
    store.close().await;
    let file = std::fs::metadata(folder.path().join("views.db")).unwrap().len();
    each.sort_unstable();
    println!(
        "apply {views:?}: {sensors:>6} sensors, batches of {batch:>5}: {:>4.0} k/s, {:.2} µs a reading ({:.2} µs of CPU), p50 {:?} p99 {:?} max {:?} a batch; {:.0} B on disk, {:.0} B written a reading; {:.0} MB resident",
        total as f64 / took.as_secs_f64() / 1000.0,
        took.as_secs_f64() * 1e6 / total as f64,
        cpu.as_secs_f64() * 1e6 / total as f64,
        each[each.len() / 2],
        each[each.len() * 99 / 100],
        each[each.len() - 1],
        file as f64 / total as f64,
        written as f64 / total as f64,
        memory as f64 / 1e6,
    );
}

/// What an open store costs.
async fn idle() {
    let folder = tempfile::tempdir().unwrap();
    let before = resident_bytes();
    let began = Instant::now();
    let store = Store::open(folder.path().join("views.db"), StoreOptions::default()).unwrap();
    let took = began.elapsed();
    store.query(|q| q.alert_counts()).await.unwrap();
    println!("open: {took:?}, {:.1} MB more resident", (resident_bytes() - before) as f64 / 1e6);
    store.close().await;
}

/// What a dashboard asks, over a million readings of one sensor and another million of ten thousand.
async fn queries() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("views.db"), StoreOptions::default()).unwrap();
    let views = [ViewName::Readings, ViewName::Sensors];
    for (sensors, batch) in [(10_000, 20_000), (1, 20_000)] {
        let mut from = if sensors == 1 { 1_000_000 } else { 0 };
        let end = from + 1_000_000;
        while from < end {
            store.apply(&views, batches(sensors, from, batch), Timestamp::EPOCH).await.unwrap();
            from += batch;
        }
    }
    let now = Timestamp::from_millis_clamped(START_MS + 8_000);
    let one = ReadingFilter { sensor_id: Some("temp-sensor-000000".into()), ..ReadingFilter::default() };
    let few = ReadingFilter { sensor_id: Some("temp-sensor-004711".into()), ..ReadingFilter::default() };
    let chart = ReadingFilter { limit: Some(22_695), ..one.clone() };
    let decimated = ReadingFilter { max_points: Some(2_000), ..one.clone() };
    let newest = ReadingFilter::default();
    let by_value = SensorFilter { sort: "-value".parse().unwrap(), ..SensorFilter::default() };
    let search = SensorFilter { search: Some("00471".into()), ..SensorFilter::default() };
    time(&store, "22,695 readings as columns", move |q| q.reading_columns(&chart).map(|c| c.values.len()))
        .await;
    time(&store, "1 M readings decimated to 2,000", move |q| {
        q.reading_columns(&decimated).map(|c| c.values.len())
    })
    .await;
    time(&store, "1,000 newest rows of one sensor", move |q| q.reading_rows(&one).map(|r| r.readings.len()))
        .await;
    time(&store, "all 100 readings of one sensor of many", move |q| {
        q.reading_columns(&few).map(|c| c.values.len())
    })
    .await;
    time(&store, "1,000 newest rows of all", move |q| q.reading_rows(&newest).map(|r| r.readings.len()))
        .await;
    time(&store, "200 of 10,000 sensors by id", move |q| {
        q.sensors(&SensorFilter::default(), now).map(|p| p.sensors.len())
    })
    .await;
    time(&store, "200 of 10,000 sensors by value", move |q| {
        q.sensors(&by_value, now).map(|p| p.sensors.len())
    })
    .await;
    time(&store, "sensors by a part of the id", move |q| q.sensors(&search, now).map(|p| p.sensors.len()))
        .await;
    time(&store, "sensors by state", move |q| q.sensor_counts(now).map(|c| c.total as usize)).await;
    println!("{:.0} MB resident", resident_bytes() as f64 / 1e6);
}

async fn time<F>(store: &Store, what: &str, ask: F)
where
    F: Fn(&Queries<'_>) -> Result<usize, ViewError> + Clone + Send + 'static,
{
    let mut each = Vec::new();
    let mut rows = 0;
    for _ in 0..10 {
        let ask = ask.clone();
        let began = Instant::now();
        rows = store.query(move |q| ask(q)).await.unwrap();
        each.push(began.elapsed());
    }
    each.sort_unstable();
    println!("query {what}: {rows} rows, p50 {:?}, max {:?}", each[5], each[9]);
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    // Ticks are hundredths of a second on Linux.
    Duration::from_millis(ticks * 10)
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
