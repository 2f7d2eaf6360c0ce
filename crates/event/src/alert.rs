//! An alert as it travels on topic `alerts` and as it is shown.
//!
//! The lifecycle itself (what may follow what) is decided in `farol-alert`; here is only its data. Every transition
//! travels as one [`crate::Event`] whose `data` is an [`AlertTransition`], so a reader of the topic needs nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::Position;
use crate::severity::Severity;
use crate::timestamp::Timestamp;

/// Identifies an alert: a UUID v5 over rule, series and the instant at which the condition began, so that a replay of
/// the same readings makes the same alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct AlertId(pub Uuid);

impl AlertId {
    /// UUID v5 namespace of Farol's alerts, fixed for ever: replays of old logs must give the same ids.
    const NAMESPACE: Uuid = Uuid::from_u128(0x6fa4_01a1_e127_5d0e_9c3b_5a1e_47f0_a101);

    /// The id of the alert that `rule` raises for `series` when the condition began at `began_at`.
    pub fn derive(rule: &str, series: &str, began_at: Timestamp) -> Self {
        // Lengths in front, so that no two (rule, series) pairs run together into the same bytes.
        let name = format!("{}:{rule}{}:{series}{}", rule.len(), series.len(), began_at.as_micros());
        Self(Uuid::new_v5(&Self::NAMESPACE, name.as_bytes()))
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where an alert stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// The condition holds, but not yet for as long as the rule asks.
    Pending,
    /// The condition has held long enough.
    Firing,
    /// The condition has cleared for as long as the rule asks.
    Resolved,
    /// The condition ended while the alert was still pending: it never fired.
    Dismissed,
}

impl AlertStatus {
    /// Every status, in order of life.
    pub const ALL: [AlertStatus; 4] =
        [AlertStatus::Pending, AlertStatus::Firing, AlertStatus::Resolved, AlertStatus::Dismissed];

    /// The lower-case word of the wire and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertStatus::Pending => "pending",
            AlertStatus::Firing => "firing",
            AlertStatus::Resolved => "resolved",
            AlertStatus::Dismissed => "dismissed",
        }
    }
}

impl fmt::Display for AlertStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TransitionKind {
    /// The condition began to hold and the rule asks for a duration.
    Pending,
    /// The alert fired.
    Fired,
    /// The alert resolved.
    Resolved,
    /// A pending alert ended without firing.
    Dismissed,
    /// Somebody acknowledged the alert. Its status stays what it was.
    Acknowledged,
}

/// Why a transition happened: the rule as it stood and the reading that caused it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// The readings that caused the transition, in order. After a duration: the one that began it and the one that
    /// completed it; for a rate of change also the one it is taken from; for absence of data the last one before it.
    /// Empty when no reading had a part in it (the rule changed).
    pub positions: Vec<Position>,
    /// The value that was compared (the reading's, or the rate of change), if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What was found, in one English sentence with the numbers in it.
    pub explanation: String,
}

/// Who acknowledged, when, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Acknowledgement {
    /// Who, as they named themselves.
    pub by: String,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// What they said, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// One transition of one alert: the `data` of the events on topic `alerts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertTransition {
    /// What happened.
    pub kind: TransitionKind,
    /// When it happened, in event time (for an acknowledgement: when it was given).
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Why; absent for an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The acknowledgement, if the transition is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// The alert as it stands after the transition (an acknowledgement carries it as its sender saw it).
    pub alert: Alert,
}

/// An alert: one rule's finding about one series, from the instant its condition began to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alert {
    /// Its id, derived from rule, series and start.
    pub id: AlertId,
    /// The rule's name.
    pub rule: String,
    /// The rule as it stood when the alert began, as JSON.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub rule_definition: serde_json::Value,
    /// The series: the sensor's id.
    pub series: String,
    /// The labels of the series (`sensor_id`, `sensor_type`, `machine_id`, …) and the rule's own.
    pub labels: std::collections::BTreeMap<String, String>,
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub status: AlertStatus,
    /// One sentence for people.
    pub summary: String,
    /// The value at the newest transition, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// When the condition began to hold.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub began_at: Timestamp,
    /// When it fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub fired_at: Option<Timestamp>,
    /// When it resolved or was dismissed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub ended_at: Option<Timestamp>,
    /// The acknowledgement; the first one given counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
}
