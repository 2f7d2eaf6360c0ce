//! The load generator against a real server that stalls, dies and comes back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farol_simulate::load::{self, Agreement, LoadOptions, LoadSummary, Rate, StopAfter};
use farol_simulate::{LoadError, SilentProgress};
use support::{Fault, TestServer, eventually, multiplicity};
use tokio_util::sync::CancellationToken;

fn options(server: &TestServer) -> LoadOptions {
    LoadOptions { connections: 3, batch: 100, sensors: 50, ..LoadOptions::new(server.url()) }
}

async fn run(options: LoadOptions) -> Result<LoadSummary, LoadError> {
    load::run(options, Arc::new(SilentProgress), CancellationToken::new()).await
}

/// Every reading that was begun is in exactly one count.
fn assert_nothing_uncounted(summary: &LoadSummary) {
    let tally = summary.tally;
    let ends = tally.accepted
        + tally.rejected
        + tally.overloaded
        + tally.not_stored
        + tally.unanswered
        + tally.unsent;
    assert_eq!(tally.sent, ends, "{tally:?}");
}

/// (seq, sensor, timestamp) of the file of acknowledged readings.
fn acknowledged(path: &std::path::Path) -> BTreeSet<(u64, String, i64)> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[0].parse().unwrap(), fields[1].to_owned(), fields[2].parse().unwrap())
        })
        .collect()
}

fn stored_ids(server: &TestServer) -> BTreeSet<(u64, String, i64)> {
    server.stored().into_iter().map(|r| (r.seq.unwrap(), r.sensor_id, r.timestamp.as_micros())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_stored_written_down_and_agrees() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("acknowledged.csv");
    let wanted = LoadOptions {
        stop: StopAfter::Readings(12_345),
        acknowledged: Some(file.clone()),
        alerts_fraction: 0.1,
        ..options(&server)
    };
    let summary = run(wanted).await.unwrap();
    assert_eq!((summary.tally.sent, summary.tally.accepted), (12_345, 12_345));
    assert_nothing_uncounted(&summary);
    assert_eq!(summary.server.agreement, Agreement::Agrees);
    assert_eq!((summary.server.stored, summary.server.accepted), (Some(12_345), Some(12_345)));
    assert!(multiplicity(&server.stored()).values().all(|count| *count == 1));
    assert_eq!(acknowledged(&file), stored_ids(&server));
    assert_eq!(acknowledged(&file).len(), 12_345);
    assert_eq!(summary.latency.count, summary.tally.requests);
    serde_json::to_string(&summary).unwrap();
    assert!(summary.to_string().contains("agrees with the acknowledgements"), "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_readings_at_a_fixed_rate_are_as_many_as_the_rate_says() {
    let server = TestServer::start().await;
    let wanted = LoadOptions {
        batch: 1,
        rate: Rate::PerSecond(400.0),
        stop: StopAfter::Duration(Duration::from_millis(1000)),
        ..options(&server)
    };
    let summary = run(wanted).await.unwrap();
    assert_nothing_uncounted(&summary);
    assert!(summary.tally.sent <= 400, "never more than the rate: {:?}", summary.tally);
    assert!(summary.tally.accepted == summary.tally.sent && summary.tally.sent > 0, "{:?}", summary.tally);
    assert_eq!(summary.server.agreement, Agreement::Agrees);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_the_latency_of_the_requests_that_it_kept_from_being_sent() {
    let server = TestServer::start().await;
    let stall = Duration::from_millis(400);
    let wanted = LoadOptions {
        connections: 1,
        batch: 1,
        rate: Rate::PerSecond(100.0),
        stop: StopAfter::Duration(Duration::from_secs(1)),
        ..options(&server)
    };
    server.fail_with([Fault::Stall(stall)]);
    let summary = run(wanted).await.unwrap();
    // Some 40 of 100 requests were due during the stall. Measured from sending, only one would be slow.
    assert!(summary.latency.max_ms >= 400.0, "{:?}", summary.latency);
    assert!(summary.latency.p99_ms >= 300.0, "{:?}", summary.latency);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_ends_the_run_with_everything_counted() {
    let mut server = TestServer::start().await;
    let running = tokio::spawn(run(options(&server)));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || state.lock().unwrap().stored.len() >= 3000).await;
    server.die().await;
    let summary = running.await.unwrap().unwrap();
    assert_nothing_uncounted(&summary);
    assert_eq!(summary.tally.disconnects, 3);
    assert_eq!(summary.server.agreement, Agreement::Unknown);
    let stored = server.stored().len() as u64;
    let tally = summary.tally;
    assert!((tally.accepted..=tally.accepted + tally.unanswered).contains(&stored), "{stored} {tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_reconnect_a_run_outlives_its_server_and_acknowledged_is_stored() {
    let (mut server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("acknowledged.csv");
    let wanted = LoadOptions {
        reconnect: true,
        rate: Rate::PerSecond(20_000.0),
        stop: StopAfter::Duration(Duration::from_secs(3)),
        acknowledged: Some(file.clone()),
        ..options(&server)
    };
    let running = tokio::spawn(run(wanted));
    let state = Arc::clone(&server.state);
    for deaths in 1..=3 {
        let before = state.lock().unwrap().stored.len();
        eventually(Duration::from_secs(10), || state.lock().unwrap().stored.len() >= before + 2000).await;
        server.die().await;
        server.revive().await;
        println!("death {deaths}");
    }
    let summary = running.await.unwrap().unwrap();
    assert_nothing_uncounted(&summary);
    assert!(summary.tally.disconnects >= 3, "{:?}", summary.tally);
    assert_eq!(summary.server.agreement, Agreement::Agrees, "{summary}");
    let (acknowledged, stored) = (acknowledged(&file), stored_ids(&server));
    assert_eq!(acknowledged.len() as u64, summary.tally.accepted);
    assert!(acknowledged.is_subset(&stored), "an acknowledged reading is not stored");
    assert!(multiplicity(&server.stored()).values().all(|count| *count == 1), "nothing is sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_answers_and_lost_answers_are_told_apart() {
    let server = TestServer::start().await;
    server.fail_with([Fault::Busy, Fault::LoseAnswer, Fault::Busy, Fault::Cut, Fault::CloseAfter]);
    let wanted = LoadOptions { reconnect: true, stop: StopAfter::Readings(2000), ..options(&server) };
    let summary = run(wanted).await.unwrap();
    assert_nothing_uncounted(&summary);
    let tally = summary.tally;
    assert_eq!((tally.overloaded, tally.unanswered, tally.unsent), (200, 200, 0), "{tally:?}");
    assert_eq!(tally.accepted, 1600);
    // Of the two unanswered batches one was stored.
    assert_eq!((summary.server.stored, summary.server.agreement), (Some(1700), Agreement::Agrees));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_readings_make_the_counts_differ() {
    let server = TestServer::start().await;
    let running = tokio::spawn(run(LoadOptions {
        rate: Rate::PerSecond(1000.0),
        stop: StopAfter::Duration(Duration::from_secs(1)),
        ..options(&server)
    }));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || !state.lock().unwrap().stored.is_empty()).await;
    run(LoadOptions { stop: StopAfter::Readings(500), sensor_prefix: "other".into(), ..options(&server) })
        .await
        .unwrap();
    let summary = running.await.unwrap().unwrap();
    assert_eq!(summary.server.agreement, Agreement::Differs);
    assert!(summary.to_string().contains("500 more than acknowledged"), "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_probe_finds_its_alert_on_the_stream_beside_a_background_load() {
    let server = TestServer::start().await;
    let wanted = LoadOptions {
        rate: Rate::PerSecond(5000.0),
        alerts_fraction: 0.05,
        stop: StopAfter::Duration(Duration::from_millis(1500)),
        alert_probes_per_second: Some(50.0),
        ..options(&server)
    };
    let summary = run(wanted).await.unwrap();
    let alerts = summary.alert_latency.clone().unwrap();
    assert!(alerts.probes > 0, "{alerts:?}");
    assert_eq!((alerts.missing, alerts.failed, alerts.stream_gaps), (0, 0, 0));
    assert_eq!(alerts.delay.count, alerts.probes);
    assert_eq!(alerts.resolving_readings, alerts.probes);
    assert_eq!(summary.server.agreement, Agreement::Agrees, "{summary}");
    let stored = server.stored();
    let probes: BTreeSet<_> =
        stored.iter().filter(|r| r.sensor_id.starts_with("probe-")).map(|r| &r.sensor_id).collect();
    assert_eq!(probes.len() as u64, alerts.probes, "each probe has a sensor of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_the_options_and_wrong_addresses_are_told() {
    let mut server = TestServer::start().await;
    for wrong in [
        LoadOptions { batch: 0, ..options(&server) },
        LoadOptions { connections: 0, ..options(&server) },
        LoadOptions { sensors: 0, ..options(&server) },
        LoadOptions { alerts_fraction: 1.5, ..options(&server) },
        LoadOptions { alert_probes_per_second: Some(f64::NAN), ..options(&server) },
    ] {
        assert!(matches!(run(wrong).await, Err(LoadError::Option(_))));
    }
    let elsewhere = format!("{}/elsewhere", server.url()).parse().unwrap();
    let error = run(LoadOptions { server: elsewhere, ..options(&server) }).await.unwrap_err();
    assert!(matches!(error, LoadError::Refused(_)) && error.to_string().contains("404"), "{error}");
    server.die().await;
    let error = run(options(&server)).await.unwrap_err();
    assert!(matches!(error, LoadError::Connect(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_makes_the_run_a_failure() {
    let server = TestServer::start().await;
    server.fail_with([Fault::FullDisk, Fault::Busy]);
    let wanted = LoadOptions { connections: 1, stop: StopAfter::Readings(500), ..options(&server) };
    let summary = run(wanted).await.unwrap();
    assert_nothing_uncounted(&summary);
    let tally = summary.tally;
    assert_eq!((tally.not_stored, tally.overloaded, tally.accepted), (100, 100, 300), "{tally:?}");
    let failure = summary.failure().unwrap();
    assert!(failure.contains("could not store 100 readings: No space left"), "{failure}");
    assert!(summary.to_string().contains("NOT STORED  100: No space left"), "{summary}");

    let wanted = LoadOptions { stop: StopAfter::Readings(500), ..options(&server) };
    assert_eq!(run(wanted).await.unwrap().failure(), None);
}
