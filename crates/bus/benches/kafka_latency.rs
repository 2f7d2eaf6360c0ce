//! How long after it was due a message is acknowledged, at a fixed load: the latency that a Kafka client's user sees.
//!
//! `cargo bench -p farol-bus --bench kafka_latency [-- BROKERS TOPIC RATE LINGER_MS SECONDS]`. Without arguments it measures
//! Farol in this process, over its own port, at a few loads; `scripts/bench-kafka` runs it against Farol and Apache Kafka. The
//! producer is librdkafka, idempotent with `acks=all`, and sends 1-kB messages by the clock: one that is late because an
//! earlier one was waited for counts from when it was due. The first quarter is not counted. Prints messages a second, and
//! p50, p99, p99.9 and the longest latency in milliseconds.
//!
//! With `disk FOLDER RATE SECONDS` it measures the least that a durable broker could do on that disk: one thread, no network;
//! all messages that are due are written to a preallocated file at once, then comes an fdatasync. What a broker shows beyond
//! that is its own and its client's.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_broker::kafka::{KafkaSettings, serve};
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{Bus, TopicSpec};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const VALUE_BYTES: usize = 1000;
/// How long what is on its way at the end may take. What is left then counts as not sent: the broker didn't keep up.
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

/// What to measure.
struct Load {
    brokers: String,
    topic: String,
    rate: u64,
    linger_ms: u64,
    length: Duration,
}

/// Takes note of every acknowledgement, on librdkafka's thread.
struct Acknowledgements {
    started: Instant,
    counted_from: Duration,
    latencies: Mutex<Histogram<u64>>,
    failures: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    /// When the message was due, in microseconds since the start.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let due = Duration::from_micros(due as u64);
        match result {
            Ok(_) if due >= self.counted_from => {
                let latency = self.started.elapsed().saturating_sub(due);
                self.latencies.lock().record(u64::try_from(latency.as_micros()).unwrap()).unwrap();
            }
            Ok(_) => {}
            Err((error, _)) => self.failures.lock().push(error.clone()),
        }
    }
}

fn measure(load: &Load) -> (f64, Histogram<u64>) {
    let started = Instant::now();
    let context = Acknowledgements {
        started,
        counted_from: load.length / 4,
        latencies: Mutex::new(Histogram::new(3).unwrap()),
        failures: Mutex::default(),
    };
    let producer: ThreadedProducer<Acknowledgements> = ClientConfig::new()
        .set("bootstrap.servers", &load.brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", load.linger_ms.to_string())
        .set("batch.size", "16384")
        .create_with_context(context)
        .unwrap();
    let value = vec![b'v'; VALUE_BYTES];
    let count = load.rate * load.length.as_secs();
    for number in 0..count {
        let due = Duration::from_micros(number * 1_000_000 / load.rate);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let opaque = usize::try_from(due.as_micros()).unwrap();
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&load.topic, opaque).payload(&value);
        while let Err((error, again)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full);
            std::thread::sleep(Duration::from_millis(1));
            record = again;
        }
    }
    let flushed = producer.flush(FLUSH_LIMIT);
    let left = flushed.map_or_else(|_| u64::try_from(producer.in_flight_count()).unwrap(), |()| 0);
    let taken = started.elapsed();
    let context = producer.context();
    assert!(context.failures.lock().is_empty(), "{:?}", context.failures.lock().first());
    let latencies = context.latencies.lock().clone();
    ((count - left) as f64 / taken.as_secs_f64(), latencies)
}

/// What a load takes on this disk without a broker.
fn measure_disk(folder: &Path, rate: u64, length: Duration) -> (f64, Histogram<u64>) {
    const FILE_BYTES: usize = 64 << 20;
    let file = tempfile::tempfile_in(folder).unwrap();
    file.write_all_at(&vec![0; FILE_BYTES], 0).unwrap();
    file.sync_all().unwrap();
    let message = vec![b'v'; VALUE_BYTES];
    let due = |number: u64| Duration::from_micros(number * 1_000_000 / rate);
    let mut latencies = Histogram::new(3).unwrap();
    let (mut written, mut position) = (0, 0);
    let started = Instant::now();
    while due(written) < length {
        std::thread::sleep(due(written).saturating_sub(started.elapsed()));
        let first = written;
        while due(written) <= started.elapsed() {
            written += 1;
        }
        position =
            write_at(&file, position, &message.repeat(usize::try_from(written - first).unwrap()), FILE_BYTES);
        file.sync_data().unwrap();
        let now = started.elapsed();
        for due in (first..written).map(due).filter(|due| *due >= length / 4) {
            latencies.record(u64::try_from((now - due).as_micros()).unwrap()).unwrap();
        }
    }
    (written as f64 / started.elapsed().as_secs_f64(), latencies)
}

/// Writes at a position, or at the file's beginning if there isn't room. Returns where to write on.
fn write_at(file: &File, position: u64, bytes: &[u8], file_bytes: usize) -> u64 {
    let bytes = bytes.get(..file_bytes).unwrap_or(bytes);
    let room = position + bytes.len() as u64 <= file_bytes as u64;
    let position = if room { position } else { 0 };
    file.write_all_at(bytes, position).unwrap();
    position + bytes.len() as u64
}

fn print((rate, latencies): (f64, Histogram<u64>)) {
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{rate:.0} {:.2} {:.2} {:.2} {:.2}",
        ms(0.5),
        ms(0.99),
        ms(0.999),
        latencies.max() as f64 / 1000.0
    );
}

/// Farol in this process, at a few loads.
fn own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let parent = std::env::var_os("FAROL_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (bus, address) = runtime.block_on(async {
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
        let topic = TopicSpec { name: "t".into(), partitions: 4, config: Default::default() };
        bus.create_topic(topic).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let handle = serve(bus.broker().clone(), KafkaSettings::default(), listener, stop).unwrap();
        (Arc::new(bus), handle.local_addr())
    });
    println!("load, linger: messages/s, p50, p99, p99.9, longest (ms)");
    for rate in [2_000, 10_000, 25_000] {
        for linger_ms in [0, 5] {
            print!("{rate}/s, {linger_ms} ms: ");
            let length = Duration::from_secs(4);
            print(measure(&Load {
                brokers: address.to_string(),
                topic: "t".into(),
                rate,
                linger_ms,
                length,
            }));
        }
    }
    runtime.block_on(bus.close()).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [] => own(),
        [disk, folder, rate, seconds] if disk == "disk" => {
            print(measure_disk(Path::new(folder), rate.parse().unwrap(), self::seconds(seconds)));
        }
        [brokers, topic, rate, linger_ms, seconds] => print(measure(&Load {
            brokers: brokers.clone(),
            topic: topic.clone(),
            rate: rate.parse().unwrap(),
            linger_ms: linger_ms.parse().unwrap(),
            length: self::seconds(seconds),
        })),
        _ => panic!("BROKERS TOPIC RATE LINGER_MS SECONDS, or disk FOLDER RATE SECONDS, or nothing"),
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.parse().unwrap())
}
