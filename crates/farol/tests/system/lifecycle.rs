//! Starting, stopping, starting again; and everything that can keep it from starting.

use std::net::TcpListener;

use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::farol::{Farol, SOON, eventually, farol, folder, output, text, write};

#[tokio::test]
async fn a_start_says_where_everything_is_and_the_printed_command_stores_a_reading() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    let printed = farol.printed();
    assert!(printed.contains(&format!("data       {}", folder.path().join("data").display())), "{printed}");
    assert!(!printed.contains("recovered"), "nothing was to be recovered\n{printed}");

    // The command runs through a shell exactly as it was printed.
    let start = printed.find("curl http").expect("a curl command is printed");
    let command: String = printed[start..].lines().take(2).collect::<Vec<_>>().join("\n");
    let sent = std::process::Command::new("sh")
        .arg("-c")
        .arg(command.replace("curl ", "curl -fsS "))
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert!(text(&sent.stdout).contains("\"accepted\":1"), "{}", text(&sent.stdout));
    eventually(SOON, "the reading is shown", async || {
        let sensors = farol.get("/api/sensors").await;
        (sensors["sensors"][0]["last_value"] == 42.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_goes_through_every_part_in_order_and_says_so() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &["--demo"]).await;
    let (status, printed) = farol.stop().await;
    assert!(status.success(), "{status:?}\n{printed}");
    let (_, farewell) = printed.split_once("SIGTERM: stopping in order").expect("it is said");
    let parts: Vec<&str> = farewell
        .lines()
        .filter_map(|line| line.split_once("  stopped in").map(|(name, _)| name.trim()))
        .collect();
    assert_eq!(
        parts,
        ["simulators", "rules watch", "HTTP", "Kafka", "farewell", "pipeline", "store", "log"],
        "{printed}"
    );
    assert!(printed.ends_with("\nstopped"), "{printed}");
    assert!(!printed.contains("is late"), "{printed}");
}

#[tokio::test]
async fn starting_again_continues_with_everything_that_was_there() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 20.0).await;
    farol.temperature("t-1", 50.0).await;
    let firing = eventually(SOON, "an alert fires", async || {
        let alerts = farol.alerts("status=firing&severity=critical").await;
        alerts.first().cloned()
    })
    .await;
    let (status, _) = farol.stop().await;
    assert!(status.success());

    let farol = Farol::start(folder.path(), &[]).await;
    assert!(!farol.printed().contains("recovered"), "it was stopped in order\n{}", farol.printed());
    farol.views_caught_up().await;
    let readings = farol.get("/api/readings?sensor_id=t-1").await;
    let values: Vec<_> =
        readings["readings"].as_array().unwrap().iter().map(|reading| reading["value"].clone()).collect();
    assert_eq!(values, [json!(20.0), json!(50.0)]);
    let again = farol.alerts("status=firing&severity=critical").await;
    assert_eq!(again, std::slice::from_ref(&firing));

    // The alert that fired before ends now, and no second one begins: the detector's state was kept too.
    farol.temperature("t-1", 51.0).await;
    farol.caught_up().await;
    let alerts = farol.alerts("severity=critical").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["id"], firing["id"]);
}

#[tokio::test]
async fn a_killed_farol_starts_again_and_says_what_it_recovered() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 20.0).await;
    farol.kill();
    let farol = Farol::start(folder.path(), &[]).await;
    assert!(farol.printed().contains("recovered  not stopped in order before"), "{}", farol.printed());
    farol.views_caught_up().await;
    let readings = farol.get("/api/readings?sensor_id=t-1").await;
    assert_eq!(readings["readings"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_demo_shows_readings_of_all_types_and_its_first_alert_by_itself() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &["--demo"]).await;
    assert!(farol.printed().contains("simulated sensors are sending"), "{}", farol.printed());
    eventually(SOON, "readings of five types", async || {
        let sensors = farol.get("/api/sensors").await;
        let types: std::collections::BTreeSet<_> = sensors["sensors"]
            .as_array()?
            .iter()
            .filter_map(|sensor| sensor["sensor_type"].as_str())
            .collect();
        (types.len() == 5).then_some(())
    })
    .await;
    eventually(SOON * 2, "a first alert", async || farol.alerts("").await.first().cloned()).await;
    let producers = farol.get("/api/producer-health").await;
    assert_eq!(producers["producers"][0]["kind"], "simulator", "{producers}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_its_owner_is_not_disturbed() {
    let folder = folder();
    let first = Farol::start(folder.path(), &[]).await;
    let second = output(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0", "--data", "data"]));
    assert_eq!(second.status.code(), Some(1));
    let error = text(&second.stderr);
    assert!(
        error.contains("in use by another process") && error.contains("stop the other Farol first"),
        "{error}"
    );
    first.temperature("t-1", 1.0).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_a_way_out() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = output(farol(folder.path()).args(["run", "--listen", &address]));
    assert_eq!(run.status.code(), Some(1));
    let error = text(&run.stderr);
    assert!(
        error.contains(&format!("{address} is in use by another program")) && error.contains("--listen"),
        "{error}"
    );
    let run =
        output(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0", "--kafka-listen", &address]));
    assert_eq!(run.status.code(), Some(1));
    let error = text(&run.stderr);
    assert!(
        error.contains(&format!("{address} is in use by another program"))
            && error.contains("--kafka-listen"),
        "{error}"
    );
    // What had started was stopped in order, so the next start has nothing to recover.
    let again = Farol::spawn(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0"])).await;
    assert!(!again.printed().contains("recovered"), "{}", again.printed());
}

#[test]
fn a_data_folder_that_cannot_be_one_is_refused_with_a_way_out() {
    let folder = folder();
    let file = write(folder.path(), "file", "");
    for path in [file.clone(), file.join("below")] {
        let run = output(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(&path));
        assert_eq!(run.status.code(), Some(1));
        let error = text(&run.stderr);
        assert!(error.contains("data folder") && error.contains("a file is in the way"), "{error}");
    }
}

#[tokio::test]
async fn a_reading_that_is_refused_says_why_and_harms_nothing() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    for wrong in [
        json!({ "value": 1 }),
        json!({ "sensor_id": "a" }),
        json!({ "sensor_id": "a", "value": "hot" }),
        json!({ "sensor_id": "a", "value": 1, "quality": 2 }),
        json!({ "sensor_id": "a", "value": 1, "timestamp": "yesterday" }),
        json!("a reading"),
    ] {
        let answer = farol.post("/api/readings", &wrong).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}: {}", answer.body);
    }
    let garbage =
        farol.request(hyper::Method::POST, "/api/readings", "application/json", &b"\xff\x00{"[..]).await;
    assert_eq!(garbage.status, StatusCode::BAD_REQUEST);
    farol.temperature("a", 1.0).await;
    farol.views_caught_up().await;
    assert_eq!(farol.get("/api/readings?sensor_id=a").await["readings"].as_array().unwrap().len(), 1);
    assert_eq!(farol.get("/api/dead-letters").await["total"], 0);
}

#[tokio::test]
async fn metrics_tell_of_log_topics_groups_and_views() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 20.0).await;
    farol.caught_up().await;
    let metrics = farol.text("/metrics").await;
    for line in [
        "farol_topic_records{topic=\"sensor-data\"} 1",
        "farol_view_lag_records{view=\"readings\"} 0",
        "farol_view_applied_records_total{view=\"sensors\"} 1",
        "farol_group_lag_records{group=\"sensor-processors\"",
        "farol_log_sync_seconds_count",
        "farol_log_refuses 0",
    ] {
        assert!(metrics.contains(line), "missing: {line}\nin: {metrics}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_nothing_acknowledged_is_lost() {
    let folder = folder();
    let mut farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 20.0).await;
    farol.signal(Signal::INT);
    farol.signal(Signal::INT);
    let status = farol.ended().await;
    // The first stop may have been quicker than the second signal.
    assert!(matches!(status.code(), Some(0 | 130)), "{status:?}");
    let farol = Farol::start(folder.path(), &[]).await;
    farol.views_caught_up().await;
    assert_eq!(farol.get("/api/readings?sensor_id=t-1").await["readings"].as_array().unwrap().len(), 1);
}
