//! Queries on sensors.

use std::collections::BTreeSet;

use farol_event::Severity;
use farol_view::query::sensors::{SensorFilter, SensorSort, SensorState};
use farol_view::{ViewError, ViewName};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{AlertLife, Log, TestStore, at};

#[tokio::test]
async fn the_newest_reading_is_by_its_own_time() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..40 {
        log.reading("a", second, second as f64);
    }
    let late =
        json!({"sensor_id": "a", "value": -1.0, "timestamp": at(-5).to_string(), "sensor_type": "other"});
    log.reading_json(&late, at(50));
    for batch in log.small_batches(7) {
        test.apply_all(vec![batch]).await;
    }
    let sensor = test.ask(|q| q.sensor("a", at(60))).await.unwrap();
    assert_eq!((sensor.last_value, sensor.last_timestamp, sensor.last_arrival), (39.0, at(39), at(50)));
    assert_eq!((sensor.readings, sensor.first_timestamp), (41, at(-5)));
    assert_eq!(sensor.sensor_type, "temperature");
    assert_eq!(sensor.location.machine_id.as_deref(), Some("machine-of-a"));
    assert_eq!(sensor.recent, (8..40).map(f64::from).collect::<Vec<_>>());
    assert_eq!(test.ask(|q| q.sensor("b", at(60))).await, None);
}

#[tokio::test]
async fn the_state_is_the_worst_firing_alert_then_silence() {
    let test = TestStore::new();
    let mut log = Log::new();
    for sensor in ["calm", "warned", "critical", "silent", "silent-and-warned", "resolved"] {
        let second = if sensor.starts_with("silent") { 0 } else { 100 };
        log.reading(sensor, second, 1.0);
    }
    let warn = |sensor: &str| AlertLife::new("warm", sensor, Severity::Warning, 90);
    for sensor in ["warned", "critical", "silent-and-warned", "resolved"] {
        log.transition(&warn(sensor).fired(90, Vec::new()));
    }
    log.transition(&warn("resolved").resolved(95));
    log.transition(&AlertLife::new("hot", "critical", Severity::Critical, 91).fired(91, Vec::new()));
    log.transition(&AlertLife::new("soon", "calm", Severity::Error, 91).pending(91));
    test.apply_all(log.batches()).await;

    let page = test.ask(|q| q.sensors(&SensorFilter::default(), at(101))).await;
    let states: Vec<(&str, SensorState, u64)> =
        page.sensors.iter().map(|s| (s.sensor_id.as_str(), s.state, s.firing)).collect();
    let expected = [
        ("calm", SensorState::Normal, 0),
        ("critical", SensorState::Critical, 2),
        ("resolved", SensorState::Normal, 0),
        ("silent", SensorState::Stale, 0),
        ("silent-and-warned", SensorState::Warning, 1),
        ("warned", SensorState::Warning, 1),
    ];
    assert_eq!(states, expected);
    let counts = test.ask(|q| q.sensor_counts(at(101))).await;
    assert_eq!(counts.total, 6);
    let by_state = counts.by_state;
    assert_eq!((by_state.normal, by_state.stale, by_state.warning, by_state.critical), (2, 1, 2, 1));
    // The filter, the counts and the list agree for every state.
    for state in SensorState::ALL {
        let filter = SensorFilter { state: Some(state), ..SensorFilter::default() };
        let page = test.ask(move |q| q.sensors(&filter, at(101))).await;
        let expected = expected.iter().filter(|(_, s, _)| *s == state).count();
        assert_eq!((page.sensors.len(), page.total), (expected, expected as u64), "{state:?}");
    }
}

#[tokio::test]
async fn search_takes_percent_signs_and_underscores_as_they_are() {
    let test = TestStore::new();
    let mut log = Log::new();
    for sensor in ["Oven_1", "oven-2", "fan%1", "back\\slash"] {
        log.reading(sensor, 0, 1.0);
    }
    test.apply_all(log.batches()).await;
    let search = async |text: &str| {
        let filter = SensorFilter { search: Some(text.to_owned()), ..SensorFilter::default() };
        let page = test.ask(move |q| q.sensors(&filter, at(0))).await;
        page.sensors.into_iter().map(|s| s.sensor_id).collect::<Vec<_>>()
    };
    assert_eq!(search("OVEN").await, ["Oven_1", "oven-2"]);
    assert_eq!(search("n_1").await, ["Oven_1"]);
    assert_eq!(search("%").await, ["fan%1"]);
    assert_eq!(search("\\").await, ["back\\slash"]);
    assert_eq!(search("machine-of-fan").await, ["fan%1"]);
    assert_eq!(search("TEMPERATURE").await.len(), 4);
    assert_eq!(search("' OR 1=1").await.len(), 0);
}

#[tokio::test]
async fn bad_cursors_sorts_and_limits_are_the_callers_fault() {
    let test = TestStore::new();
    let mut log = Log::new();
    for sensor in ["a", "b", "c"] {
        log.reading(sensor, 0, 1.0);
    }
    test.apply_all(log.batches()).await;
    let by_value = SensorFilter { sort: "value".parse().unwrap(), limit: Some(1), ..SensorFilter::default() };
    let cursor = test.ask(move |q| q.sensors(&by_value, at(0))).await.next_cursor;
    for filter in [
        SensorFilter { cursor: Some("zz".into()), ..SensorFilter::default() },
        // Of another order.
        SensorFilter { cursor, ..SensorFilter::default() },
        SensorFilter { limit: Some(1001), ..SensorFilter::default() },
    ] {
        let refused = test.store.query(move |q| q.sensors(&filter, at(0))).await.unwrap_err();
        assert!(refused.is_callers_fault(), "{refused}");
    }
    assert!(matches!("speed".parse::<SensorSort>(), Err(ViewError::InvalidFilter { field: "sort", .. })));
    assert!(matches!("fine".parse::<SensorState>(), Err(ViewError::InvalidFilter { field: "state", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_give_every_sensor_once_in_any_order(
        sensors in proptest::collection::btree_map("[a-c%_é]{1,3}", (-3_i32..3, 0_i64..200), 1..30),
        sort in proptest::sample::select(vec![
            "id", "-id", "type", "-type", "value", "-value", "state", "-state", "last_seen", "-last_seen",
        ]),
        limit in 1_usize..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let test = TestStore::new();
            let mut log = Log::new();
            for (sensor, (value, second)) in &sensors {
                log.reading(sensor, *second, f64::from(*value));
                if *value == 2 {
                    log.transition(&AlertLife::new("r", sensor, Severity::Error, *second).fired(*second, vec![]));
                }
            }
            test.apply_all(log.batches()).await;
            let mut filter = SensorFilter { sort: sort.parse().unwrap(), limit: Some(limit), ..Default::default() };
            let mut seen = Vec::new();
            loop {
                let asked = filter.clone();
                let page = test.ask(move |q| q.sensors(&asked, at(150))).await;
                assert_eq!(page.total, sensors.len() as u64);
                seen.extend(page.sensors);
                let Some(cursor) = page.next_cursor else { break };
                filter.cursor = Some(cursor);
            }
            let ids: BTreeSet<&String> = seen.iter().map(|s| &s.sensor_id).collect();
            assert_eq!((ids.len(), seen.len()), (sensors.len(), sensors.len()));
            let keys: Vec<(i64, &str)> = seen.iter().map(|s| (match sort.trim_start_matches('-') {
                "value" => s.last_value as i64,
                "state" => s.state as i64,
                "last_seen" => s.last_arrival.as_micros(),
                _ => 0,
            }, s.sensor_id.as_str())).collect();
            let ordered = if sort.starts_with('-') { keys.is_sorted_by(|a, b| a > b) } else { keys.is_sorted_by(|a, b| a < b) };
            assert!(ordered, "{keys:?}");
        });
    }
}

#[tokio::test]
async fn clearing_sensors_leaves_readings_alone() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading("a", 0, 1.0);
    test.apply_all(log.batches()).await;
    test.store.clear(ViewName::Sensors).await.unwrap();
    assert_eq!(test.ask(|q| q.sensors(&SensorFilter::default(), at(0))).await.total, 0);
    assert_eq!(test.ask(|q| q.reading_rows(&Default::default())).await.readings.len(), 1);
    assert!(test.store.positions(ViewName::Sensors).is_empty());
    test.apply_all(log.batches()).await;
    let sensor = test.ask(|q| q.sensor("a", at(0))).await.unwrap();
    assert_eq!((sensor.readings, sensor.recent), (1, vec![1.0]));
}
