//! The running fleet over the embedded bus and over HTTP.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{Bus, ConsumedRecord, ConsumerSettings, Polled, StartAt, TopicPartition, TopicSpec};
use farol_event::{Event, EventType, Reading};
use farol_simulate::{SensorSimulators, SensorSpec, SimulationError, Sink, numbered_fleet};
use support::{TestServer, eventually};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

async fn open_bus(dir: &tempfile::TempDir) -> Arc<EmbeddedBus> {
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
    for (name, partitions) in [("sensor-data", 3), ("system-events", 3)] {
        let spec = TopicSpec { name: name.into(), partitions, config: BTreeMap::new() };
        bus.create_topic(spec).await.unwrap();
    }
    bus
}

async fn read_all(bus: &EmbeddedBus, topic: &str) -> Vec<ConsumedRecord> {
    let partitions: Vec<TopicPartition> = (0..3).map(|p| TopicPartition::new(topic, p)).collect();
    let end: i64 = bus.offsets(&partitions, farol_bus::OffsetSpec::Latest).await.unwrap().values().sum();
    let mut consumer = bus.consumer(ConsumerSettings::standalone("test")).await.unwrap();
    consumer.assign(partitions.into_iter().map(|p| (p, StartAt::Earliest)).collect()).await.unwrap();
    let mut records = Vec::new();
    while (records.len() as i64) < end {
        if let Polled::Records(batches) = consumer.poll(Duration::from_secs(1)).await.unwrap() {
            records.extend(batches.into_iter().flat_map(|batch| batch.records));
        }
    }
    records
}

/// A few sensors of every type that measure every 20 ms.
fn quick_sensors() -> Vec<SensorSpec> {
    let quick = |spec| SensorSpec { interval: Duration::from_millis(20), ..spec };
    numbered_fleet(20).unwrap().into_iter().map(quick).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_and_heartbeats_on_the_bus_tell_the_same_story() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(&dir).await;
    let shutdown = CancellationToken::new();
    let simulators = SensorSimulators::new(quick_sensors(), Some(1)).unwrap();
    let simulators = simulators.with_heartbeat_interval(Duration::from_millis(100));
    let sink = Sink::bus(bus.producer("simulators").await.unwrap());
    let running = tokio::spawn(simulators.run(sink, shutdown.clone()));
    let partitions: Vec<TopicPartition> = (0..3).map(|p| TopicPartition::new("sensor-data", p)).collect();
    let deadline = tokio::time::Instant::now() + LIMIT;
    while bus.offsets(&partitions, farol_bus::OffsetSpec::Latest).await.unwrap().values().sum::<i64>() < 500 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    let summary = running.await.unwrap().unwrap();
    assert_eq!((summary.sensors, summary.rejected), (20, 0));

    let readings = read_all(&bus, "sensor-data").await;
    assert_eq!(readings.len() as u64, summary.accepted);
    let mut per_producer: BTreeMap<String, u64> = BTreeMap::new();
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in &readings {
        let reading = Reading::parse(record.value.as_ref().unwrap(), record.timestamp()).unwrap();
        assert_eq!(record.key.as_deref(), Some(reading.sensor_id.as_bytes()));
        assert_eq!(reading.timestamp.as_millis(), record.timestamp_ms, "stored when it was measured");
        let (name, producer) = &record.headers[0];
        assert_eq!(name, "farol-producer");
        *per_producer.entry(String::from_utf8(producer.to_vec()).unwrap()).or_default() += 1;
        let metadata: serde_json::Value = serde_json::from_str(reading.metadata.unwrap().get()).unwrap();
        counts
            .entry(reading.sensor_id.to_string())
            .or_default()
            .push(metadata["reading_count"].as_u64().unwrap());
    }
    assert_eq!(per_producer.len(), 5, "{per_producer:?}");
    for (sensor, counts) in counts {
        assert!(counts.iter().copied().eq(1..=counts.len() as u64), "{sensor}: {counts:?}");
    }

    let mut last: BTreeMap<String, Event> = BTreeMap::new();
    let mut statuses = BTreeSet::new();
    for record in read_all(&bus, "system-events").await {
        let event = Event::parse(record.value.as_ref().unwrap(), record.timestamp()).unwrap();
        assert_eq!(event.event_type, EventType::PRODUCER_HEARTBEAT);
        assert_eq!(record.key.as_deref(), Some(event.source.as_bytes()));
        statuses.insert(event.data["status"].as_str().unwrap().to_owned());
        last.insert(event.source.clone(), event);
    }
    assert_eq!(statuses, BTreeSet::from(["active".to_owned(), "stopped".to_owned()]));
    let said: BTreeMap<String, u64> =
        last.iter().map(|(id, event)| (id.clone(), event.data["records_sent"].as_u64().unwrap())).collect();
    assert_eq!(said, per_producer, "the last heartbeat counts what is stored");
    assert!(
        last.values().all(|e| e.data["status"] == "stopped" && e.data["kind"] == "simulator"),
        "{last:?}"
    );
    bus.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_closed_for_good_ends_the_simulators() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(&dir).await;
    let sink = Sink::bus(bus.producer("simulators").await.unwrap());
    bus.close().await.unwrap();
    let simulators = SensorSimulators::new(quick_sensors(), None).unwrap();
    let ended = tokio::time::timeout(LIMIT, simulators.run(sink, CancellationToken::new())).await.unwrap();
    assert!(matches!(ended, Err(SimulationError::Sink(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulators_over_http_survive_the_death_of_their_server_and_count_what_was_lost() {
    let mut server = TestServer::start().await;
    let shutdown = CancellationToken::new();
    let simulators = SensorSimulators::new(quick_sensors(), None).unwrap();
    let running = tokio::spawn(simulators.run(Sink::http(server.url()), shutdown.clone()));
    let state = Arc::clone(&server.state);
    let stored = move || state.lock().unwrap().stored.len();
    eventually(LIMIT, || stored() >= 200).await;
    server.die().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.revive().await;
    let before = stored();
    eventually(LIMIT, || stored() >= before + 200).await;
    shutdown.cancel();
    let summary = running.await.unwrap().unwrap();
    let stored = server.stored();
    assert!(summary.rejected > 0, "some readings fell into the gap: {summary:?}");
    // A batch whose answer was lost counts as rejected and is stored all the same.
    let there = stored.len() as u64;
    assert!((summary.accepted..=summary.accepted + summary.rejected).contains(&there), "{there} {summary:?}");
    let producers: BTreeSet<_> = stored.iter().filter_map(|r| r.producer.clone()).collect();
    assert!(producers.contains("simulator-temperature") && producers.len() == 5, "{producers:?}");
}
