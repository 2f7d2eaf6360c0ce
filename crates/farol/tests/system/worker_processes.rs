//! Workers as processes of their own: killed, restarted, without a broker, with other rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, write};
use crate::running::Running;
use crate::workers::{expected, owners};

/// A short session, so that a killed worker is missed soon.
const SETTINGS: &str = "rules.defaults = false\n[pipeline]\nworkers = 0\nsession_timeout = \"3s\"\n";

/// A worker as a process of its own.
pub fn worker(folder: &Path, brokers: &str, name: &str) -> Running {
    Running::start(folder, &["worker", "--brokers", brokers, "--consumer-id", name])
}

/// What a worker says while no broker answers, whatever it was doing.
fn away(brokers: &str) -> String {
    format!("{brokers} is away (no broker answers); trying again until it is back")
}

/// Waits until exactly these workers own the three partitions, with at least one each.
async fn shared_by(server: &Farol, workers: &[&str]) -> BTreeMap<i64, String> {
    let names: BTreeSet<&str> = workers.iter().copied().collect();
    eventually(SOON * 2, "the workers share the partitions", async || {
        let owners = owners(server).await;
        let owning: BTreeSet<&str> = owners.values().map(String::as_str).collect();
        (owners.len() == 3 && owning == names).then_some(owners)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_worker_processes_lose_and_double_no_alert() {
    const ROUNDS: usize = 4;
    const SERVICES: usize = 12;
    let folder = folder();
    let about_services = "[[rule]]\nname = \"outage\"\nselect = '{metric=\"available\"}'\nbelow = 0.5\nseverity = \"critical\"\n";
    let rules = write(folder.path(), "rules.toml", &format!("{PLAIN_RULE}{about_services}"));
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let start = |name: &str| worker(folder.path(), &server.kafka, name);
    let mut workers: Vec<(&str, Running)> = ["w1", "w2", "w3"].map(|name| (name, start(name))).into();
    shared_by(&server, &["w1", "w2", "w3"]).await;

    let mut load = farol(folder.path())
        .args(["load", "--readings", "60000", "--rate", "1000", "--batch", "10", "--connections", "2"])
        .args(["--sensors", "20", "--alerts-fraction", "0.3", "--url", &server.address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tell = async |event_type: &str, round: usize| {
        let event = |service: usize| {
            json!({"specversion": "1.0", "id": format!("{event_type}-{round}"), "type": event_type,
                "source": format!("service-{service}"), "data": {}})
        };
        let events: Vec<Value> = (0..SERVICES).map(event).collect();
        let answer = server.post("/api/events", &json!(events)).await;
        assert_eq!(answer.body["accepted"], SERVICES, "{}", answer.body);
    };
    for round in 0..ROUNDS {
        let (name, killed) = workers.remove(round % 2);
        tell("sistema_indisponivel", round).await;
        killed.kill();
        tell("sistema_indisponivel", round).await;
        let left: Vec<&str> = workers.iter().map(|(name, _)| *name).collect();
        shared_by(&server, &left).await;
        workers.push((name, start(name)));
        tell("sistema_recuperado", round).await;
        shared_by(&server, &["w1", "w2", "w3"]).await;
    }
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
    let fired = server.pages("/api/events?limit=1000&type=alerta_gerado", "events").await;
    let hot = fired.iter().filter(|event| event["data"]["alert"]["rule"] == "hot").count();
    assert_eq!(hot, alerts.len(), "each fired once");
    let expected = expected(&server).await;
    assert!(expected.len() > 100, "{} alerts are few", expected.len());
    assert_eq!(began, expected);
    let outages = eventually(SOON * 2, "every outage has ended", async || {
        let outages = server.alerts("rule=outage").await;
        let ended = outages.iter().filter(|outage| outage["status"] == "resolved").count();
        (ended >= SERVICES * ROUNDS).then_some(outages)
    })
    .await;
    assert_eq!(outages.len(), SERVICES * ROUNDS, "one alert for each outage");
    for (name, running) in workers {
        let (status, printed) = running.interrupt().await;
        assert!(status.success() && printed.contains("left the group"), "{name}: {printed}");
    }
}

/// A rule that remembers: it waits ten minutes before it fires, and a value between its thresholds changes nothing.
const PATIENT_RULE: &str = "[[rule]]\nname = \"patient\"\nselect = '{sensor_type=\"temperature\"}'\nabove = 40\nclear = 30\nfor = \"10m\"\n";

async fn reading(server: &Farol, minute: u32, value: f64) {
    let reading = json!({
        "sensor_id": "t-1", "sensor_type": "temperature", "value": value,
        "timestamp": format!("2026-01-01T00:{minute:02}:00Z"),
    });
    let answer = server.post("/api/readings", &reading).await;
    assert_eq!(answer.body["accepted"], 1, "{}", answer.body);
}

async fn history(server: &Farol) -> Vec<(String, String)> {
    server.caught_up().await;
    let alerts = server.alerts("rule=patient").await;
    let part = |alert: &Value, name: &str| alert[name].as_str().unwrap_or_default().to_owned();
    alerts.iter().map(|alert| (part(alert, "status"), part(alert, "began_at"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rule_remembers_moves_with_the_partition() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PATIENT_RULE);
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let mut owner = worker(folder.path(), &server.kafka, "a");
    shared_by(&server, &["a"]).await;
    // Each step in the hands of a worker that has seen none of the steps before.
    let steps: [(u32, f64, &[&str]); 6] = [
        (0, 45.0, &["pending"]),
        (6, 46.0, &["pending"]),
        (11, 47.0, &["firing"]),
        (12, 35.0, &["firing"]),
        (13, 29.0, &["resolved"]),
        (14, 35.0, &["resolved"]),
    ];
    for (step, (minute, value, statuses)) in steps.into_iter().enumerate() {
        reading(&server, minute, value).await;
        let history = history(&server).await;
        let seen: Vec<&str> = history.iter().map(|(status, _)| status.as_str()).collect();
        assert_eq!(seen, statuses, "after minute {minute}");
        assert!(history.iter().all(|(_, began)| began.starts_with("2026-01-01T00:00:00")), "{history:?}");
        owner.kill();
        let name = if step % 2 == 0 { "b" } else { "a" };
        owner = worker(folder.path(), &server.kafka, name);
        shared_by(&server, &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_evaluate_the_rules_that_are_shown_and_follow_their_changes() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let elsewhere = crate::farol::folder();
    let running = worker(elsewhere.path(), &server.kafka, "w");
    running.says("rules: 1, as `farol run` publishes them").await;
    shared_by(&server, &["w"]).await;
    server.temperature("t-1", 35.0).await;
    server.caught_up().await;
    assert!(server.alerts("rule=hot").await.is_empty());
    write(folder.path(), "rules.toml", &PLAIN_RULE.replace("above = 40", "above = 30"));
    server.signal(rustix::process::Signal::HUP);
    running.says("evaluates other rules from now on: 1 in force").await;
    server.temperature("t-1", 36.0).await;
    server.caught_up().await;
    assert_eq!(server.alerts("rule=hot").await.len(), 1);

    // A worker with rules of its own says that they are others.
    let own = write(elsewhere.path(), "own.toml", PLAIN_RULE);
    let odd = Running::start(
        elsewhere.path(),
        &["worker", "--brokers", &server.kafka, "--rules", own.to_str().unwrap()],
    );
    odd.says("evaluates other rules than `farol run` publishes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_waits_for_its_broker_says_so_once_and_comes_back() {
    let folder = folder();
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &[]).await;
    let (kafka, port) = (server.kafka.clone(), server.kafka.clone());
    let running = worker(folder.path(), &kafka, "w");
    shared_by(&server, &["w"]).await;
    running.says("gained sensor-data/0, sensor-data/1, sensor-data/2 (now 3)").await;
    server.kill();
    running.says(&away(&kafka)).await;
    let server = Farol::start(folder.path(), &["--kafka-listen", &port]).await;
    shared_by(&server, &["w"]).await;
    server.temperature("t-1", 20.0).await;
    server.caught_up().await;
    server.kill();
    let (status, printed) = running.interrupt().await;
    assert!(status.success(), "{printed}");
    assert_eq!(
        printed.lines().filter(|line| line.contains("was stopped before it could go on")).count(),
        1,
        "{printed}"
    );

    let mut early = worker(folder.path(), &kafka, "early");
    early.says(&away(&kafka)).await;
    early.signal(rustix::process::Signal::TERM);
    assert!(early.ended().await.success(), "{}", early.complained());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_away_too_and_whatever_waits_for_it_says_so_in_the_same_words() {
    let folder = folder();
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &[]).await;
    let running = worker(folder.path(), &server.kafka, "w");
    shared_by(&server, &["w"]).await;
    // Its connections stay open, so that nothing but the missing answers tells.
    server.signal(rustix::process::Signal::STOP);
    running.says(&away(&server.kafka)).await;
    server.signal(rustix::process::Signal::CONT);
    shared_by(&server, &["w"]).await;
    server.temperature("t-1", 20.0).await;
    server.caught_up().await;
    let (status, printed) = running.interrupt().await;
    assert!(status.success(), "{printed}");
    assert_eq!(printed.matches(" is away ").count(), 1, "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_of_one_name_are_told_apart_by_a_message() {
    let folder = folder();
    write(folder.path(), "farol.toml", SETTINGS);
    let server = Farol::start(folder.path(), &[]).await;
    let mut workers = [0, 1].map(|_| worker(folder.path(), &server.kafka, "twin"));
    eventually(Duration::from_secs(90), "one of them gives up", async || {
        // Idle ones don't get in each other's way.
        for sensor in 0..6 {
            server.temperature(&format!("t-{sensor}"), 20.0).await;
        }
        let said = "another worker of the group is called `twin`";
        workers.iter().any(|worker| worker.complained().contains(said)).then_some(())
    })
    .await;
    let gave_up = workers.iter_mut().find(|worker| worker.complained().contains("another worker")).unwrap();
    assert_eq!(gave_up.ended().await.code(), Some(1));
}
