//! Queries on readings, and their retention.

use farol_view::query::readings::{ReadingColumns, ReadingFilter};
use farol_view::{Retention, ViewError, ViewName};
use serde_json::json;

use crate::support::{Log, START_S, TestStore, at};

fn of(sensor: &str) -> ReadingFilter {
    ReadingFilter { sensor_id: Some(sensor.to_owned()), ..ReadingFilter::default() }
}

async fn columns(test: &TestStore, filter: ReadingFilter) -> ReadingColumns {
    test.ask(move |q| q.reading_columns(&filter)).await
}

#[tokio::test]
async fn rows_keep_everything_the_sender_wrote() {
    let test = TestStore::new();
    let mut log = Log::new();
    let sent = json!({"sensor_id": "a", "value": 42.48, "sensor_type": "temperature", "unit": "°C", "quality": 0.5,
        "alert_level": "critical", "timestamp": at(5).to_string(),
        "location": {"factory_section": "production", "machine_id": "m-1", "zone": "z"},
        "metadata": {"reading_count": 14, "deep": [1, {"x": "\"quoted\""}]},
        "firmware": "1.2 \"beta\"", "big": 12345678901234567890_u64, "position": "taken"});
    let position = log.reading_json(&sent, at(6));
    test.apply_all(log.batches()).await;
    let rows = test.ask(|q| q.reading_rows(&ReadingFilter::default())).await;
    let mut expected = sent.clone();
    expected["position"] = serde_json::to_value(&position).unwrap();
    assert_eq!(serde_json::to_value(&rows.readings[0]).unwrap(), expected);
    assert!(!rows.truncated);
}

#[tokio::test]
async fn a_plain_reading_shows_no_empty_fields() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading_json(&json!({"sensor_id": "a", "value": 1}), at(6));
    test.apply_all(log.batches()).await;
    let rows = test.ask(|q| q.reading_rows(&ReadingFilter::default())).await;
    let shown = serde_json::to_value(&rows.readings[0]).unwrap();
    let names: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(names, ["timestamp", "sensor_id", "sensor_type", "value", "position"]);
}

#[tokio::test]
async fn the_newest_of_a_range_are_given_oldest_first() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..100 {
        log.reading("a", second, second as f64);
        log.reading("b", second, -1.0);
    }
    // One that comes late.
    log.reading("a", -10, -10.0);
    test.apply_all(log.batches()).await;

    let newest = columns(&test, ReadingFilter { limit: Some(3), ..of("a") }).await;
    assert_eq!(newest.values, [97.0, 98.0, 99.0]);
    assert_eq!(newest.timestamps_ms, [97, 98, 99].map(|s| (START_S + s) * 1000));
    assert!(newest.truncated && !newest.decimated);
    assert_eq!(newest.total, 3);

    let range = ReadingFilter { from: Some(at(-20)), to: Some(at(2)), ..of("a") };
    let ranged = columns(&test, range.clone()).await;
    assert_eq!(ranged.values, [-10.0, 0.0, 1.0, 2.0]);
    assert!(!ranged.truncated);
    let rows = test.ask(move |q| q.reading_rows(&range)).await;
    assert_eq!(rows.readings.iter().map(|r| r.value).collect::<Vec<_>>(), [-10.0, 0.0, 1.0, 2.0]);

    let of_all = ReadingFilter { sensor_id: None, limit: Some(4), ..ReadingFilter::default() };
    let rows = test.ask(move |q| q.reading_rows(&of_all)).await;
    let shown: Vec<(&str, f64)> = rows.readings.iter().map(|r| (r.sensor_id.as_str(), r.value)).collect();
    assert_eq!(shown.len(), 4);
    assert!(rows.truncated);
    assert!(rows.readings.iter().all(|r| r.timestamp >= at(98)));
}

#[tokio::test]
async fn exactly_as_many_as_the_limit_is_not_truncated() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..5 {
        log.reading("a", second, 0.0);
    }
    test.apply_all(log.batches()).await;
    assert!(!columns(&test, ReadingFilter { limit: Some(5), ..of("a") }).await.truncated);
    assert!(columns(&test, ReadingFilter { limit: Some(4), ..of("a") }).await.truncated);
}

#[tokio::test]
async fn answers_are_right_across_many_slots_and_late_readings() {
    let test = TestStore::new();
    let mut log = Log::new();
    let mut expected = Vec::new();
    // Enough for several slots, with readings of long ago among those of today in each of them.
    for index in 0..60_000_i64 {
        let (sensor, second) = if index % 100 == 0 { ("rare", index) } else { ("busy", index) };
        let second = if index % 7 == 0 { second - 1_000_000 } else { second };
        if sensor == "rare" {
            expected.push((second, index as f64));
        }
        log.reading(sensor, second, index as f64);
    }
    // Some in bulk and some not, so that there are slots of both forms.
    let views = [ViewName::Readings, ViewName::Sensors];
    let halves = log.small_batches(9_000);
    for batch in halves.iter().take(4) {
        test.store.apply(&views, vec![batch.clone()], at(0)).await.unwrap();
    }
    for batch in log.small_batches(3_000) {
        test.store.apply(&views, vec![batch], at(0)).await.unwrap();
    }
    expected.sort_unstable_by_key(|(second, _)| *second);
    let forms = "SELECT count(*) FILTER (WHERE form = 'rows'), count(*) FILTER (WHERE form = 'blocks') FROM reading_slot";
    let (rows, blocks): (i64, i64) =
        test.outside().query_row(forms, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(rows > 0 && blocks > 2, "the test means to have slots of both forms: {rows} and {blocks}");

    let newest = columns(&test, ReadingFilter { limit: Some(50), ..of("rare") }).await;
    let last_50: Vec<f64> = expected[expected.len() - 50..].iter().map(|(_, value)| *value).collect();
    assert_eq!(newest.values, last_50);
    let old = ReadingFilter { to: Some(at(-970_000)), limit: Some(100_000), ..of("rare") };
    let old_expected: Vec<f64> = expected.iter().filter(|e| e.0 <= -970_000).map(|e| e.1).collect();
    assert!(!old_expected.is_empty());
    assert_eq!(columns(&test, old).await.values, old_expected);
    let sensor = test.ask(|q| q.sensor("rare", at(0))).await.unwrap();
    assert_eq!(sensor.recent, last_50[18..]);

    let decimated = columns(&test, ReadingFilter { max_points: Some(400), ..of("busy") }).await;
    assert!(decimated.decimated && decimated.total == 59_400);
    assert!(decimated.values.len() <= 400 && decimated.values.contains(&59_999.0));
}

#[tokio::test]
async fn an_unknown_sensor_has_no_readings_and_senseless_filters_are_refused() {
    let test = TestStore::new();
    assert_eq!(columns(&test, of("nobody")).await, ReadingColumns::default());
    for filter in [
        ReadingFilter::default(),
        ReadingFilter { limit: Some(0), ..of("a") },
        ReadingFilter { limit: Some(100_001), ..of("a") },
        ReadingFilter { max_points: Some(1), ..of("a") },
        ReadingFilter { from: Some(at(2)), to: Some(at(1)), ..of("a") },
    ] {
        let refused = test.store.query(move |q| q.reading_columns(&filter)).await.unwrap_err();
        assert!(
            matches!(refused, ViewError::InvalidFilter { .. }) && refused.is_callers_fault(),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn pruning_deletes_what_is_older_than_the_cutoff_and_nothing_else() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..20_000 {
        log.reading(["a", "b", "c"][second as usize % 3], second, second as f64);
    }
    log.reading("a", -50, 1.0);
    // The first half in rows, the rest in blocks.
    for batch in log.small_batches(1_500).into_iter().take(3).chain(log.batches()) {
        test.apply_all(vec![batch]).await;
    }
    let pruned = test
        .store
        .prune(Retention { readings_before: Some(at(15_000)), history_before: None, ..Retention::default() })
        .await
        .unwrap();
    assert_eq!(pruned.readings, 15_001);
    let left =
        test.ask(|q| q.reading_rows(&ReadingFilter { limit: Some(100_000), ..Default::default() })).await;
    assert_eq!(left.readings.len(), 5_000);
    assert!(left.readings.iter().all(|r| r.timestamp >= at(15_000)));
    let again = test
        .store
        .prune(Retention { readings_before: Some(at(15_000)), history_before: None, ..Retention::default() })
        .await
        .unwrap();
    assert_eq!(again.total(), 0);
    let everything = test
        .store
        .prune(Retention { readings_before: Some(at(30_000)), history_before: None, ..Retention::default() })
        .await
        .unwrap();
    assert_eq!(everything.readings, 5_000);
    // And what comes after is found.
    log.reading("a", 40_000, 7.0);
    test.apply_all(log.batches()).await;
    assert_eq!(columns(&test, of("a")).await.values, [7.0]);
    let sensor = test.ask(|q| q.sensor("a", at(40_000))).await.unwrap();
    assert_eq!((sensor.readings, sensor.recent), (6_669, vec![7.0]));
}

#[tokio::test]
async fn people_read_sensor_readings_with_plain_columns() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading_json(
        &json!({"sensor_id": "a", "value": 1.5, "alert_level": "warning", "metadata": {"n": 1}, "extra": true}),
        at(6),
    );
    log.reading("b", 7, 2.5);
    test.apply_all(log.batches()).await;
    let outside = test.outside();
    let row: (i64, f64, String, String, String) = outside
        .query_row(
            "SELECT timestamp, value, alert_level, metadata, unknown_fields FROM sensor_readings WHERE sensor_id = 'a'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .unwrap();
    let expected =
        (at(6).as_micros(), 1.5, "warning".into(), r#"{"n":1}"#.into(), r#"{"extra":true}"#.into());
    assert_eq!(row, expected);
    let count: i64 = outside.query_row("SELECT count(*) FROM sensor_readings", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
}
