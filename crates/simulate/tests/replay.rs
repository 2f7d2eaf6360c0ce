//! Replay against a real server that misbehaves on purpose.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use farol_simulate::replay::{self, ReplayError, ReplayOptions, Speed};
use support::{Fault, Notes, TestServer, eventually, multiplicity};
use tokio_util::sync::CancellationToken;

/// A file with `rows` samples, five minutes apart, values 0, 1, 2, …
fn series(dir: &tempfile::TempDir, rows: usize) -> PathBuf {
    let mut text = String::from("timestamp,value\n");
    let start: Timestamp = "2013-12-02T21:15:00Z".parse().unwrap();
    for row in 0..rows {
        let at = start.saturating_add(Duration::from_secs(300 * row as u64)).to_string();
        writeln!(text, "{} {},{row}.5", &at[..10], &at[11..19]).unwrap();
    }
    let path = dir.path().join("series.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn options(server: &TestServer, file: PathBuf) -> ReplayOptions {
    ReplayOptions { batch: 100, ..ReplayOptions::new(file, server.url(), "machine-1", "temperature") }
}

async fn replay(options: ReplayOptions) -> (Result<replay::ReplaySummary, ReplayError>, Vec<String>) {
    let notes = Arc::new(Notes::default());
    let result = replay::run(options, notes.clone(), CancellationToken::new()).await;
    (result, notes.lines())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_arrives_whole_in_order_with_its_own_times() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let (result, notes) = replay(options(&server, series(&dir, 2345))).await;
    let summary = result.unwrap();
    assert_eq!((summary.rows, summary.sent, summary.accepted, summary.rejected), (2345, 2345, 2345, 0));
    assert!(summary.utc_assumed && !summary.interrupted);
    assert_eq!(notes, ["the file's times name no offset: they are taken as UTC"]);
    let stored = server.stored();
    assert_eq!(stored.len(), 2345);
    for (row, pair) in stored.windows(2).enumerate() {
        assert_eq!(pair[1].timestamp.since(pair[0].timestamp), Duration::from_secs(300), "row {row}");
    }
    assert_eq!(stored[0].timestamp.to_string(), "2013-12-02T21:15:00.000000Z");
    assert_eq!((stored[7].value, stored[7].unit.as_deref()), (7.5, Some("°C")));
    assert_eq!(stored[7].producer.as_deref(), Some("replay"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_servers_and_cut_connections_lose_and_double_nothing() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    server.fail_with([
        Fault::Busy,
        Fault::Cut,
        Fault::CloseAfter,
        Fault::Busy,
        Fault::Busy,
        Fault::CloseAfter,
    ]);
    let summary = replay(options(&server, series(&dir, 1000))).await.0.unwrap();
    assert_eq!((summary.accepted, summary.retries), (1000, 4));
    assert_eq!(
        summary.resent_after_lost_answer, 1,
        "the cut batch might have been stored, for all one can know"
    );
    let stored = server.stored();
    assert_eq!(stored.len(), 1000);
    assert!(multiplicity(&stored).values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_doubles_its_one_batch_and_is_counted() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    server.fail_with([Fault::CloseAfter, Fault::LoseAnswer]);
    let summary = replay(options(&server, series(&dir, 1000))).await.0.unwrap();
    assert_eq!((summary.sent, summary.accepted), (1000, 1000));
    assert_eq!(summary.resent_after_lost_answer, 1);
    let counts = multiplicity(&server.stored());
    assert_eq!(counts.len(), 1000);
    assert_eq!(counts.values().filter(|count| **count == 2).count(), 100, "one batch, no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_comes_back_gets_the_rest() {
    let (mut server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let file = series(&dir, 20_000);
    let running = tokio::spawn(replay(options(&server, file)));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || state.lock().unwrap().stored.len() >= 2000).await;
    server.die().await;
    server.revive().await;
    let (result, _) = running.await.unwrap();
    let summary = result.unwrap();
    assert_eq!(summary.accepted, 20_000);
    let counts = multiplicity(&server.stored());
    assert_eq!(counts.len(), 20_000);
    let doubled = counts.values().filter(|count| **count > 1).count() as u64;
    assert!(doubled <= 100 * summary.resent_after_lost_answer, "{doubled} doubled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_told_by_line_and_too_many_stop_the_replay() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let path = dir.path().join("bad.csv");
    std::fs::write(&path, "timestamp,value\n2013-12-02 21:15:00,1\nnever,2\n2013-12-02 21:25:00,x\n1900-01-01T00:00:00Z,4\n2013-12-02 21:35:00,5\n")
        .unwrap();
    let (result, notes) = replay(options(&server, path.clone())).await;
    let summary = result.unwrap();
    assert_eq!(
        (summary.rows, summary.bad_rows, summary.sent, summary.accepted, summary.rejected),
        (5, 2, 3, 2, 1)
    );
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(
        notes[1].starts_with("line 3: the time `never`") && notes[2].starts_with("line 4: the value `x`")
    );
    assert!(
        notes[3].starts_with("line 5: the server rejected the reading") && notes[3].contains("1970"),
        "{notes:?}"
    );

    let strict = ReplayOptions { max_errors: 1, ..options(&server, path) };
    let error = replay(strict).await.0.unwrap_err();
    assert!(matches!(error, ReplayError::TooManyErrors { errors: 2, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_replay_goes_on_where_it_says() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let file = series(&dir, 5000);
    server.fail_with([Fault::CloseAfter, Fault::Stall(Duration::from_millis(300))]);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(replay::run(
        options(&server, file.clone()),
        Arc::new(Notes::default()),
        shutdown.clone(),
    ));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || state.lock().unwrap().requests >= 2).await;
    shutdown.cancel();
    let first = running.await.unwrap().unwrap();
    assert!(first.interrupted && first.accepted < 5000, "{first:?}");
    let rest = ReplayOptions { skip_rows: first.rows + first.skipped_rows, ..options(&server, file) };
    let second = replay(rest).await.0.unwrap();
    assert_eq!(first.accepted + second.accepted, 5000);
    assert!(multiplicity(&server.stored()).values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_ends_the_replay_with_where_to_go_on() {
    let (mut server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let file = series(&dir, 1000);
    server.fail_with([Fault::CloseAfter, Fault::CloseAfter, Fault::Stall(Duration::from_secs(5))]);
    let given_up = ReplayOptions { retry_for: Duration::from_millis(300), ..options(&server, file.clone()) };
    let running = tokio::spawn(replay(given_up));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || state.lock().unwrap().requests >= 3).await;
    server.die().await;
    let error = running.await.unwrap().0.unwrap_err();
    let ReplayError::Upload { first_line, last_line, rows_done, source } = &error else { panic!("{error}") };
    assert_eq!((*first_line, *last_line, *rows_done), (202, 301, 200));
    assert!(source.is_retriable() && error.to_string().contains("--skip-rows 200"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_speed_never_runs_ahead_of_the_series() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    // 30 samples over 8,700 seconds at 14,500 times the speed: 0.6 seconds.
    let paced = ReplayOptions { speed: Speed::Factor(14_500.0), ..options(&server, series(&dir, 30)) };
    let summary = replay(paced).await.0.unwrap();
    assert_eq!(summary.accepted, 30);
    assert!(summary.duration_s >= 0.6, "{summary:?}");
    assert!(server.state().requests > 5, "samples are sent when they are due, not all at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_the_options_are_told() {
    let (server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    let missing = replay(options(&server, dir.path().join("nowhere.csv"))).await.0.unwrap_err();
    assert!(matches!(missing, ReplayError::Open { .. }) && missing.to_string().contains("nowhere.csv"));
    let empty = dir.path().join("empty.csv");
    std::fs::write(&empty, "").unwrap();
    let error = replay(options(&server, empty)).await.0.unwrap_err();
    assert!(matches!(error, ReplayError::Series { .. }), "{error}");
    let none = ReplayOptions { batch: 0, ..options(&server, series(&dir, 1)) };
    assert!(matches!(replay(none).await.0.unwrap_err(), ReplayError::Option(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_never_there_is_told_at_once() {
    let (mut server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    server.die().await;
    let begun = std::time::Instant::now();
    let error = replay(options(&server, series(&dir, 10))).await.0.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "a minute of retries is for servers that were there");
    assert!(matches!(error, ReplayError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("can't reach http://127.0.0.1") && text.contains("farol run"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_went_away_is_named_with_how_long_it_is_tried() {
    let (mut server, dir) = (TestServer::start().await, tempfile::tempdir().unwrap());
    server.fail_with([Fault::CloseAfter, Fault::Stall(Duration::from_secs(5))]);
    let patient = ReplayOptions { retry_for: Duration::from_secs(2), ..options(&server, series(&dir, 1000)) };
    let running = tokio::spawn(replay(patient));
    let state = Arc::clone(&server.state);
    eventually(Duration::from_secs(10), || state.lock().unwrap().requests >= 2).await;
    server.die().await;
    let (result, notes) = running.await.unwrap();
    result.unwrap_err();
    let told =
        notes.iter().any(|note| note.contains("can't reach http://") && note.contains("trying for 2.0 s"));
    assert!(told, "{notes:?}");
}
