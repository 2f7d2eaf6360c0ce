//! Views that are dropped and built again from the log.

use serde_json::Value;

use crate::farol::{Farol, farol, folder, output, text};

/// Everything that the API tells and that doesn't depend on the time of asking.
async fn content(farol: &Farol) -> Vec<Value> {
    let mut content = Vec::new();
    let mut sensors = farol.pages("/api/sensors?limit=1000", "sensors").await;
    for sensor in &mut sensors {
        // Whether a sensor is stale depends on the time of asking.
        sensor.as_object_mut().unwrap().remove("state");
    }
    content.extend(sensors);
    content.extend(farol.pages("/api/readings?limit=100000", "readings").await);
    let alerts = farol.alerts("").await;
    for alert in &alerts {
        content.push(farol.get(&format!("/api/alerts/{}", alert["id"].as_str().unwrap())).await);
    }
    content.extend(alerts);
    content
}

#[tokio::test]
async fn every_view_that_is_rebuilt_has_the_same_content_as_before() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let load = output(farol(folder.path()).args([
        "load",
        "--readings",
        "3000",
        "--batch",
        "50",
        "--connections",
        "2",
        "--sensors",
        "20",
        "--alerts-fraction",
        "0.2",
        "--url",
        &server.address,
    ]));
    assert!(load.status.success(), "{}", text(&load.stderr));
    server.caught_up().await;
    let before = content(&server).await;
    assert!(before.len() > 3020, "sensors, readings and alerts: {}", before.len());
    server.stop().await;

    let list = output(farol(folder.path()).args(["view", "list", "--data", "data"]));
    assert!(list.status.success(), "{}", text(&list.stderr));
    let views: Vec<String> = text(&list.stdout)
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(views.len() >= 5, "{views:?}");
    for view in &views {
        let rebuilt = output(farol(folder.path()).args(["view", "rebuild", view, "--data", "data"]));
        assert!(rebuilt.status.success(), "{view}: {}", text(&rebuilt.stderr));
    }

    let server = Farol::start(folder.path(), &[]).await;
    server.caught_up().await;
    let after = content(&server).await;
    assert_eq!(after.len(), before.len());
    for (after, before) in after.iter().zip(&before) {
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn a_view_is_not_rebuilt_under_a_running_farol_or_under_a_wrong_name() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let running = output(farol(folder.path()).args(["view", "rebuild", "alerts", "--data", "data"]));
    assert_eq!(running.status.code(), Some(1));
    assert!(text(&running.stderr).contains("in use by another process"), "{}", text(&running.stderr));
    server.stop().await;
    let wrong = output(farol(folder.path()).args(["view", "rebuild", "alarms", "--data", "data"]));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("alarms"), "{}", text(&wrong.stderr));
    let nowhere = output(farol(folder.path()).args(["view", "list", "--data", "nowhere"]));
    assert!(text(&nowhere.stderr).contains("no data folder nowhere"), "{}", text(&nowhere.stderr));
}
