use uuid::Uuid;

use super::*;
use crate::fixture::{alert, at};
use crate::group::Reason;
use crate::route::GroupKey;

fn notification(firing: Vec<Alert>, resolved: Vec<Alert>) -> Notification {
    let labels = BTreeMap::from([("alertname".to_owned(), "hot".to_owned())]);
    Notification {
        id: Uuid::nil(),
        group: GroupKey { route: "{}".into(), receiver: "ops".into(), labels },
        reason: Reason::First,
        firing,
        resolved,
    }
}

#[test]
fn the_payload_is_alertmanagers() {
    let mut ended = alert(7);
    (ended.status, ended.ended_at) = (AlertStatus::Resolved, Some(at(60)));
    ended.labels.insert("sensor_id".into(), "temp-2".into());
    let payload =
        GroupPayload::new(&notification(vec![alert(0)], vec![ended]), Some("http://127.0.0.1:5000/"));
    let golden = include_str!("../../tests/golden/group_webhook.json");
    assert_eq!(serde_json::to_string_pretty(&payload).unwrap(), golden.trim_end());
    assert!(!payload.common_labels.contains_key("sensor_id"));
}

#[test]
fn more_alerts_than_are_listed_are_counted() {
    let many = (0..150).map(alert).collect();
    let payload = GroupPayload::new(&notification(Vec::new(), many), None);
    assert_eq!((payload.alerts.len(), payload.truncated_alerts), (MAX_LISTED_ALERTS, 50));
    assert_eq!(payload.status, "resolved");
}
