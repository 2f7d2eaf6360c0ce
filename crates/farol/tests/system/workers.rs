//! Workers that stop and start under load: their partitions move, and no alert is lost or raised twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, write};

/// How far the workers are in each partition of the readings.
pub async fn progress(server: &Farol) -> Vec<Value> {
    let groups = server.get("/api/partition-assignment").await;
    let groups = groups["groups"].as_array().unwrap();
    let group = groups.iter().find(|group| group["group"] == "sensor-processors");
    let mut partitions: Vec<Value> =
        group.and_then(|group| group["partitions"].as_array().cloned()).unwrap_or_default();
    partitions.retain(|partition| partition["topic"] == "sensor-data");
    partitions
}

/// Who owns which partition of the readings.
pub async fn owners(server: &Farol) -> BTreeMap<i64, String> {
    let owner = |each: &Value| Some((each["partition"].as_i64()?, each["owner"].as_str()?.to_owned()));
    progress(server).await.iter().filter_map(owner).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_hands_its_partitions_over_without_losing_or_doubling_an_alert() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", "rules.defaults = false\n");
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    eventually(SOON, "three workers own three partitions", async || {
        let owners = owners(&server).await;
        (owners.values().collect::<BTreeSet<_>>().len() == 3).then_some(())
    })
    .await;

    let mut load = farol(folder.path())
        .args([
            "load",
            "--readings",
            "20000",
            "--rate",
            "4000",
            "--batch",
            "20",
            "--connections",
            "2",
            "--sensors",
            "20",
        ])
        .args(["--alerts-fraction", "0.3", "--url", &server.address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for worker in ["worker-2", "worker-1"] {
        let stopped = server.post(&format!("/api/workers/{worker}/stop"), &json!({})).await;
        assert_eq!(stopped.status, StatusCode::ACCEPTED, "{}", stopped.body);
        eventually(SOON, "its partitions have moved", async || {
            let owners = owners(&server).await;
            (owners.len() == 3 && owners.values().all(|owner| owner != worker)).then_some(())
        })
        .await;
    }
    let started = server.post("/api/workers/worker-2/start", &json!({})).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.body);
    eventually(SOON, "it owns partitions again", async || {
        owners(&server).await.values().any(|owner| owner == "worker-2").then_some(())
    })
    .await;
    assert!(load.wait().unwrap().success());
    server.caught_up().await;

    let alerts = server.alerts("rule=hot").await;
    let began: BTreeSet<(String, String)> = alerts
        .iter()
        .map(|alert| {
            (alert["series"].as_str().unwrap().to_owned(), alert["began_at"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(began.len(), alerts.len(), "no alert is there twice");
    let events = server.pages("/api/events?limit=1000&type=alerta_gerado", "events").await;
    assert_eq!(events.len(), alerts.len(), "each fired once");
    assert_eq!(began, expected(&server).await);

    let rebalances = server.get("/api/partition-assignment").await;
    assert!(rebalances["rebalances"].as_array().unwrap().len() >= 3, "{}", rebalances["rebalances"]);
    let unknown = server.post("/api/workers/worker-9/stop", &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.body);
}

/// Where the stored temperatures rise above 40: sensor and time.
pub async fn expected(server: &Farol) -> BTreeSet<(String, String)> {
    let mut expected = BTreeSet::new();
    for sensor in server.pages("/api/sensors?limit=1000&type=temperature", "sensors").await {
        let id = sensor["sensor_id"].as_str().unwrap();
        let readings = server.get(&format!("/api/readings?sensor_id={id}&limit=100000")).await;
        let mut readings = readings["readings"].as_array().unwrap().clone();
        readings.sort_by_key(|reading| reading["position"]["offset"].as_i64());
        let mut above = false;
        for reading in readings {
            let now_above = reading["value"].as_f64().unwrap() > 40.0;
            if now_above && !above {
                expected.insert((id.to_owned(), reading["timestamp"].as_str().unwrap().to_owned()));
            }
            above = now_above;
        }
    }
    assert!(!expected.is_empty(), "there were excursions to find");
    expected
}
