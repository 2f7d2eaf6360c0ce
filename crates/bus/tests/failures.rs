//! What the embedded engine does when the disk fails, is damaged, is full, or the power goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_broker::BrokerOptions;
use farol_bus::embedded::{EmbeddedBus, EmbeddedError, EmbeddedOptions};
use farol_bus::{
    Bus, BusError, Consumer, ConsumerSettings, OffsetReset, Partitioning, Polled, ProducerRecord, StartAt,
    TopicPartition, TopicSpec,
};
use farol_log::fs::fault::{FaultFileSystem, Operation};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LIMIT: Duration = Duration::from_secs(30);

fn record(partition: i32, value: impl Into<Bytes>) -> ProducerRecord {
    ProducerRecord {
        partitioning: Partitioning::Explicit(partition),
        key: Some(Bytes::from_static(b"k")),
        value: Some(value.into()),
        timestamp_ms: 1,
        headers: Vec::new(),
    }
}

async fn create(bus: &Arc<EmbeddedBus>, name: &str, partitions: i32, config: &[(&str, &str)]) {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    bus.create_topic(TopicSpec { name: name.to_owned(), partitions, config }).await.unwrap();
}

async fn standalone(bus: &Arc<EmbeddedBus>, topic: &str, partitions: i32) -> Box<dyn Consumer> {
    let mut consumer = bus.consumer(ConsumerSettings::standalone("reader")).await.unwrap();
    let all = (0..partitions).map(|p| (TopicPartition::new(topic, p), StartAt::Earliest)).collect();
    consumer.assign(all).await.unwrap();
    consumer
}

fn records(polled: Polled) -> Vec<(i32, i64, Bytes)> {
    let Polled::Records(batches) = polled else { panic!("{polled:?}") };
    let flat = batches.into_iter().flat_map(|batch| {
        let partition = batch.partition.partition;
        batch.records.into_iter().map(move |record| (partition, record.offset, record.value.unwrap()))
    });
    flat.collect()
}

/// Everything there is at present.
async fn drain(consumer: &mut Box<dyn Consumer>) -> Vec<(i32, i64, Bytes)> {
    let mut all = Vec::new();
    loop {
        let more = records(consumer.poll(Duration::ZERO).await.unwrap());
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

fn open_on(file_system: &FaultFileSystem) -> Result<Arc<EmbeddedBus>, EmbeddedError> {
    let mut options = BrokerOptions::new("/data");
    options.log.file_system = Arc::new(file_system.clone());
    // Small files: this file system copies them whole, and more switches of the journal are met.
    (options.log.journal_first_bytes, options.log.journal_bytes) = (64 * 1024, 256 * 1024);
    Ok(EmbeddedBus::open_over(options)?.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_sends_say_what_to_do_and_reads_go_on() {
    let file_system = FaultFileSystem::new(1);
    let bus = open_on(&file_system).unwrap();
    create(&bus, "t", 2, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    for n in 0..10 {
        producer.send("t", vec![record(n % 2, format!("{n}"))]).await.unwrap();
    }
    file_system.fail_next(Operation::Sync, "journal");
    let error = producer.send("t", vec![record(0, "lost")]).await.unwrap_err();
    assert!(matches!(error, BusError::Poisoned { .. }), "{error}");
    let error = producer.send("t", vec![record(1, "refused")]).await.unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
    let mut transaction = bus.transactional_producer("tx").await.unwrap();
    transaction.begin().unwrap();
    transaction.send("t", vec![record(0, "refused")]).await.unwrap();
    assert!(matches!(transaction.commit().await, Err(BusError::Poisoned { .. })));
    assert_eq!(drain(&mut standalone(&bus, "t", 2).await).await.len(), 10);
    assert!(bus.stats().poisoned().is_some());
    drop((producer, transaction));
    let _ = bus.close().await;
    drop(bus);
    file_system.restart();
    let bus = open_on(&file_system).unwrap();
    let after = drain(&mut standalone(&bus, "t", 2).await).await;
    assert!(
        (10..=11).contains(&after.len()),
        "every acknowledged record, and perhaps the one in doubt: {after:?}"
    );
    bus.producer("p").await.unwrap().send("t", vec![record(0, "again")]).await.unwrap();
    assert_eq!(bus.stats().poisoned(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_is_named_and_holds_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    create(&bus, "t", 2, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    for n in 0..5 {
        producer.send("t", vec![record(0, format!("a-recognisable-value-{n}"))]).await.unwrap();
    }
    producer.send("t", vec![record(1, "well")]).await.unwrap();
    damage(dir.path(), b"a-recognisable-value-3");
    let mut consumer = standalone(&bus, "t", 2).await;
    let (mut seen, mut failed) = (Vec::new(), 0);
    for _ in 0..12 {
        match consumer.poll(Duration::ZERO).await {
            Ok(polled) => seen.extend(records(polled)),
            Err(BusError::Corrupt { position, .. }) => {
                assert_eq!(position, "t/0@3");
                failed += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed > 1, "it fails until somebody acts");
    let of =
        |partition| seen.iter().filter(|(p, ..)| *p == partition).map(|(_, o, _)| *o).collect::<Vec<_>>();
    assert_eq!(of(0), [0, 1, 2], "what stands before it is read");
    assert_eq!(of(1), [0], "the other partition is served");
    producer.send("t", vec![record(1, "later")]).await.unwrap();
    consumer.seek(&TopicPartition::new("t", 0), 4).unwrap();
    assert_eq!(drain(&mut consumer).await.len(), 2);
}

/// Changes one byte of a value wherever it stands in the segments.
fn damage(dir: &Path, value: &[u8]) {
    let mut found = 0;
    for path in files(dir) {
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        if let Some(at) = content.windows(value.len()).position(|window| window == value) {
            content[at] ^= 1;
            std::os::unix::fs::FileExt::write_at(
                &std::fs::OpenOptions::new().write(true).open(&path).unwrap(),
                &content[at..=at],
                u64::try_from(at).unwrap(),
            )
            .unwrap();
            found += 1;
        }
    }
    assert!(found > 0, "the value stands nowhere");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_retention_took_is_reset_as_told_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.maintenance_interval = Duration::from_millis(20);
    let (bus, _) = EmbeddedBus::open(options).unwrap();
    let config = [("retention.bytes", "65536"), ("segment.bytes", "16384"), ("farol.sync", "never")];
    create(&bus, "t", 1, &config).await;
    let partition = TopicPartition::new("t", 0);
    let mut consumers = Vec::new();
    for (name, reset) in [("early", OffsetReset::Earliest), ("late", OffsetReset::Latest)] {
        let mut settings = ConsumerSettings::standalone(name);
        settings.offset_reset = reset;
        let mut consumer = bus.consumer(settings).await.unwrap();
        consumer.assign(vec![(partition.clone(), StartAt::Earliest)]).await.unwrap();
        consumers.push(consumer);
    }
    let producer = bus.producer("p").await.unwrap();
    let started = Instant::now();
    while bus.stats().topics.iter().find(|t| &*t.name == "t").unwrap().partitions[0].start_offset == 0 {
        assert!(started.elapsed() < LIMIT, "retention never took anything");
        producer.send("t", vec![record(0, vec![b'x'; 1000])]).await.unwrap();
    }
    let stats = bus.stats().topics.iter().find(|t| &*t.name == "t").unwrap().partitions[0].clone();
    let early = records(consumers[0].poll(LIMIT).await.unwrap());
    assert!(early[0].1 >= stats.start_offset, "at the first that is still there");
    assert!(records(consumers[1].poll(Duration::ZERO).await.unwrap()).is_empty(), "at the end");
    producer.send("t", vec![record(0, "new")]).await.unwrap();
    assert_eq!(records(consumers[1].poll(LIMIT).await.unwrap())[0].2, "new");
    assert_eq!(bus.stats().offset_resets, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_lets_sends_end_refuses_new_ones_and_wakes_polls() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, summary) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    assert_eq!(summary.records_replayed, 0);
    create(&bus, "t", 1, &[]).await;
    create(&bus, "quiet", 1, &[]).await;
    let mut consumer = standalone(&bus, "quiet", 1).await;
    let waiting = tokio::spawn(async move { consumer.poll(Duration::from_secs(600)).await });
    let producer = bus.producer("p").await.unwrap();
    let senders: Vec<_> = (0..32)
        .map(|n| {
            let producer = Arc::clone(&producer);
            tokio::spawn(async move {
                let mut acknowledged = 0u32;
                while producer.send("t", vec![record(0, format!("{n}"))]).await.is_ok() {
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    while drain(&mut standalone(&bus, "t", 1).await).await.len() < 100 {}
    bus.close().await.unwrap();
    let mut acknowledged = 0;
    for sender in senders {
        acknowledged += sender.await.unwrap();
    }
    let woken = tokio::time::timeout(LIMIT, waiting).await.expect("the poll is woken").unwrap();
    assert!(matches!(woken, Err(BusError::Closed)));
    assert!(matches!(producer.send("t", vec![record(0, "late")]).await, Err(BusError::Closed)));
    assert!(matches!(bus.topics().await, Err(BusError::Closed)));
    drop((producer, bus));
    let (bus, summary) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    assert!(summary.clean_shutdown);
    let stored = drain(&mut standalone(&bus, "t", 1).await).await.len();
    assert_eq!(stored, usize::try_from(acknowledged).unwrap(), "acknowledged = stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    let Err(error) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())) else { panic!("opened twice") };
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_wait_for_the_bound_on_bytes_and_all_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.max_in_flight_bytes = 20_000;
    let (bus, _) = EmbeddedBus::open(options).unwrap();
    create(&bus, "t", 1, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    let senders: Vec<_> = (0..40)
        .map(|n: usize| {
            let producer = Arc::clone(&producer);
            // Some are larger than the bound by themselves.
            let value = vec![b'x'; 1000 * (n + 1)];
            tokio::spawn(async move { producer.send("t", vec![record(0, value)]).await.unwrap() })
        })
        .collect();
    let mut offsets = BTreeSet::new();
    for sender in senders {
        assert!(bus.stats().in_flight_bytes <= 20_000);
        offsets.insert(sender.await.unwrap()[0].offset);
    }
    assert_eq!(offsets, (0..40).collect());
    // The last acknowledgement comes before its bytes are given back.
    let started = Instant::now();
    while bus.stats().in_flight_bytes > 0 {
        assert!(started.elapsed() < LIMIT);
        tokio::task::yield_now().await;
    }
}

/// Sends numbers and copies them by transactions until the power goes. Gives what was acknowledged.
async fn run_until_the_power_goes(bus: &Arc<EmbeddedBus>, from: u32, most: u32) -> Vec<u32> {
    let producer = bus.producer("p").await.unwrap();
    let feeding = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in from..from + most {
            let partition = i32::try_from(n % 2).unwrap();
            if producer.send("input", vec![record(partition, n.to_string())]).await.is_err() {
                break;
            }
            acknowledged.push(n);
        }
        acknowledged
    });
    let mut consumer = bus.consumer(ConsumerSettings::member("copier", "copiers")).await.unwrap();
    consumer.subscribe(&["input"]).await.unwrap();
    let mut transaction = bus.transactional_producer("copier").await.unwrap();
    loop {
        let done = feeding.is_finished();
        let Ok(polled) = consumer.poll(Duration::from_millis(20)).await else { break };
        let Polled::Records(batches) = polled else { continue };
        if batches.is_empty() && done {
            break;
        }
        transaction.begin().unwrap();
        let mut offsets = BTreeMap::new();
        for batch in batches {
            let copies: Vec<_> = batch
                .records
                .iter()
                .map(|r| record(batch.partition.partition, r.value.clone().unwrap()))
                .collect();
            transaction.send("output", copies).await.unwrap();
            offsets.insert(batch.partition, batch.next_offset);
        }
        transaction.send_offsets(offsets, &consumer.group_metadata()).await.unwrap();
        if transaction.commit().await.is_err() {
            break;
        }
    }
    feeding.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_power_cuts_the_copy_holds_every_acknowledged_record_exactly_once() {
    let seed: u64 =
        std::env::var("FAROL_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("FAROL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let file_system = FaultFileSystem::new(seed);
    let bus = open_on(&file_system).unwrap();
    create(&bus, "input", 2, &[]).await;
    create(&bus, "output", 2, &[]).await;
    bus.close().await.unwrap();
    drop(bus);
    let mut acknowledged = Vec::new();
    let (mut next, mut cut_while_opening) = (0, 0);
    for _ in 0..25 {
        file_system.crash_after(rng.random_range(0..400));
        match open_on(&file_system) {
            Ok(bus) => {
                acknowledged.extend(run_until_the_power_goes(&bus, next, 100).await);
                let _ = bus.close().await;
            }
            Err(_) => cut_while_opening += 1,
        }
        next += 100;
        file_system.restart();
    }
    file_system.crash_after(u64::MAX);
    let bus = open_on(&file_system).unwrap();
    acknowledged.extend(run_until_the_power_goes(&bus, next, 50).await);

    let numbers = |read: Vec<(i32, i64, Bytes)>| -> Vec<u32> {
        read.iter().map(|(_, _, value)| std::str::from_utf8(value).unwrap().parse().unwrap()).collect()
    };
    let mut input = numbers(drain(&mut standalone(&bus, "input", 2).await).await);
    let mut output = numbers(drain(&mut standalone(&bus, "output", 2).await).await);
    input.sort_unstable();
    output.sort_unstable();
    let stored: BTreeSet<u32> = input.iter().copied().collect();
    assert_eq!(stored.len(), input.len(), "no record is stored twice");
    for number in &acknowledged {
        assert!(stored.contains(number), "{number} was acknowledged and is gone");
    }
    assert_eq!(output, input, "the copy holds the same records, each once");
    let crashes = file_system.counts().crashes;
    println!("{} acknowledged, {} stored, {crashes} power cuts", acknowledged.len(), input.len());
    assert!(crashes >= 25 && acknowledged.len() > 200 && cut_while_opening < 25, "the test saw too little");
}
