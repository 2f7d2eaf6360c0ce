//! Alerts in Alertmanager's words: what its webhook receivers are posted, and what its API shows.
//!
//! The shapes are those of Alertmanager's webhook payload, version 4, and of its API v2. What Farol has no word for is left empty, never
//! made up: an alert's `generatorURL` is where the dashboard shows it, if Farol knows its own address.

use std::collections::BTreeMap;

use farol_event::{Alert, AlertId, AlertStatus, Timestamp};
use serde::Serialize;

use crate::group::Notification;
use crate::label;

/// How many alerts one notification lists; the others are counted.
pub const MAX_LISTED_ALERTS: usize = 100;

/// The end of an alert that has none yet, as Alertmanager writes it to webhooks.
const NO_END: &str = "0001-01-01T00:00:00Z";

/// What a webhook that routes lead to is posted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPayload {
    /// Always `4`.
    pub version: &'static str,
    /// Tells groups apart.
    pub group_key: String,
    /// How many alerts are not listed.
    pub truncated_alerts: usize,
    /// `firing` if one fires, otherwise `resolved`.
    pub status: &'static str,
    /// The receiver's name.
    pub receiver: String,
    /// What makes the group.
    pub group_labels: BTreeMap<String, String>,
    /// Labels that all alerts share.
    pub common_labels: BTreeMap<String, String>,
    /// Annotations that all alerts share.
    pub common_annotations: BTreeMap<String, String>,
    /// Where the dashboard is; empty if Farol doesn't know.
    #[serde(rename = "externalURL")]
    pub external_url: String,
    /// Firing ones first.
    pub alerts: Vec<PayloadAlert>,
}

/// One alert of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PayloadAlert {
    /// `firing` or `resolved`.
    pub status: &'static str,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub annotations: BTreeMap<String, String>,
    /// When its condition began to hold.
    pub starts_at: Timestamp,
    /// When it resolved.
    pub ends_at: String,
    /// Where the dashboard shows it.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// Tells alerts apart.
    pub fingerprint: String,
}

impl GroupPayload {
    /// Of one notification. `dashboard` is where people reach Farol.
    pub fn new(notification: &Notification, dashboard: Option<&str>) -> Self {
        let all = || notification.firing.iter().chain(&notification.resolved);
        let status = if notification.firing.is_empty() { "resolved" } else { "firing" };
        Self {
            version: "4",
            group_key: notification.group.text(),
            truncated_alerts: all().count().saturating_sub(MAX_LISTED_ALERTS),
            status,
            receiver: notification.group.receiver.clone(),
            group_labels: notification.group.labels.clone(),
            common_labels: common(all().map(label::all)),
            common_annotations: common(all().map(annotations)),
            external_url: dashboard.unwrap_or_default().to_owned(),
            alerts: all().take(MAX_LISTED_ALERTS).map(|alert| PayloadAlert::new(alert, dashboard)).collect(),
        }
    }

    /// The JSON that is sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a payload has only string keys, so it serialises")
    }
}

impl PayloadAlert {
    fn new(alert: &Alert, dashboard: Option<&str>) -> Self {
        let firing = alert.status == AlertStatus::Firing;
        let ended = alert.ended_at.filter(|_| !firing);
        Self {
            status: if firing { "firing" } else { "resolved" },
            labels: label::all(alert),
            annotations: annotations(alert),
            starts_at: alert.began_at,
            ends_at: ended.map_or_else(|| NO_END.to_owned(), |at| at.to_string()),
            generator_url: dashboard.map(|url| alert_url(url, alert.id)).unwrap_or_default(),
            fingerprint: fingerprint(alert.id),
        }
    }
}

/// What people are told of an alert beside its labels.
pub fn annotations(alert: &Alert) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([("summary".to_owned(), alert.summary.clone())]);
    if let Some(value) = alert.value {
        annotations.insert("value".to_owned(), value.to_string());
    }
    if let Some(given) = &alert.acknowledgement {
        annotations.insert("acknowledged_by".to_owned(), given.by.clone());
    }
    annotations
}

/// Where the dashboard at `dashboard` shows an alert.
pub fn alert_url(dashboard: &str, id: AlertId) -> String {
    format!("{}/#/alerts/{id}", dashboard.trim_end_matches('/'))
}

/// Sixteen hexadecimal digits that tell alerts apart.
pub fn fingerprint(id: AlertId) -> String {
    id.0.simple().to_string().chars().take(16).collect()
}

/// What all of these have in common.
fn common(all: impl Iterator<Item = BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let shared = |mut shared: BTreeMap<String, String>, next: BTreeMap<String, String>| {
        shared.retain(|name, value| next.get(name) == Some(value));
        shared
    };
    all.reduce(shared).unwrap_or_default()
}

#[cfg(test)]
mod tests;
