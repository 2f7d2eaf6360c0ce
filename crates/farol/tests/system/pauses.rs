//! How long partitions paused because the broker itself was killed: what is told, against what a client saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::farol::{Farol, SOON, eventually, folder, write};
use crate::running::Running;
use crate::worker_processes::worker;
use crate::workers::progress;

/// How long nothing listens.
const OUTAGE: Duration = Duration::from_secs(4);
/// The broker tells by the machine's clock and the test by a monotonic one.
const CLOCKS: Duration = Duration::from_millis(100);
/// So many that every partition gets some.
const SENSORS: usize = 30;
const PARTITIONS: usize = 3;

/// The committed offset of every partition of the readings that has one.
async fn committed(server: &Farol) -> BTreeMap<i64, i64> {
    let progress = progress(server).await;
    progress
        .iter()
        .filter_map(|each| Some((each["partition"].as_i64()?, each["committed"].as_i64()?)))
        .collect()
}

/// Sends readings to every partition, and sees them consumed.
async fn consumed(server: &Farol) {
    let before = committed(server).await;
    for sensor in 0..SENSORS {
        server.temperature(&format!("t-{sensor}"), 20.0).await;
    }
    eventually(SOON * 2, "readings are consumed in every partition", async || {
        let now = committed(server).await;
        let further = |(partition, offset): (&i64, &i64)| offset > before.get(partition).unwrap_or(&0);
        (now.iter().filter(|each| further(*each)).count() == PARTITIONS).then_some(())
    })
    .await;
}

/// The rebalances of the workers, oldest first.
async fn rebalances(server: &Farol) -> Vec<Value> {
    let mut found = server.pages("/api/rebalances?group=sensor-processors&limit=1000", "rebalances").await;
    found.reverse();
    found
}

/// Kills the broker of these workers, or that they are in, and compares.
async fn over_a_killed_broker(in_process: usize, processes: &[&str]) {
    let folder = folder();
    write(folder.path(), "farol.toml", &format!("rules.defaults = false\npipeline.workers = {in_process}\n"));
    let server = Farol::start(folder.path(), &[]).await;
    let kafka = server.kafka.clone();
    let _workers: Vec<Running> = processes.iter().map(|name| worker(folder.path(), &kafka, name)).collect();
    let known = eventually(SOON * 2, "each worker has one partition, and that is told", async || {
        let told = rebalances(&server).await;
        let after = told.last()?["after"].as_object()?;
        let shared = after.len() == PARTITIONS
            && after.values().all(|owned| owned.as_array().is_some_and(|owned| owned.len() == 1));
        shared.then_some(told.len())
    })
    .await;
    // Whatever pauses from here on has not paused for longer.
    let working = Instant::now();
    consumed(&server).await;
    server.kill();
    let down = Instant::now();
    tokio::time::sleep(OUTAGE).await;
    let outage = down.elapsed();
    let server = Farol::start(folder.path(), &["--kafka-listen", &kafka]).await;
    consumed(&server).await;

    let told = eventually(SOON, "a pause of every partition is told", async || {
        let mut told = BTreeMap::new();
        for rebalance in rebalances(&server).await.into_iter().skip(known) {
            for (partition, paused) in rebalance["paused_ms"].as_object()? {
                let partition: i64 = partition.strip_prefix("sensor-data/")?.parse().ok()?;
                // The first one is that of the outage.
                told.entry(partition).or_insert(Duration::from_millis(paused.as_u64()?));
            }
        }
        (told.len() == PARTITIONS).then_some(told)
    })
    .await;
    // In that time each may have moved more than once, and all its pauses are told as one.
    let observed = working.elapsed();
    for (partition, told) in told {
        assert!(
            told + CLOCKS >= outage && told <= observed + CLOCKS,
            "sensor-data/{partition} stood still for {outage:?} at least and {observed:?} at most, and {told:?} was told"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_processes_pause_for_as_long_as_their_killed_broker_is_away_and_it_is_told() {
    over_a_killed_broker(0, &["w1", "w2", "w3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_in_the_broker_s_process_pause_for_as_long_as_it_is_away_and_it_is_told() {
    over_a_killed_broker(3, &[]).await;
}
