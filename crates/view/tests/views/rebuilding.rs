//! What a view holds depends on the log alone.

use farol_event::{Event, EventType, Severity};
use farol_view::query::alerts::AlertFilter;
use farol_view::query::events::EventFilter;
use farol_view::query::metrics::PointFilter;
use farol_view::query::policies::PolicyFilter;
use farol_view::query::readings::ReadingFilter;
use farol_view::query::sensors::SensorFilter;
use farol_view::query::services::ServiceFilter;
use farol_view::{Queries, Store, StoreOptions, ViewError, ViewName};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{AlertLife, Log, TestStore, at};

/// Every answer of every query that shows a view's content, as the bytes that a client would get.
fn everything(q: &Queries<'_>) -> Result<String, ViewError> {
    let now = at(500);
    let json = |value: Result<Value, serde_json::Error>| value.unwrap();
    let mut answers = Vec::new();
    let sensors = q.sensors(&SensorFilter::default(), now)?;
    for sensor in &sensors.sensors {
        let filter = ReadingFilter { sensor_id: Some(sensor.sensor_id.clone()), ..Default::default() };
        answers.push(json(serde_json::to_value(q.reading_rows(&filter)?)));
        answers.push(json(serde_json::to_value(q.reading_columns(&filter)?)));
        let filter = ReadingFilter { max_points: Some(4), ..filter };
        answers.push(json(serde_json::to_value(q.reading_columns(&filter)?)));
    }
    answers.push(json(serde_json::to_value(sensors)));
    answers.push(json(serde_json::to_value(q.sensor_counts(now)?)));
    answers.push(json(serde_json::to_value(q.reading_rows(&ReadingFilter::default())?)));
    let alerts = q.alerts(&AlertFilter::default())?;
    for alert in &alerts.alerts {
        answers.push(json(serde_json::to_value(q.alert_detail(alert.id)?)));
    }
    answers.push(json(serde_json::to_value(alerts)));
    answers
        .push(json(serde_json::to_value(q.alerts(&AlertFilter { at: Some(at(20)), ..Default::default() })?)));
    answers.push(json(serde_json::to_value(q.alert_counts()?)));
    answers.push(json(serde_json::to_value(q.events(&EventFilter::default())?)));
    answers.push(json(serde_json::to_value(q.consumers(now)?)));
    answers.push(json(serde_json::to_value(q.producers(now)?)));
    answers.push(json(serde_json::to_value(q.newest_rebalances(50)?)));
    answers.push(json(serde_json::to_value(q.dead_letters(None, None)?)));
    let services = q.services(&ServiceFilter::default(), now)?;
    for service in &services.services {
        answers.push(json(serde_json::to_value(q.service_detail(&service.service, now)?)));
        let filter = PointFilter { service: service.service.clone(), ..PointFilter::default() };
        answers.push(json(serde_json::to_value(q.metric_points(&filter)?)));
    }
    answers.push(json(serde_json::to_value(services)));
    answers.push(json(serde_json::to_value(q.metric("cpu_percent")?)));
    answers.push(json(serde_json::to_value(q.policies(&PolicyFilter::default(), now)?)));
    answers.push(json(serde_json::to_value(q.policy_changes(&PolicyFilter::default())?)));
    Ok(Value::from(answers).to_string())
}

/// A step of a made-up history.
#[derive(Debug, Clone)]
enum Step {
    Reading { sensor: usize, seconds: i64, value: f64, bare: bool },
    StrayReading { partition: i32, seconds: i64 },
    Alert { sensor: usize, began: i64, kind: u8 },
    Heartbeat { member: usize, seconds: i64, producer: bool },
    Membership { member: usize, seconds: i64, joined: bool },
    Service { seconds: i64 },
    Told { service: usize, kind: usize, seconds: i64, stray: Option<i32>, value: f64 },
    DeadLetter { seconds: i64 },
    Rubbish { topic: usize, bytes: Vec<u8> },
}

/// What is told of services. All but the metrics, whose data has the value of the step.
const TOLD: [EventType; 15] = [
    EventType::SERVICE_REGISTERED,
    EventType::SERVICE_REMOVED,
    EventType::SERVICE_STARTED,
    EventType::SERVICE_STOPPED,
    EventType::SERVICE_HEARTBEAT,
    EventType::SYSTEM_UNAVAILABLE,
    EventType::SYSTEM_RECOVERED,
    EventType::MAINTENANCE_STARTED,
    EventType::MAINTENANCE_ENDED,
    EventType::CHECK_CHANGED,
    EventType::BREAKER_OPENED,
    EventType::BREAKER_CLOSED,
    EventType::POLICY_MEASURED,
    EventType::SIMULATION_APPLIED,
    EventType::METRIC_COLLECTED,
];

fn told(kind: &EventType, service: &str, value: f64) -> Value {
    let to = if *kind == EventType::BREAKER_OPENED { "open" } else { "closed" };
    match kind {
        kind if *kind == EventType::METRIC_COLLECTED => {
            let name = if value < 0.0 { "cpu_percent" } else { "error_rate_percent" };
            json!({"nome": name, "valor": value / 100.0, "unidade": "%", "tags": {"n": (value as i64) % 2}})
        }
        kind if *kind == EventType::CHECK_CHANGED => {
            let to = if value < 0.0 { "down" } else { "up" };
            json!({"check": format!("c{}", (value as i64) % 2), "from": "unknown", "to": to, "critical": value < 500.0})
        }
        kind if *kind == EventType::BREAKER_OPENED || *kind == EventType::BREAKER_CLOSED => {
            json!({"caller": "web", "name": "b", "service": service, "from": "half_open", "to": to,
                "counters": {"failures": value}})
        }
        kind if *kind == EventType::POLICY_MEASURED => {
            json!({"caller": "web", "name": "b", "kind": "circuit_breaker", "service": service, "state": "open",
                "counters": {"calls": value}})
        }
        kind if *kind == EventType::SIMULATION_APPLIED => json!({"failure_rate": 0.5, "latency_ms": 3}),
        _ => json!({"version": value.to_string(), "reason": format!("because {value}")}),
    }
}

const TOPICS: [&str; 4] = ["sensor-data", "alerts", "system-events", "dead-letters"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..4, 0_i64..60, -50.0_f64..50.0, any::<bool>())
            .prop_map(|(sensor, seconds, value, bare)| Step::Reading { sensor, seconds, value, bare }),
        1 => (0..3, 0_i64..60).prop_map(|(partition, seconds)| Step::StrayReading { partition, seconds }),
        3 => (0_usize..3, 0_i64..4, 0_u8..5).prop_map(|(sensor, began, kind)| Step::Alert { sensor, began, kind }),
        2 => (0_usize..3, 0_i64..60, any::<bool>())
            .prop_map(|(member, seconds, producer)| Step::Heartbeat { member, seconds, producer }),
        1 => (0_usize..3, 0_i64..60, any::<bool>())
            .prop_map(|(member, seconds, joined)| Step::Membership { member, seconds, joined }),
        1 => (0_i64..60).prop_map(|seconds| Step::Service { seconds }),
        6 => (0_usize..3, 0_usize..TOLD.len(), 0_i64..60, proptest::option::weighted(0.2, 0..3), -1e3_f64..1e3)
            .prop_map(|(service, kind, seconds, stray, value)| Step::Told { service, kind, seconds, stray, value }),
        1 => (0_i64..60).prop_map(|seconds| Step::DeadLetter { seconds }),
        1 => (0_usize..4, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(topic, bytes)| Step::Rubbish { topic, bytes }),
    ]
}

fn history(steps: &[Step]) -> Log {
    let mut log = Log::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Reading { sensor, seconds, value, bare: true } => {
                let reading = json!({"sensor_id": format!("s{sensor}"), "value": value, "note": index});
                log.reading_json(&reading, at(*seconds));
            }
            Step::Reading { sensor, seconds, value, bare: false } => {
                log.reading(&format!("s{sensor}"), *seconds, *value);
            }
            // One sensor's readings in several partitions: senders without keys.
            Step::StrayReading { partition, seconds } => {
                let reading =
                    json!({"sensor_id": "stray", "value": index, "sensor_type": format!("t{partition}")});
                log.append("sensor-data", *partition, reading.to_string(), at(*seconds));
            }
            Step::Alert { sensor, began, kind } => {
                let life = AlertLife::new("r", &format!("s{sensor}"), Severity::Warning, *began * 10);
                let seconds = *began * 10 + i64::from(*kind);
                log.transition(&match kind {
                    0 => life.pending(seconds),
                    1 | 2 => life.fired(seconds, Vec::new()),
                    3 => life.acknowledged(seconds, "ana"),
                    _ => life.resolved(seconds),
                });
            }
            Step::Heartbeat { member, seconds, producer } => {
                let (kind, data) = if *producer {
                    (EventType::PRODUCER_HEARTBEAT, json!({"kind": "load", "records_sent": index}))
                } else {
                    (EventType::CONSUMER_HEARTBEAT, json!({"group": "g", "records_processed": index}))
                };
                log.system_event(kind, &format!("m{member}"), *seconds, &data);
            }
            Step::Membership { member, seconds, joined } => {
                let kind = if *joined { EventType::CONSUMER_JOINED } else { EventType::CONSUMER_LEFT };
                log.system_event(
                    kind,
                    &format!("m{member}"),
                    *seconds,
                    &json!({"group": "g", "generation": index}),
                );
            }
            Step::Service { seconds } => {
                log.system_event(EventType::SERVICE_STARTED, "shop", *seconds, &json!({"n": index}));
            }
            Step::Told { service, kind, seconds, stray, value } => {
                let (kind, service) = (TOLD[*kind].clone(), format!("service-{service}"));
                let data = told(&kind, &service, *value);
                match stray {
                    None => log.system_event(kind, &service, *seconds, &data),
                    // One service's events in several partitions: senders without keys.
                    Some(partition) => {
                        let event =
                            Event::new(Uuid::from_u128(index as u128), at(*seconds), kind, service, &data);
                        log.append("system-events", *partition, event.to_json(), at(*seconds))
                    }
                };
            }
            Step::DeadLetter { seconds } => {
                let letter = json!({"at": at(*seconds).to_string(), "reason": "r", "value": "v",
                    "source": {"topic": "sensor-data", "partition": 0, "offset": index}});
                log.append("dead-letters", 0, letter.to_string(), at(*seconds));
            }
            Step::Rubbish { topic, bytes } => {
                log.append(TOPICS[*topic], 0, bytes.clone(), at(0));
            }
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_same_log_gives_the_same_answers_however_it_is_grouped_or_repeated(
        steps in proptest::collection::vec(step(), 1..80),
        most in 1_usize..9,
        cleared in proptest::sample::select(ViewName::ALL.to_vec()),
    ) {
        let log = history(&steps);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let whole = TestStore::new();
            whole.apply_all(log.batches()).await;
            let expected = whole.ask(everything).await;

            let pieces = TestStore::new();
            let batches = log.small_batches(most);
            for (index, batch) in batches.iter().enumerate() {
                pieces.apply_all(vec![batch.clone()]).await;
                if index % 3 == 0 {
                    // What was applied is offered again, as after a crash between commit and answer.
                    pieces.apply_all(batches[..=index].to_vec()).await;
                }
            }
            assert_eq!(pieces.ask(everything).await, expected);

            whole.store.clear(cleared).await.unwrap();
            assert!(whole.store.positions(cleared).is_empty());
            whole.apply_all(batches).await;
            assert_eq!(whole.ask(everything).await, expected);
        });
    }

    #[test]
    fn arbitrary_records_never_harm_a_view(
        records in proptest::collection::vec((0_usize..4, proptest::option::of(record_bytes())), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let test = TestStore::new();
            let mut log = Log::new();
            let mut tombstones = 0;
            for (topic, bytes) in &records {
                match bytes {
                    Some(bytes) => { log.append(TOPICS[*topic], 1, bytes.clone(), at(0)); }
                    None => tombstones += 1,
                }
            }
            log.reading("after", 1, 1.0);
            test.apply_all(log.batches()).await;
            test.ask(everything).await;
            assert!(test.ask(|q| q.sensor("after", at(1))).await.is_some());
            let stats = test.store.stats();
            let of_readings = &stats[&ViewName::Readings];
            let offered = 1 + records.iter().filter(|(topic, bytes)| *topic == 0 && bytes.is_some()).count();
            assert_eq!(of_readings.applied + of_readings.skipped.values().sum::<u64>(), offered as u64);
            assert!(tombstones <= records.len());
        });
    }
}

/// Bytes, JSON, and JSON that is nearly what is expected.
fn record_bytes() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        "\\PC{0,12}".prop_map(|s| json!(s)),
        Just(json!({"a": [1, {}]})),
        Just(json!("2026-01-01T00:00:00Z")),
        Just(json!("1.0")),
    ];
    let names = proptest::sample::select(vec![
        "sensor_id",
        "value",
        "timestamp",
        "quality",
        "metadata",
        "location",
        "alert_level",
        "unit",
        "x",
        "position",
        "specversion",
        "id",
        "type",
        "source",
        "time",
        "data",
        "correlationid",
        "at",
        "reason",
        "consumer_id",
    ]);
    let object = proptest::collection::btree_map(names, odd.clone(), 0..8);
    let kinds: Vec<String> = EventType::KNOWN.iter().map(ToString::to_string).collect();
    let event = (proptest::sample::select(kinds), object.clone()).prop_map(|(kind, mut data)| {
        data.insert("group", json!("g"));
        json!({"specversion": "1.0", "id": "1", "source": "s", "type": kind, "data": data})
            .to_string()
            .into_bytes()
    });
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        object.prop_map(|object| json!(object).to_string().into_bytes()),
        event,
    ]
}

#[tokio::test]
async fn a_view_of_another_version_is_cleared_when_the_store_opens() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.reading("a", 0, 1.0);
    log.transition(&AlertLife::new("r", "a", Severity::Info, 0).fired(0, Vec::new()));
    test.apply_all(log.batches()).await;
    let expected = test.ask(everything).await;
    test.store.close().await;
    test.outside().execute("UPDATE view_versions SET version = 0 WHERE view = 'alerts'", []).unwrap();

    let reopened = Store::open(test.path(), StoreOptions::default()).unwrap();
    assert_eq!(reopened.cleared_at_open(), [ViewName::Alerts]);
    assert!(reopened.positions(ViewName::Alerts).is_empty());
    assert_eq!(reopened.positions(ViewName::Sensors).len(), 1);
    assert_ne!(reopened.query(everything).await.unwrap(), expected);
    reopened.apply(&ViewName::ALL, log.batches(), at(0)).await.unwrap();
    assert_eq!(reopened.query(everything).await.unwrap(), expected);
}

#[tokio::test]
async fn readings_in_bulk_give_the_same_answers_as_one_after_the_other() {
    let mut log = Log::new();
    for index in 0..15_000_i64 {
        let sensor = format!("s{}", index * 7 % 5);
        // Values that a careless parser would get wrong in the last bit, and times that come out of order.
        let value = (index as f64 * 0.1).sin() * 1e3;
        let mut reading = json!({"sensor_id": sensor, "value": value,
            "timestamp": at(index / 40 - index % 3 * 10).to_string()});
        if index % 11 == 0 {
            reading["metadata"] = json!({"n": index, "text": "a\"]}, b"});
            reading["alert_level"] = json!("warning");
        }
        if index % 13 == 0 {
            reading["quality"] = json!(0.25);
            reading["more"] = json!([1, {"x": null}]);
        }
        log.reading_json(&reading, at(index / 40));
    }
    let bulk = TestStore::new();
    bulk.apply_all(log.batches()).await;
    let pieces = TestStore::new();
    for batch in log.small_batches(1_000) {
        pieces.apply_all(vec![batch]).await;
    }
    let forms = "SELECT group_concat(DISTINCT form) FROM reading_slot";
    let form = |test: &TestStore| test.outside().query_row(forms, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!((form(&bulk), form(&pieces)), ("blocks".to_owned(), "rows".to_owned()));
    let same = bulk.ask(everything).await == pieces.ask(everything).await;
    assert!(same, "the answers differ");
    // And as people read them.
    let sql =
        "SELECT count(*), sum(value), sum(timestamp % 1000003), sum(partition * offset), count(metadata),
            count(unknown_fields), sum(quality), count(alert_level), sum(length(sensor_id))
        FROM (SELECT * FROM sensor_readings ORDER BY partition, offset)";
    let read = |test: &TestStore| {
        test.outside()
            .query_row(sql, [], |row| {
                (0..9).map(|i| row.get::<_, rusqlite::types::Value>(i)).collect::<Result<Vec<_>, _>>()
            })
            .unwrap()
    };
    assert_eq!(read(&bulk), read(&pieces));
}
