//! Consume, transform, produce, with workers that come, go and are cut off at random: the output holds every input
//! exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{
    Bus, BusError, ConsumedBatch, Consumer, ConsumerSettings, OffsetSpec, Partitioning, Polled,
    ProducerRecord, StartAt, TopicPartition, TopicSpec, TransactionalProducer,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

const PARTITIONS: i32 = 6;
const KEYS: u32 = 40;
const GROUP: &str = "transformers";
const LIMIT: Duration = Duration::from_secs(60);

/// What the workers met, to prove that the test tested something.
#[derive(Default)]
struct Met {
    commits: AtomicU64,
    fenced: AtomicU64,
    aborted: AtomicU64,
    revoked: AtomicU64,
}

struct Worker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

async fn topic(bus: &Arc<dyn Bus>, name: &str) {
    let config = BTreeMap::from([("farol.sync".to_owned(), "5ms".to_owned())]);
    bus.create_topic(TopicSpec { name: name.to_owned(), partitions: PARTITIONS, config }).await.unwrap();
}

fn start_worker(bus: &Arc<dyn Bus>, name: &str, met: &Arc<Met>, seed: u64) -> Worker {
    let stop = Arc::new(AtomicBool::new(false));
    let (bus, name, met, stopping) = (Arc::clone(bus), name.to_owned(), Arc::clone(met), Arc::clone(&stop));
    let task = tokio::spawn(async move {
        let mut settings = ConsumerSettings::member(name.as_str(), GROUP);
        settings.max_bytes = 4 * 1024;
        let mut consumer = bus.consumer(settings).await.unwrap();
        consumer.subscribe(&["input"]).await.unwrap();
        // The same id again after a restart: the newer fences the older, should it still be at it.
        let mut producer = bus.transactional_producer(&name).await.unwrap();
        transform(&mut consumer, &mut producer, &met, &stopping, StdRng::seed_from_u64(seed)).await;
        consumer.close().await.unwrap();
    });
    Worker { stop, task }
}

async fn transform(
    consumer: &mut Box<dyn Consumer>,
    producer: &mut Box<dyn TransactionalProducer>,
    met: &Met,
    stop: &AtomicBool,
    mut rng: StdRng,
) {
    while !stop.load(Ordering::Relaxed) {
        let batches = match consumer.poll(Duration::from_millis(50)).await.unwrap() {
            Polled::Records(batches) if batches.is_empty() => continue,
            Polled::Records(batches) => batches,
            Polled::Revoked(_) => {
                met.revoked.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Polled::Assigned(_) => continue,
        };
        match process(consumer, producer, &batches, &mut rng).await {
            Ok(true) => {
                met.commits.fetch_add(1, Ordering::Relaxed);
            }
            // Given up: the records are polled again.
            Ok(false) => {
                met.aborted.fetch_add(1, Ordering::Relaxed);
                for batch in &batches {
                    consumer.seek(&batch.partition, batch.records[0].offset).unwrap();
                }
            }
            Err(BusError::Fenced(_)) => {
                met.fenced.fetch_add(1, Ordering::Relaxed);
                // A newer producer has the id: this worker is a ghost. Otherwise the next poll tells what was lost.
                if matches!(producer.begin(), Err(BusError::Fenced(_))) {
                    return;
                }
                producer.abort().await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// One transaction: a record of output for each of input, and the offsets. Whether it was committed.
async fn process(
    consumer: &mut Box<dyn Consumer>,
    producer: &mut Box<dyn TransactionalProducer>,
    batches: &[ConsumedBatch],
    rng: &mut StdRng,
) -> Result<bool, BusError> {
    producer.begin()?;
    for batch in batches {
        let outputs = batch
            .records
            .iter()
            .map(|record| ProducerRecord {
                partitioning: Partitioning::Explicit(batch.partition.partition),
                key: record.key.clone(),
                value: record.value.clone(),
                timestamp_ms: record.timestamp_ms,
                headers: Vec::new(),
            })
            .collect();
        producer.send("output", outputs).await?;
        // Cut off here, or moved away from.
        tokio::task::yield_now().await;
    }
    if rng.random_range(0..40) == 0 {
        producer.abort().await?;
        return Ok(false);
    }
    let offsets = batches.iter().map(|batch| (batch.partition.clone(), batch.next_offset)).collect();
    producer.send_offsets(offsets, &consumer.group_metadata()).await?;
    producer.commit().await?;
    Ok(true)
}

/// Sends numbered records, by key, until told to stop; gives how many for each key.
async fn feed(bus: Arc<dyn Bus>, stop: Arc<AtomicBool>) -> BTreeMap<u32, u32> {
    let producer = bus.producer("feeder").await.unwrap();
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let mut turn = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let records = (0..30)
            .map(|_| {
                turn += 1;
                let key = turn % KEYS;
                let number = next.entry(key).or_default();
                *number += 1;
                ProducerRecord {
                    partitioning: Partitioning::ByKey,
                    key: Some(Bytes::from(format!("key-{key}"))),
                    value: Some(Bytes::from(format!("{key} {number}"))),
                    timestamp_ms: 0,
                    headers: Vec::new(),
                }
            })
            .collect();
        producer.send("input", records).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    next
}

/// Everything in the output: for each key, the numbers in the order of their offsets.
async fn output(bus: &Arc<dyn Bus>) -> BTreeMap<u32, Vec<u32>> {
    let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new("output", p)).collect();
    let ends = bus.offsets(&partitions, OffsetSpec::Latest).await.unwrap();
    let mut consumer = bus.consumer(ConsumerSettings::standalone("checker")).await.unwrap();
    consumer.assign(partitions.into_iter().map(|p| (p, StartAt::Earliest)).collect()).await.unwrap();
    let mut missing: i64 = ends.values().sum();
    let mut read: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    while missing > 0 {
        let Polled::Records(batches) = consumer.poll(LIMIT).await.unwrap() else { panic!() };
        for record in batches.iter().flat_map(|batch| &batch.records) {
            missing -= 1;
            let text = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
            let (key, number) = text.split_once(' ').unwrap();
            read.entry(key.parse().unwrap()).or_default().push(number.parse().unwrap());
        }
    }
    read
}

async fn all_committed(bus: &Arc<dyn Bus>) {
    let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new("input", p)).collect();
    let ends = bus.offsets(&partitions, OffsetSpec::Latest).await.unwrap();
    let started = Instant::now();
    loop {
        let committed = bus.committed(GROUP).await.unwrap();
        if ends.iter().all(|(p, end)| *end == 0 || committed.get(p) == Some(end)) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "committed {committed:?}, ends {ends:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_come_and_go_transform_every_record_exactly_once_and_in_order() {
    let seed: u64 =
        std::env::var("FAROL_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("FAROL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    let bus: Arc<dyn Bus> = engine.clone();
    topic(&bus, "input").await;
    topic(&bus, "output").await;
    let feeding = Arc::new(AtomicBool::new(false));
    let feeder = tokio::spawn(feed(Arc::clone(&bus), Arc::clone(&feeding)));

    let met = Arc::new(Met::default());
    let names = ["one", "two", "three"];
    let mut running: BTreeMap<&str, Worker> = BTreeMap::new();
    let mut changes = 0;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let name = names.choose(&mut rng).unwrap();
        changes += 1;
        match running.remove(name) {
            None => {
                running.insert(name, start_worker(&bus, name, &met, rng.random()));
            }
            Some(worker) if rng.random_bool(0.5) => {
                worker.stop.store(true, Ordering::Relaxed);
                worker.task.await.unwrap();
            }
            // Cut off wherever it is, and sometimes replaced at once, while its last commit may be on its way.
            Some(worker) => {
                worker.task.abort();
                if rng.random_bool(0.5) {
                    running.insert(name, start_worker(&bus, name, &met, rng.random()));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
    }
    feeding.store(true, Ordering::Relaxed);
    let fed = feeder.await.unwrap();
    let last = start_worker(&bus, "last", &met, 0);
    all_committed(&bus).await;
    for worker in running.into_values().chain([last]) {
        worker.stop.store(true, Ordering::Relaxed);
        worker.task.await.unwrap();
    }

    let read = output(&bus).await;
    let sent: u32 = fed.values().sum();
    println!(
        "{sent} records, {changes} changes of workers, {} commits, {} fenced, {} aborted, {} revocations",
        met.commits.load(Ordering::Relaxed),
        met.fenced.load(Ordering::Relaxed),
        met.aborted.load(Ordering::Relaxed),
        met.revoked.load(Ordering::Relaxed),
    );
    for (key, count) in &fed {
        assert_eq!(read.get(key), Some(&(1..=*count).collect::<Vec<_>>()), "key {key}");
    }
    assert_eq!(read.len(), fed.len());
    assert!(
        sent > 1000 && changes > 20 && met.revoked.load(Ordering::Relaxed) > 0,
        "the test saw too little"
    );

    // And after a restart.
    drop(bus);
    engine.close().await.unwrap();
    drop(engine);
    let (engine, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    let bus: Arc<dyn Bus> = engine;
    assert_eq!(output(&bus).await, read);
    all_committed(&bus).await;
}
