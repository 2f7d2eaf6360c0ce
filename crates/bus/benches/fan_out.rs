//! A hundred handlers in one process on one topic: deliveries a second, and how long after its send a record is handled.
//!
//! `cargo bench -p farol-bus --bench fan_out [-- SECONDS]`. A batch of records is sent every millisecond, to the
//! partitions in turn; every handler is a consumer of everything and looks at every record. First at a pace that makes a
//! million deliveries a second, then as fast as the handlers can read. The topic doesn't wait for the disk
//! (`farol.sync=never`): with it, the disk's fdatasync is what one would measure.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{
    Bus, Consumer, ConsumerSettings, Partitioning, Polled, ProducerRecord, StartAt, TopicPartition, TopicSpec,
};
use hdrhistogram::Histogram;
use tokio::time::MissedTickBehavior;

const HANDLERS: u64 = 100;
const PARTITIONS: i32 = 3;
const VALUE_BYTES: usize = 150;
const PACE: Duration = Duration::from_millis(1);

/// Counts and times what one handler gets until it has got `total`, which the sender says at its end.
async fn handle(mut consumer: Box<dyn Consumer>, epoch: Instant, total: Arc<AtomicU64>) -> Histogram<u64> {
    let mut delays = Histogram::new(3).unwrap();
    while delays.len() < total.load(Ordering::Acquire) {
        let Polled::Records(batches) = consumer.poll(Duration::from_millis(100)).await.unwrap() else {
            continue;
        };
        let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap();
        for record in batches.iter().flat_map(|batch| &batch.records) {
            let sent = u64::from_be_bytes(*record.value.as_ref().unwrap().first_chunk().unwrap());
            delays.record(now.saturating_sub(sent)).unwrap();
        }
    }
    delays
}

fn records(count: usize, sent: Duration, partition: i32) -> Vec<ProducerRecord> {
    let mut value = vec![b'v'; VALUE_BYTES];
    *value.first_chunk_mut().unwrap() = u64::try_from(sent.as_nanos()).unwrap().to_be_bytes();
    let record = ProducerRecord {
        partitioning: Partitioning::Explicit(partition),
        key: Some(Bytes::from_static(b"sensor-00001")),
        value: Some(Bytes::from(value)),
        timestamp_ms: 1_700_000_000_000,
        headers: Vec::new(),
    };
    vec![record; count]
}

/// Sends `batch` records a millisecond for `length`.
async fn run(batch: usize, length: Duration) {
    let parent = std::env::var_os("FAROL_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    let config = [("farol.sync".to_owned(), "never".to_owned())].into();
    bus.create_topic(TopicSpec { name: "t".into(), partitions: PARTITIONS, config }).await.unwrap();
    let total = Arc::new(AtomicU64::new(u64::MAX));
    let epoch = Instant::now();
    let mut handlers = Vec::new();
    for n in 0..HANDLERS {
        let mut consumer = bus.consumer(ConsumerSettings::standalone(format!("handler-{n}"))).await.unwrap();
        let all = (0..PARTITIONS).map(|p| (TopicPartition::new("t", p), StartAt::Earliest)).collect();
        consumer.assign(all).await.unwrap();
        handlers.push(tokio::spawn(handle(consumer, epoch, Arc::clone(&total))));
    }
    let producer = bus.producer("p").await.unwrap();
    let (started, mut sent, mut late) = (Instant::now(), 0, 0u32);
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut partitions = (0..PARTITIONS).cycle();
    while started.elapsed() < length {
        let due = ticks.tick().await;
        late += u32::from(due.elapsed() > PACE);
        producer.send("t", records(batch, epoch.elapsed(), partitions.next().unwrap())).await.unwrap();
        sent += batch as u64;
    }
    total.store(sent, Ordering::Release);
    let mut delays = Histogram::<u64>::new(3).unwrap();
    for handler in handlers {
        delays.add(handler.await.unwrap()).unwrap();
    }
    assert_eq!(delays.len(), sent * HANDLERS, "every handler gets every record");
    let at = |quantile| delays.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{batch:>4} records a ms: {:>9.0} sent/s {:>10.0} deliveries/s  p50 {:>6.0} µs  p99 {:>6.0} µs  p99.9 {:>6.0} µs  {late} sends late",
        sent as f64 / started.elapsed().as_secs_f64(),
        delays.len() as f64 / started.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
    );
    bus.close().await.unwrap();
}

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{HANDLERS} handlers, {PARTITIONS} partitions, {VALUE_BYTES}-byte values");
    for batch in [11, 50, 200] {
        runtime.block_on(run(batch, Duration::from_secs(seconds)));
    }
}
