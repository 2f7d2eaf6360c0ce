//! Alerts and transitions for tests.

use std::collections::BTreeMap;

use farol_event::{
    Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Evidence, Position, Severity, Timestamp,
    TransitionKind,
};

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
}

/// A new alert of rule `hot` and series `temp-1` that began at `began`, firing.
pub fn alert(began: i64) -> Alert {
    Alert {
        id: AlertId::derive("hot", "temp-1", at(began)),
        rule: "hot".into(),
        rule_definition: serde_json::json!({ "name": "hot", "select": "{}", "above": 40.0 }),
        series: "temp-1".into(),
        labels: BTreeMap::from([("sensor_id".into(), "temp-1".into()), ("unit".into(), "°C".into())]),
        severity: Severity::Critical,
        status: AlertStatus::Firing,
        summary: "temp-1: 41.5 °C is above 40 °C".into(),
        value: Some(41.5),
        began_at: at(began),
        fired_at: Some(at(began)),
        ended_at: None,
        acknowledgement: None,
    }
}

/// A transition as the detector makes it, of the alert that began at `began`.
pub fn transition(kind: TransitionKind, began: i64, seconds: i64) -> AlertTransition {
    let mut alert = alert(began);
    let at = at(seconds);
    match kind {
        TransitionKind::Pending => (alert.status, alert.fired_at) = (AlertStatus::Pending, None),
        TransitionKind::Fired => alert.fired_at = Some(at),
        TransitionKind::Resolved => (alert.status, alert.ended_at) = (AlertStatus::Resolved, Some(at)),
        TransitionKind::Dismissed => {
            (alert.status, alert.fired_at, alert.ended_at) = (AlertStatus::Dismissed, None, Some(at));
        }
        TransitionKind::Acknowledged => {
            let given = Acknowledgement { by: "ana".into(), at, comment: Some("on my way".into()) };
            alert.acknowledgement = Some(given.clone());
            return AlertTransition { kind, at, evidence: None, acknowledgement: Some(given), alert };
        }
    }
    let evidence = Evidence {
        positions: vec![Position { topic: "sensor-data".into(), partition: 1, offset: 42 }],
        value: Some(41.5),
        explanation: "41.5 °C is above 40 °C.".into(),
    };
    AlertTransition { kind, at, evidence: Some(evidence), acknowledgement: None, alert }
}
