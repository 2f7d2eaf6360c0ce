//! Throughput and latency of the embedded engine, in process: `cargo bench -p farol-bus --bench embedded`.
//!
//! Every case uses a fresh data folder (below `FAROL_BENCH_DIR`, or the system's temporary folder) and a runtime of
//! two threads, and lasts about three seconds. Records have 150 bytes of value and a key.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{
    Bus, Consumer, ConsumerSettings, Partitioning, Polled, Producer, ProducerRecord, StartAt, TopicPartition,
    TopicSpec,
};
use hdrhistogram::Histogram;

const LASTS: Duration = Duration::from_secs(3);
const PARTITIONS: i32 = 3;
const VALUE_BYTES: usize = 150;

/// An engine with one topic in a folder that goes with it.
struct Bench {
    _dir: tempfile::TempDir,
    bus: Arc<EmbeddedBus>,
}

impl Bench {
    async fn start(config: &[(&str, &str)]) -> Self {
        let parent = std::env::var_os("FAROL_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
        let dir = tempfile::tempdir_in(parent).unwrap();
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        bus.create_topic(TopicSpec { name: "t".into(), partitions: PARTITIONS, config }).await.unwrap();
        Self { _dir: dir, bus }
    }

    async fn reader(&self) -> Box<dyn Consumer> {
        let mut consumer = self.bus.consumer(ConsumerSettings::standalone("reader")).await.unwrap();
        let all = (0..PARTITIONS).map(|p| (TopicPartition::new("t", p), StartAt::Earliest)).collect();
        consumer.assign(all).await.unwrap();
        consumer
    }

    fn syncs(&self) -> u64 {
        self.bus.stats().log.syncs.count()
    }
}

fn records(count: usize, value: &Bytes) -> Vec<ProducerRecord> {
    (0..count)
        .map(|n| ProducerRecord {
            partitioning: Partitioning::ByKey,
            key: Some(Bytes::from(format!("sensor-{:05}", n % 1000))),
            value: Some(value.clone()),
            timestamp_ms: 1_700_000_000_000,
            headers: Vec::new(),
        })
        .collect()
}

fn polled_records(polled: Polled) -> u64 {
    match polled {
        Polled::Records(batches) => batches.iter().map(|batch| batch.records.len() as u64).sum(),
        Polled::Revoked(_) | Polled::Assigned(_) => 0,
    }
}

/// Sends batches until told to stop; gives how many records were acknowledged.
async fn send_all(producer: Arc<dyn Producer>, batch: usize, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    while !stop.load(Ordering::Relaxed) {
        producer.send("t", records(batch, &value)).await.unwrap();
        sent.fetch_add(batch as u64, Ordering::Relaxed);
    }
}

/// So many producers and so many consumers of everything.
async fn throughput(name: &str, config: &[(&str, &str)], producers: usize, consumers: usize, batch: usize) {
    let bench = Bench::start(config).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut reading = Vec::new();
    for _ in 0..consumers {
        let (mut consumer, stop, sent) = (bench.reader().await, Arc::clone(&stop), Arc::clone(&sent));
        reading.push(tokio::spawn(async move {
            let mut read = 0;
            while !stop.load(Ordering::Relaxed) || read < sent.load(Ordering::Relaxed) {
                read += polled_records(consumer.poll(Duration::from_millis(20)).await.unwrap());
            }
            read
        }));
    }
    let producer = bench.bus.producer("p").await.unwrap();
    let started = Instant::now();
    let sending: Vec<_> = (0..producers)
        .map(|_| tokio::spawn(send_all(Arc::clone(&producer), batch, Arc::clone(&stop), Arc::clone(&sent))))
        .collect();
    tokio::time::sleep(LASTS).await;
    stop.store(true, Ordering::Relaxed);
    for sender in sending {
        sender.await.unwrap();
    }
    let sent_in = started.elapsed();
    let mut read = 0;
    for reader in reading {
        read += reader.await.unwrap();
    }
    let sent = sent.load(Ordering::Relaxed) as f64;
    println!(
        "{name:<52} {:>10.0} sent/s {:>11.0} delivered/s  {:>6.1} MB/s  {:>6} syncs",
        sent / sent_in.as_secs_f64(),
        read as f64 / started.elapsed().as_secs_f64(),
        sent * VALUE_BYTES as f64 / sent_in.as_secs_f64() / 1e6,
        bench.syncs(),
    );
    bench.bus.close().await.unwrap();
}

/// From before the send of one record to after the poll that brings it, at a fixed pace.
async fn latency(name: &str, config: &[(&str, &str)], consumers: usize, pace: Duration) {
    let bench = Bench::start(config).await;
    let epoch = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let mut reading = Vec::new();
    for _ in 0..consumers {
        let (mut consumer, stop) = (bench.reader().await, Arc::clone(&stop));
        reading.push(tokio::spawn(async move {
            let mut histogram = Histogram::<u64>::new(3).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let Polled::Records(batches) = consumer.poll(Duration::from_millis(100)).await.unwrap()
                else {
                    continue;
                };
                let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap();
                for record in batches.iter().flat_map(|batch| &batch.records) {
                    let sent = u64::from_be_bytes(*record.value.as_ref().unwrap().first_chunk().unwrap());
                    histogram.record(now - sent).unwrap();
                }
            }
            histogram
        }));
    }
    let producer = bench.bus.producer("p").await.unwrap();
    let mut acknowledged = Histogram::<u64>::new(3).unwrap();
    let mut ticks = tokio::time::interval(pace);
    while epoch.elapsed() < LASTS {
        ticks.tick().await;
        let before = epoch.elapsed();
        let mut value = vec![b'v'; VALUE_BYTES];
        if let Some(front) = value.first_chunk_mut::<8>() {
            *front = u64::try_from(before.as_nanos()).unwrap().to_be_bytes();
        }
        producer.send("t", records(1, &Bytes::from(value))).await.unwrap();
        acknowledged.record(u64::try_from((epoch.elapsed() - before).as_nanos()).unwrap()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut delivered = Histogram::<u64>::new(3).unwrap();
    for reader in reading {
        delivered.add(reader.await.unwrap()).unwrap();
    }
    println!("{name:<52} {}", quantiles("acknowledged", &acknowledged));
    println!("{:<52} {}", "", quantiles("delivered   ", &delivered));
    bench.bus.close().await.unwrap();
}

fn quantiles(what: &str, histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "{what} {:>6} samples  p50 {:>7.0} µs  p99 {:>7.0} µs  p99.9 {:>7.0} µs",
        histogram.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    )
}

/// Consume, copy, commit with offsets: transactions of one worker.
async fn transactions(name: &str, config: &[(&str, &str)], batch: usize) {
    let bench = Bench::start(config).await;
    let output = TopicSpec { name: "out".into(), partitions: PARTITIONS, config: BTreeMap::new() };
    bench.bus.create_topic(output).await.unwrap();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let producer = bench.bus.producer("p").await.unwrap();
    let sending = tokio::spawn(send_all(producer, batch, Arc::clone(&stop), sent));
    let mut consumer = bench.bus.consumer(ConsumerSettings::member("m", "g")).await.unwrap();
    consumer.subscribe(&["t"]).await.unwrap();
    let mut transaction = bench.bus.transactional_producer("tx").await.unwrap();
    let mut took = Histogram::<u64>::new(3).unwrap();
    let (mut copied, started) = (0u64, Instant::now());
    while started.elapsed() < LASTS {
        let Polled::Records(batches) = consumer.poll(Duration::from_millis(100)).await.unwrap() else {
            continue;
        };
        let before = Instant::now();
        transaction.begin().unwrap();
        let mut offsets = BTreeMap::new();
        for batch in batches {
            copied += batch.records.len() as u64;
            let copies = batch.records.into_iter().map(|record| ProducerRecord {
                partitioning: Partitioning::ByKey,
                key: record.key,
                value: record.value,
                timestamp_ms: record.timestamp_ms,
                headers: Vec::new(),
            });
            transaction.send("out", copies.collect()).await.unwrap();
            offsets.insert(batch.partition, batch.next_offset);
        }
        transaction.send_offsets(offsets, &consumer.group_metadata()).await.unwrap();
        transaction.commit().await.unwrap();
        took.record(u64::try_from(before.elapsed().as_nanos()).unwrap()).unwrap();
    }
    let per_second = copied as f64 / started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    sending.await.unwrap();
    println!("{name:<52} {per_second:>10.0} copied/s  {}", quantiles("commit", &took));
    bench.bus.close().await.unwrap();
}

/// Memory and processor time of an engine with twelve consumers that have nothing to do.
async fn idle() {
    let bench = Bench::start(&[]).await;
    let mut waiting = Vec::new();
    for n in 0..12 {
        let settings = ConsumerSettings::member(format!("m{n}"), format!("g{}", n % 4));
        let mut consumer = bench.bus.consumer(settings).await.unwrap();
        consumer.subscribe(&["t"]).await.unwrap();
        waiting.push(tokio::spawn(async move {
            loop {
                consumer.poll(Duration::from_secs(3600)).await.unwrap();
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ticks = cpu_ticks() - before;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    println!(
        "idle: 12 waiting members in 4 groups, 5 s: {ticks} ticks of 10 ms CPU, {} KiB resident",
        resident_kib()
    );
}

/// User and system time of this process in clock ticks (fields 14 and 15 of `/proc/self/stat`).
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        idle().await;
        let never: &[(&str, &str)] = &[("farol.sync", "never")];
        let lz4: &[(&str, &str)] = &[("compression.type", "lz4")];
        throughput("1 producer → 1 consumer, batches of 1000", &[], 1, 1, 1000).await;
        throughput("8 producers → 1 consumer, batches of 1000", &[], 8, 1, 1000).await;
        throughput("8 producers → 1 consumer, batches of 1000, lz4", lz4, 8, 1, 1000).await;
        throughput("8 producers → no consumer, batches of 1000", &[], 8, 0, 1000).await;
        throughput("8 producers → no consumer, no sync", never, 8, 0, 1000).await;
        throughput("1 producer → 8 consumers, batches of 1000", &[], 1, 8, 1000).await;
        throughput("64 producers → 1 consumer, single records", &[], 64, 1, 1).await;
        latency("1 → 1, one record a 2 ms", &[], 1, Duration::from_millis(2)).await;
        latency("1 → 1, one record a 2 ms, no sync", never, 1, Duration::from_millis(2)).await;
        latency("1 → 8, one record a 2 ms", &[], 8, Duration::from_millis(2)).await;
        transactions("transactions, batches of 100", &[], 100).await;
    });
}
