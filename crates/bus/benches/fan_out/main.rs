//! A hundred handlers in one process on one topic, as consumers and on the event bus: deliveries a second, how long after its
//! send a record is handled, and the memory that it takes.
//!
//! `cargo bench -p farol-bus --bench fan_out [-- [SECONDS] [consumers|events] [saturation|RECORDS_PER_MS]]`. A batch of records is
//! due every millisecond, to the partitions in turn; every handler gets and looks at every record. First at a pace that
//! makes 1.1 million deliveries a second, then faster, and then at saturation: the next batch is sent as soon as the handlers
//! are no more than [`WINDOW`] records behind. Both kinds take turns, so that what else the machine does meets both. The topic doesn't
//! wait for the disk (`farol.sync=never`): with it, the disk's fdatasync is what one would measure.
//!
//! A delay is from when the record was due to when the handler has it: a sender that wakes late, or that has waited for the one
//! before, shows in it. What of that the machine adds is told too: a thread that only sleeps by the same clock, and a word that goes
//! through as many threads as a record, both alone before the first run; and a sleeping thread beside each run.
//!
//! `FAROL_BENCH_RECORDS` ends a run after so many records, for counting instructions.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod floor;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::event_bus::{EventBus, EventBusSettings, Received, Subscription, SubscriptionSettings};
use farol_bus::{
    Bus, ConsumedRecord, Consumer, ConsumerSettings, Partitioning, Polled, ProducerRecord, StartAt,
    TopicPartition, TopicSpec,
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use floor::{Beat, HAND_OVERS, Sleeper, delays, in_words};

const HANDLERS: usize = 100;
const PARTITIONS: i32 = 3;
const VALUE_BYTES: usize = 150;
const PACE: Duration = Duration::from_millis(1);
/// How many records may be on their way at saturation.
const WINDOW: u64 = 3000;
/// How many records are sent at once at saturation.
const SATURATION_BATCH: usize = 200;

/// Who gets the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each handler is a consumer that reads the log for itself.
    Consumers,
    /// Each handler is a subscription of one event bus.
    Events,
}

/// How the records are offered.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// So many every millisecond.
    PerMs(usize),
    /// As many as the handlers take.
    Saturation,
}

/// What one handler has measured.
struct Gauge {
    epoch: Instant,
    delays: Histogram<u64>,
}

/// The handlers of one run.
struct Crowd {
    gauges: Vec<Arc<Mutex<Gauge>>>,
    /// How many records each has handled.
    handled: Vec<Arc<AtomicU64>>,
    consumers: Vec<JoinHandle<()>>,
    events: Option<(EventBus, Vec<Subscription>)>,
}

impl Gauge {
    fn look_at(&mut self, record: &ConsumedRecord, now: u64) {
        let due = u64::from_be_bytes(*record.value.as_ref().unwrap().first_chunk().unwrap());
        self.delays.saturating_record(now.saturating_sub(due));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap()
    }
}

async fn consume(mut consumer: Box<dyn Consumer>, gauge: Arc<Mutex<Gauge>>, handled: Arc<AtomicU64>) {
    loop {
        let polled = consumer.poll(Duration::from_millis(100)).await;
        let Ok(Polled::Records(batches)) = polled else { return };
        let mut gauge = gauge.lock();
        for record in batches.iter().flat_map(|batch| &batch.records) {
            let now = gauge.now();
            gauge.look_at(record, now);
            handled.fetch_add(1, Ordering::Release);
        }
    }
}

impl Crowd {
    async fn gather(kind: Kind, bus: &Arc<EmbeddedBus>, epoch: Instant) -> Self {
        let gauge = || Arc::new(Mutex::new(Gauge { epoch, delays: delays() }));
        let gauges: Vec<_> = (0..HANDLERS).map(|_| gauge()).collect();
        let handled: Vec<_> = (0..HANDLERS).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut crowd = Self { gauges, handled, consumers: Vec::new(), events: None };
        let each = crowd.gauges.iter().cloned().zip(crowd.handled.iter().cloned());
        match kind {
            Kind::Consumers => {
                for (gauge, handled) in each {
                    let mut consumer = bus.consumer(ConsumerSettings::standalone("handler")).await.unwrap();
                    let all = (0..PARTITIONS).map(|p| (TopicPartition::new("t", p), StartAt::Earliest));
                    consumer.assign(all.collect()).await.unwrap();
                    crowd.consumers.push(tokio::spawn(consume(consumer, gauge, handled)));
                }
            }
            Kind::Events => {
                let events = EventBus::start(bus.clone(), EventBusSettings::new("t")).await.unwrap();
                let mut subscriptions = Vec::new();
                for (gauge, handled) in each {
                    let handler = move |received: Received| {
                        let mut gauge = gauge.lock();
                        let now = gauge.now();
                        gauge.look_at(&received, now);
                        handled.fetch_add(1, Ordering::Release);
                        std::future::ready(())
                    };
                    let settings = SubscriptionSettings::everything();
                    subscriptions.push(events.subscribe(settings, handler).await.unwrap());
                }
                crowd.events = Some((events, subscriptions));
            }
        }
        crowd
    }

    /// How many records the slowest handler has handled.
    fn slowest(&self) -> u64 {
        self.handled.iter().map(|handled| handled.load(Ordering::Acquire)).min().unwrap()
    }

    /// How often a subscription had to read the log by itself.
    fn fell_behind(&self) -> u64 {
        let numbers = self.events.iter().flat_map(|(_, subscriptions)| subscriptions);
        numbers.map(|subscription| subscription.snapshot().fell_behind).sum()
    }
}

fn records(count: usize, due: Duration, partition: i32) -> Vec<ProducerRecord> {
    let mut value = vec![b'v'; VALUE_BYTES];
    *value.first_chunk_mut().unwrap() = u64::try_from(due.as_nanos()).unwrap().to_be_bytes();
    let record = ProducerRecord {
        partitioning: Partitioning::Explicit(partition),
        key: Some(Bytes::from_static(b"sensor-00001")),
        value: Some(Bytes::from(value)),
        timestamp_ms: 1_700_000_000_000,
        headers: Vec::new(),
    };
    vec![record; count]
}

/// Resident memory in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    kib.trim().parse::<f64>().unwrap() / 1024.0
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn run(runtime: &Runtime, kind: Kind, load: Load, length: Duration, most: u64) {
    let parent = std::env::var_os("FAROL_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let epoch = Instant::now();
    let (bus, producer, crowd) = runtime.block_on(async {
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
        let config = [("farol.sync".to_owned(), "never".to_owned())].into();
        bus.create_topic(TopicSpec { name: "t".into(), partitions: PARTITIONS, config }).await.unwrap();
        let crowd = Crowd::gather(kind, &bus, epoch).await;
        let producer = bus.producer("p").await.unwrap();
        (bus, producer, crowd)
    });
    let (memory_before, processor_before) = (resident_mib(), processor_time());
    let (started, mut sent, mut late, mut memory) = (Instant::now(), 0_u64, 0_u32, 0_f64);
    let (mut beat, sleeper) = (Beat::starting_at(started), Sleeper::start(started));
    let mut partitions = (0..PARTITIONS).cycle();
    while started.elapsed() < length && sent < most {
        let (due, batch) = match load {
            Load::PerMs(batch) => {
                let due = beat.wait();
                late += u32::from(due.elapsed() > PACE);
                (due, batch)
            }
            Load::Saturation => {
                while sent - crowd.slowest() > WINDOW {
                    std::thread::sleep(PACE);
                }
                (Instant::now(), SATURATION_BATCH)
            }
        };
        let batch_records = records(batch, due - epoch, partitions.next().unwrap());
        runtime.block_on(producer.send("t", batch_records)).unwrap();
        sent += batch as u64;
        if sent % 1000 < batch as u64 {
            memory = memory.max(resident_mib());
        }
    }
    while crowd.slowest() < sent {
        std::thread::sleep(PACE);
    }
    let (took, processor) = (started.elapsed(), processor_time() - processor_before);
    let asleep = sleeper.finish();
    let mut all = delays();
    for gauge in &crowd.gauges {
        all.add(&gauge.lock().delays).unwrap();
    }
    assert_eq!(all.len(), sent * HANDLERS as u64, "every handler gets every record once");
    let name = match load {
        Load::PerMs(batch) => format!("{batch} a ms"),
        Load::Saturation => "saturation".to_owned(),
    };
    println!(
        "{:<9} {name:>10}: {:>7.0} sent/s {:>9.0} deliveries/s  {}  {:>4.0} ns of processor each  +{:.0} MiB  {late} sends late, {} fell behind",
        format!("{kind:?}").to_lowercase(),
        sent as f64 / took.as_secs_f64(),
        all.len() as f64 / took.as_secs_f64(),
        in_words(&all),
        processor.as_nanos() as f64 / all.len() as f64,
        (memory - memory_before).max(0.0),
        crowd.fell_behind(),
    );
    println!("{:>20}  a sleeper beside it woke late by            {}", "", in_words(&asleep));
    runtime.block_on(async {
        if let Some((events, subscriptions)) = crowd.events {
            drop(subscriptions);
            events.close().await;
        }
        for consumer in crowd.consumers {
            consumer.abort();
        }
        bus.close().await.unwrap();
    });
}

/// What the machine adds while nothing else of this program runs.
fn machine(length: Duration) {
    let sleeper = Sleeper::start(Instant::now());
    std::thread::sleep(length);
    println!("machine alone: a sleeper wakes late by              {}", in_words(&sleeper.finish()));
    let relayed = floor::relay(length);
    println!("machine alone: late, and {HAND_OVERS} threads further on       {}", in_words(&relayed));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let mut numbers = words.iter().filter_map(|word| word.parse::<usize>().ok());
    let seconds = numbers.next().unwrap_or(4) as u64;
    let only_rate = numbers.next();
    let has = |word: &str| words.iter().any(|given| given == word);
    let most =
        std::env::var("FAROL_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let loads = match (has("saturation"), only_rate) {
        (true, _) => vec![Load::Saturation],
        (false, Some(rate)) => vec![Load::PerMs(rate)],
        (false, None) => vec![Load::PerMs(11), Load::PerMs(25), Load::PerMs(50), Load::Saturation],
    };
    let kinds: Vec<Kind> = [("consumers", Kind::Consumers), ("events", Kind::Events)]
        .into_iter()
        .filter(|(name, _)| has(name) || !(has("consumers") || has("events")))
        .map(|(_, kind)| kind)
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{HANDLERS} handlers, {PARTITIONS} partitions, {VALUE_BYTES}-byte values, {seconds} s each");
    let length = Duration::from_secs(seconds);
    machine(length);
    for load in loads {
        for kind in &kinds {
            run(&runtime, *kind, load, length, most);
        }
    }
}
