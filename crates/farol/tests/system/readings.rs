//! From a reading to an alert, its acknowledgement and its end; recorded series; the commands that send.

use std::fmt::Write as _;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, output, text, write};

#[tokio::test]
async fn a_reading_above_the_threshold_fires_an_alert_that_can_be_acknowledged_and_resolves() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    let farol = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    farol.temperature("t-1", 41.0).await;
    let alert = eventually(SOON, "the alert fires", async || {
        farol.alerts("status=firing&rule=hot").await.first().cloned()
    })
    .await;
    let path = format!("/api/alerts/{}", alert["id"].as_str().unwrap());

    let acknowledged =
        farol.post(&format!("{path}/acknowledge"), &json!({ "by": "ana", "comment": "on my way" })).await;
    assert_eq!(acknowledged.status, StatusCode::OK, "{}", acknowledged.body);
    let again = farol.post(&format!("{path}/acknowledge"), &json!({ "by": "bia" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.body);

    farol.temperature("t-1", 30.0).await;
    eventually(SOON, "the alert resolves", async || {
        farol.alerts("status=resolved&rule=hot").await.first().cloned()
    })
    .await;
    let detail = farol.get(&path).await;
    let kinds: Vec<&str> =
        detail["transitions"].as_array().unwrap().iter().filter_map(|t| t["kind"].as_str()).collect();
    assert_eq!(kinds, ["fired", "acknowledged", "resolved"], "{detail}");
    assert_eq!(detail["evidence_readings"][0]["reading"]["value"], 41.0, "{detail}");
}

#[tokio::test]
async fn a_recorded_series_is_replayed_with_its_own_times_and_raises_the_alert_of_its_fault() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    // A day at one reading a minute, with a fault of an hour around noon.
    let mut csv = String::from("timestamp,value\n");
    for minute in 0..1440 {
        let value = if (700..760).contains(&minute) { 55.0 } else { 20.0 + f64::from(minute % 60) / 10.0 };
        writeln!(csv, "2014-03-01 {:02}:{:02}:00,{value}", minute / 60, minute % 60).unwrap();
    }
    let file = write(folder.path(), "series.csv", &csv);
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let replay = output(
        farol(folder.path())
            .args(["replay", "--sensor-id", "m-1", "--sensor-type", "temperature", "--url", &server.address])
            .arg(&file),
    );
    assert!(replay.status.success(), "{}", text(&replay.stderr));
    assert!(text(&replay.stdout).contains("1,440 accepted"), "{}", text(&replay.stdout));

    server.caught_up().await;
    let alerts = server.alerts("rule=hot").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["status"], "resolved");
    let chart = server.get("/api/readings?sensor_id=m-1&format=columns&limit=100000&from=2014-03-01T00:00:00Z&to=2014-03-02T00:00:00Z").await;
    assert_eq!(chart["values"].as_array().unwrap().len(), 1440);
    let fault = server
        .get("/api/readings?sensor_id=m-1&from=2014-03-01T11:40:00Z&to=2014-03-01T12:39:30Z&limit=1000")
        .await;
    let values = fault["readings"].as_array().unwrap();
    assert_eq!(values.len(), 60);
    assert!(values.iter().all(|reading| reading["value"] == 55.0));
}

#[tokio::test]
async fn load_reports_what_the_server_stored_and_simulate_uses_the_founding_variables() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let load = output(farol(folder.path()).args([
        "load",
        "--readings",
        "5000",
        "--batch",
        "100",
        "--connections",
        "2",
        "--sensors",
        "50",
        "--json",
        "--url",
        &server.address,
    ]));
    assert!(load.status.success(), "{}", text(&load.stderr));
    let report: serde_json::Value = serde_json::from_slice(&load.stdout).unwrap();
    assert_eq!(report["accepted"], 5000, "{report}");
    assert_eq!(report["server"]["stored"], 5000, "{report}");

    let simulate =
        output(farol(folder.path()).args(["simulate", "--duration", "1s", "--url", &server.address]).envs([
            ("SENSOR_ID", "vib-7"),
            ("SENSOR_TYPE", "vibration"),
            ("SAMPLING_INTERVAL", "0.2"),
            ("MACHINE_ID", "press-3"),
        ]));
    assert!(simulate.status.success(), "{}", text(&simulate.stderr));
    server.views_caught_up().await;
    let sensor = server.get("/api/sensors/vib-7").await;
    assert_eq!(sensor["sensor_type"], "vibration", "{sensor}");
    assert_eq!(sensor["location"]["machine_id"], "press-3", "{sensor}");
}

#[tokio::test]
async fn with_a_token_nobody_comes_in_without_it() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut command = farol(folder.path());
    command
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .env("FAROL_HTTP_TOKEN", "correct-horse-battery");
    let server = Farol::spawn(&mut command).await;
    let refused = server.request(Method::GET, "/api/sensors", "application/json", "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let load = |token: Option<&str>| {
        let mut command = farol(folder.path());
        command.args([
            "load",
            "--readings",
            "10",
            "--batch",
            "10",
            "--connections",
            "1",
            "--json",
            "--url",
            &server.address,
        ]);
        command.envs(token.map(|token| ("FAROL_HTTP_TOKEN", token)));
        output(&mut command)
    };
    assert!(!load(None).status.success());
    let report: serde_json::Value =
        serde_json::from_slice(&load(Some("correct-horse-battery")).stdout).unwrap();
    assert_eq!(report["accepted"], 10, "{report}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = folder();
    let file = write(folder.path(), "series.csv", "timestamp,value\n2014-03-01 00:00:00,1\n");
    let load = output(farol(folder.path()).args(["load", "--readings", "1", "--url", "http://127.0.0.1:9"]));
    assert_eq!(load.status.code(), Some(1));
    assert!(text(&load.stderr).contains("127.0.0.1:9"), "{}", text(&load.stderr));
    let replay = output(
        farol(folder.path())
            .args(["replay", "--sensor-id", "a", "--sensor-type", "temperature", "--url", "nowhere"])
            .arg(file),
    );
    assert_eq!(replay.status.code(), Some(1));
    assert!(text(&replay.stderr).contains("`nowhere` is not a server address"), "{}", text(&replay.stderr));
}
