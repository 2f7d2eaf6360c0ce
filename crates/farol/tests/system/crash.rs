//! `kill -9` in a loop while `farol load` writes: what was acknowledged is stored once, and every alert is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use farol_event::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, write};

const ROUNDS: usize = 12;
const SENSORS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_under_load_everything_acknowledged_is_stored_once_and_alerts_are_neither_lost_nor_doubled()
 {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", "rules.defaults = false\n");
    let arguments = ["--rules", rules.to_str().unwrap()];

    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let server = Farol::start(folder.path(), &arguments).await;
        let file = folder.path().join(format!("acknowledged-{round}.csv"));
        let mut load = start_load(folder.path(), &server.address, &file);
        eventually(SOON, "the load has begun", async || file.exists().then_some(())).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
        server.kill();
        load.wait().expect("load was started");
        read_acknowledged(&file, &mut acknowledged);
    }
    assert!(acknowledged.len() > ROUNDS * 100, "the load did get through: {}", acknowledged.len());

    let server = Farol::start(folder.path(), &arguments).await;
    server.caught_up().await;
    let stored = stored_readings(&server).await;
    let mut times = BTreeMap::<(String, i64), u32>::new();
    for (sensor, readings) in &stored {
        for reading in readings {
            *times.entry((sensor.clone(), reading.micros)).or_default() += 1;
        }
    }
    let missing: Vec<_> =
        acknowledged.iter().filter(|reading| !times.contains_key(*reading)).take(5).collect();
    assert!(missing.is_empty(), "acknowledged and not stored, for example: {missing:?}");
    let doubled: Vec<_> = times.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(doubled.is_empty(), "stored more than once, for example: {doubled:?}");

    compare_alerts(&server, &stored).await;
}

/// What the rule `above = 40` makes of the readings as they are stored, worked out here from nothing but the readings.
async fn compare_alerts(server: &Farol, stored: &BTreeMap<String, Vec<Stored>>) {
    let mut expected = BTreeSet::new();
    for (sensor, readings) in
        stored.iter().filter(|(_, readings)| readings.iter().any(|reading| reading.temperature))
    {
        let mut above = false;
        for reading in readings {
            let now_above = reading.value > 40.0;
            if now_above && !above {
                expected.insert((sensor.clone(), reading.micros));
            }
            above = now_above;
        }
    }
    assert!(expected.len() > ROUNDS, "there were excursions to find: {}", expected.len());
    let alerts = server.alerts("rule=hot").await;
    let found: BTreeSet<(String, i64)> = alerts.iter().map(began).collect();
    assert_eq!(found.len(), alerts.len(), "no alert is there twice");
    assert_eq!(found, expected);

    // Not only as the view shows them: the topic has each transition once.
    for kind in ["alerta_gerado", "alerta_resolvido"] {
        let events = server.pages(&format!("/api/events?limit=1000&type={kind}"), "events").await;
        let ids: BTreeSet<String> =
            events.iter().map(|event| event["data"]["alert"]["id"].to_string()).collect();
        assert!(!ids.contains("null"), "{}", events[0]);
        assert_eq!(ids.len(), events.len(), "{kind} is there once for each alert");
        let resolved =
            alerts.iter().filter(|alert| kind == "alerta_gerado" || alert["status"] == "resolved").count();
        assert_eq!(events.len(), resolved, "{kind}");
    }
}

fn began(alert: &Value) -> (String, i64) {
    let sensor = alert["series"].as_str().unwrap_or_else(|| panic!("{alert}"));
    (sensor.to_owned(), micros(&alert["began_at"]))
}

fn micros(timestamp: &Value) -> i64 {
    let timestamp: Timestamp =
        timestamp.as_str().unwrap_or_else(|| panic!("{timestamp} is no time")).parse().unwrap();
    timestamp.as_micros()
}

struct Stored {
    micros: i64,
    value: f64,
    temperature: bool,
}

/// All readings, per sensor, in the order of the log.
async fn stored_readings(server: &Farol) -> BTreeMap<String, Vec<Stored>> {
    let mut stored = BTreeMap::new();
    for sensor in server.pages("/api/sensors?limit=1000", "sensors").await {
        let id = sensor["sensor_id"].as_str().unwrap();
        let answer = server.get(&format!("/api/readings?sensor_id={id}&limit=100000")).await;
        assert_eq!(answer["truncated"], false, "the test writes more than it can read back");
        let mut readings: Vec<(i64, Stored)> =
            answer["readings"].as_array().unwrap().iter().map(stored_reading).collect();
        readings.sort_by_key(|(offset, _)| *offset);
        stored.insert(id.to_owned(), readings.into_iter().map(|(_, reading)| reading).collect());
    }
    stored
}

fn stored_reading(reading: &Value) -> (i64, Stored) {
    let temperature = reading["sensor_type"] == "temperature";
    let stored = Stored {
        micros: micros(&reading["timestamp"]),
        value: reading["value"].as_f64().unwrap(),
        temperature,
    };
    (reading["position"]["offset"].as_i64().unwrap(), stored)
}

/// Sends batches with many excursions until the server is gone for good. Its sensors stay the same from round to round.
fn start_load(folder: &Path, address: &str, file: &Path) -> Child {
    let sensors = SENSORS.to_string();
    farol(folder)
        .args([
            "load",
            "--duration",
            "20s",
            "--rate",
            "4000",
            "--batch",
            "20",
            "--connections",
            "3",
            "--alerts-fraction",
            "0.3",
        ])
        .args(["--sensors", &sensors, "--url", address, "--acknowledged"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("farol can be run")
}

fn read_acknowledged(file: &Path, acknowledged: &mut BTreeSet<(String, i64)>) {
    for line in std::fs::read_to_string(file).expect("load wrote its file").lines() {
        let mut fields = line.split(',').skip(1);
        let (Some(sensor), Some(Ok(micros))) = (fields.next(), fields.next().map(str::parse)) else {
            continue;
        };
        acknowledged.insert((sensor.to_owned(), micros));
    }
}
