//! Alerts: the list (now, or as it stood at an instant), one alert with its whole story, and how many there are.

use farol_event::{
    Acknowledgement, Alert, AlertId, AlertStatus, Evidence, Position, Severity, Timestamp, TransitionKind,
};
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::Queries;
use crate::query::readings::ReadingRow;

/// The default number of alerts on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of alerts on a page.
pub const MAX_LIMIT: usize = 1000;

/// Which alerts are listed.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// With one of these statuses; empty: any.
    pub statuses: Vec<AlertStatus>,
    /// With one of these severities; empty: any.
    pub severities: Vec<Severity>,
    /// About this series (the sensor's id).
    pub source: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Acknowledged, or not.
    pub acknowledged: Option<bool>,
    /// Begun at or after this instant.
    pub from: Option<Timestamp>,
    /// Begun at or before this instant.
    pub to: Option<Timestamp>,
    /// As they stood at this instant: what happened after it is left out, and the other filters apply to what remains.
    pub at: Option<Timestamp>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A page of alerts, newest beginning first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertPage {
    /// The alerts.
    pub alerts: Vec<Alert>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One alert with its whole story.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertDetail {
    /// The alert as it stands.
    pub alert: Alert,
    /// What happened to it, in the order of the log.
    pub transitions: Vec<AlertTransitionRow>,
    /// Attempts to tell somebody, in the order of the log.
    pub deliveries: Vec<Delivery>,
    /// The readings that the evidence names.
    pub evidence_readings: Vec<EvidenceReading>,
}

/// One transition of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertTransitionRow {
    /// What happened.
    pub kind: TransitionKind,
    /// When, in event time.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The acknowledgement, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// Where the transition stands in the log.
    pub position: Position,
}

/// How an attempt to deliver a notification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The receiver took it.
    Delivered,
    /// It failed and will be tried again.
    Failed,
    /// It failed and will not be tried again.
    GaveUp,
}

/// One attempt to deliver a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivery {
    /// By what means: `webhook`, `log`, ….
    pub channel: String,
    /// To whom.
    pub target: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// How it ended.
    pub outcome: DeliveryOutcome,
    /// The receiver's status code, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which transition was told.
    pub transition: String,
}

/// A reading that evidence names.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvidenceReading {
    /// Where it stands in the log.
    pub position: Position,
    /// The reading, if the view still has it.
    pub reading: Option<ReadingRow>,
}

/// How many alerts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertCounts {
    /// Firing, by severity.
    pub firing: SeverityCounts,
    /// Pending.
    pub pending: u64,
    /// Firing, and nobody has acknowledged.
    pub unacknowledged: u64,
}

/// A number for each severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeverityCounts {
    /// INFO.
    pub info: u64,
    /// WARNING.
    pub warning: u64,
    /// ERROR.
    pub error: u64,
    /// CRITICAL.
    pub critical: u64,
}

impl Queries<'_> {
    /// The alerts that fit the filter, newest beginning first.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alerts(&self, filter: &AlertFilter) -> Result<AlertPage, ViewError> {
        todo!()
    }

    /// The alert of that id as it stands.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert(&self, id: AlertId) -> Result<Option<Alert>, ViewError> {
        todo!()
    }

    /// The alert of that id with its transitions, deliveries and the readings of its evidence.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert_detail(&self, id: AlertId) -> Result<Option<AlertDetail>, ViewError> {
        todo!()
    }

    /// How many alerts fire, are pending, wait for an acknowledgement.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert_counts(&self) -> Result<AlertCounts, ViewError> {
        todo!()
    }

    /// How many alerts fired after `since`.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alerts_fired_since(&self, since: Timestamp) -> Result<u64, ViewError> {
        todo!()
    }
}
