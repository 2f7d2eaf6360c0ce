//! Applying: positions, skipping, failing whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farol_bus::TopicPartition;
use farol_view::query::readings::ReadingFilter;
use farol_view::query::sensors::SensorFilter;
use farol_view::store::WAITING_QUERIES;
use farol_view::{Store, StoreOptions, ViewError, ViewName};

use crate::support::{Log, TestStore, at};

fn every_reading() -> ReadingFilter {
    ReadingFilter { limit: Some(100_000), ..ReadingFilter::default() }
}

#[tokio::test]
async fn content_and_positions_survive_closing_and_opening() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..100 {
        log.reading("temp-1", second, 20.0);
        log.reading("temp-2", second, 21.0);
    }
    test.apply_all(log.batches()).await;
    let positions = test.store.positions(ViewName::Readings);
    assert_eq!(positions.values().sum::<i64>(), 200);
    assert_eq!(test.store.cleared_at_open(), ViewName::ALL);
    test.store.close().await;
    assert!(matches!(test.store.apply(&ViewName::ALL, log.batches(), at(0)).await, Err(ViewError::Closed)));
    assert!(matches!(test.store.query(|q| q.sensor_counts(at(0))).await, Err(ViewError::Closed)));

    let reopened = Store::open(test.path(), StoreOptions::default()).unwrap();
    assert!(reopened.cleared_at_open().is_empty());
    assert_eq!(reopened.positions(ViewName::Readings), positions);
    let rows = reopened.query(|q| q.reading_rows(&every_reading())).await.unwrap();
    assert_eq!(rows.readings.len(), 200);
}

#[tokio::test]
async fn records_before_the_position_are_left_alone() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..10 {
        log.reading("temp-1", second, second as f64);
    }
    let batches = log.batches();
    let views = [ViewName::Readings, ViewName::Sensors];
    // The same batch twice in one call, and again in another.
    let twice = [batches.clone(), batches.clone()].concat();
    let applied = test.store.apply(&views, twice, at(0)).await.unwrap();
    assert_eq!((applied[&ViewName::Sensors].applied, applied[&ViewName::Sensors].already_applied), (10, 10));
    let applied = test.store.apply(&views, batches, at(0)).await.unwrap();
    assert_eq!((applied[&ViewName::Readings].applied, applied[&ViewName::Readings].already_applied), (0, 10));
    let page = test.ask(|q| q.sensors(&SensorFilter::default(), at(9))).await;
    assert_eq!(page.sensors[0].readings, 10);
    assert_eq!(test.ask(|q| q.reading_rows(&every_reading())).await.readings.len(), 10);
}

#[tokio::test]
async fn a_view_that_is_behind_is_fed_alone_and_catches_up() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..10 {
        log.reading("temp-1", second, second as f64);
    }
    test.store.apply(&[ViewName::Readings], log.batches(), at(0)).await.unwrap();
    assert!(test.store.positions(ViewName::Sensors).is_empty());
    for second in 10..15 {
        log.reading("temp-1", second, second as f64);
    }
    let both = [ViewName::Readings, ViewName::Sensors];
    let applied = test.store.apply(&both, log.batches(), at(0)).await.unwrap();
    assert_eq!((applied[&ViewName::Readings].applied, applied[&ViewName::Readings].already_applied), (5, 10));
    assert_eq!((applied[&ViewName::Sensors].applied, applied[&ViewName::Sensors].already_applied), (15, 0));
    assert_eq!(test.store.positions(ViewName::Sensors), test.store.positions(ViewName::Readings));
}

#[tokio::test]
async fn a_failed_apply_changes_nothing_and_may_be_repeated() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading("temp-1", 0, 1.0);
    test.apply_all(log.batches()).await;
    let positions = test.store.positions(ViewName::Readings);
    let outside = test.outside();
    outside
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON reading WHEN new.value = 666
             BEGIN SELECT raise(ABORT, 'the disk is on fire'); END",
        )
        .unwrap();
    // New sensors before and after the one that fails: their numbers must not be remembered either.
    log.reading("temp-0", 1, 5.0);
    log.reading("temp-2", 1, 666.0);
    log.reading("temp-3", 1, 6.0);
    let views = [ViewName::Sensors, ViewName::Readings];
    let failed = test.store.apply(&views, log.batches(), at(0)).await.unwrap_err();
    assert!(matches!(failed, ViewError::Apply { view: ViewName::Readings, .. }), "{failed}");
    assert!(!failed.is_retriable());
    assert_eq!(test.store.positions(ViewName::Readings), positions);
    assert_eq!(test.store.positions(ViewName::Sensors), positions);
    assert_eq!(test.ask(|q| q.sensors(&SensorFilter::default(), at(9))).await.total, 1);
    assert_eq!(test.ask(|q| q.reading_rows(&every_reading())).await.readings.len(), 1);
    let stats = test.store.stats();
    assert_eq!(stats[&ViewName::Readings].errors, 1);
    assert!(stats[&ViewName::Readings].last_error.as_deref().unwrap().contains("on fire"));

    outside.execute_batch("DROP TRIGGER broken").unwrap();
    test.store.apply(&views, log.batches(), at(0)).await.unwrap();
    let page = test.ask(|q| q.sensors(&SensorFilter::default(), at(9))).await;
    let names: Vec<&str> = page.sensors.iter().map(|s| s.sensor_id.as_str()).collect();
    assert_eq!(names, ["temp-0", "temp-1", "temp-2", "temp-3"]);
    assert_eq!(test.ask(|q| q.reading_rows(&every_reading())).await.readings.len(), 4);
    assert_eq!(test.store.stats()[&ViewName::Readings].last_error, None);
}

#[tokio::test]
async fn a_busy_file_is_a_retriable_error_and_the_writer_lives_on() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading("temp-1", 0, 1.0);
    let outside = test.outside();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = test.store.apply(&[ViewName::Readings], log.batches(), at(0)).await.unwrap_err();
    assert!(matches!(failed, ViewError::Transaction { step: "begin", .. }), "{failed}");
    assert!(failed.is_retriable());
    outside.execute_batch("ROLLBACK").unwrap();
    test.store.apply(&[ViewName::Readings], log.batches(), at(0)).await.unwrap();
    assert_eq!(test.store.stats()[&ViewName::Readings].applied, 1);
}

#[tokio::test]
async fn records_that_cannot_be_read_are_skipped_and_counted_with_the_reason() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.append("sensor-data", 0, "{", at(0));
    log.append("sensor-data", 0, r#"{"sensor_id":"a","value":1}"#, at(0));
    log.append("sensor-data", 0, r#"{"sensor_id":"a","value":1,"timestamp":"1960-01-01T00:00:00Z"}"#, at(0));
    log.append("system-events", 0, "nonsense", at(0));
    log.append("alerts", 0, "nonsense", at(0));
    log.append("dead-letters", 0, "nonsense", at(0));
    test.apply_all(log.batches()).await;
    let stats = test.store.stats();
    let skipped = |view: ViewName| stats[&view].skipped.clone();
    let readings = BTreeMap::from([("absurd timestamp", 1), ("not a reading", 1)]);
    assert_eq!(skipped(ViewName::Readings), readings);
    assert_eq!(skipped(ViewName::Sensors), readings);
    assert_eq!(skipped(ViewName::Events), BTreeMap::from([("not an event", 2)]));
    assert_eq!(skipped(ViewName::Pipeline), BTreeMap::from([("not a dead letter", 1), ("not an event", 1)]));
    assert_eq!(stats[&ViewName::Readings].applied, 1);
    // Skipped for good: the position is behind them.
    assert_eq!(stats[&ViewName::Readings].positions[&TopicPartition::new("sensor-data", 0)], 3);
}

#[tokio::test]
async fn a_reading_without_timestamp_takes_the_time_of_its_record() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.append("sensor-data", 0, r#"{"sensor_id":"a","value":1}"#, at(77));
    test.apply_all(log.batches()).await;
    let rows = test.ask(|q| q.reading_rows(&every_reading())).await;
    assert_eq!(rows.readings[0].timestamp, at(77));
    assert_eq!(rows.readings[0].sensor_type, "unknown");
}

#[tokio::test]
async fn waiting_for_a_position_ends_when_the_view_has_passed_it() {
    let test = TestStore::new();
    let mut log = Log::new();
    let position = log.reading("temp-1", 0, 1.0);
    let waiting = {
        let (store, position) = (test.store.clone(), position.clone());
        tokio::spawn(
            async move { store.wait_for(ViewName::Readings, &position, Duration::from_secs(30)).await },
        )
    };
    test.apply_all(log.batches()).await;
    assert!(waiting.await.unwrap());
    let later = farol_event::Position { offset: position.offset + 1, ..position };
    assert!(!test.store.wait_for(ViewName::Readings, &later, Duration::from_millis(20)).await);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped_and_the_connection_still_serves() {
    let options =
        StoreOptions { readers: 1, query_time_limit: Duration::from_millis(1), ..StoreOptions::default() };
    let test = TestStore::with(options);
    let mut log = Log::new();
    for second in 0..20_000 {
        log.reading("temp-1", second, 1.0);
    }
    // In rows, where SQLite stops itself, and in blocks.
    for batch in log.small_batches(2_000).into_iter().take(3).chain(log.batches()) {
        test.apply_all(vec![batch]).await;
    }
    let asked = test.store.query(|q| q.reading_rows(&every_reading())).await.map(|rows| rows.readings.len());
    assert!(matches!(asked, Err(ViewError::TimedOut { what: "sensor_readings", .. })), "{asked:?}");
    let counted = test.store.query(|q| q.alert_counts()).await;
    assert!(counted.is_ok(), "{counted:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("views.db");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let Err(refused) = Store::open(&path, StoreOptions::default()) else { panic!("opened") };
    assert!(refused.to_string().contains("delete it"), "{refused}");
}

#[tokio::test]
async fn queries_beyond_the_queue_are_refused_and_the_waiting_ones_answered() {
    let test = TestStore::with(StoreOptions { readers: 1, ..StoreOptions::default() });
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (store, other) = (test.store.clone(), test.store.clone());
    let running = tokio::spawn(async move {
        store
            .query(move |_| {
                released.recv().unwrap();
                Ok(())
            })
            .await
    });
    // A task that has counted itself has taken its place before another one runs: there is one thread.
    let asked = Arc::new(AtomicUsize::new(0));
    let ask = |store: &Store| {
        let (store, asked) = (store.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            asked.fetch_add(1, Ordering::Relaxed);
            store.query(|q| q.alert_counts()).await
        })
    };
    let waiting: Vec<_> = (0..WAITING_QUERIES).map(|_| ask(&other)).collect();
    while asked.load(Ordering::Relaxed) < WAITING_QUERIES {
        tokio::task::yield_now().await;
    }
    let refused = test.store.query(|q| q.alert_counts()).await.unwrap_err();
    assert!(matches!(refused, ViewError::Busy { .. }) && refused.is_retriable(), "{refused}");
    release.send(()).unwrap();
    running.await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn closing_writes_the_wal_back() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading("temp-1", 0, 1.0);
    test.apply_all(log.batches()).await;
    test.ask(|q| q.alert_counts()).await;
    let wal = test.path().with_extension("db-wal");
    assert!(wal.exists());
    test.store.close().await;
    assert!(!wal.exists());
}
