//! Alerts: the list (now, or as it stood at an instant), one alert with its whole story, and how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

pub use farol_alert::DeliveryOutcome;
use farol_event::{
    Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Event, Evidence, Position, Severity,
    Timestamp, TransitionKind,
};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::readings::ReadingRow;
use crate::query::{
    Queries, count, cursor, instant, instant_if_any, json, json_if_any, page_size, sql_limit, unreadable,
    word,
};

/// The default number of alerts on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of alerts on a page.
pub const MAX_LIMIT: usize = 1000;

/// How many readings or events of the evidence are shown with an alert.
pub const MAX_EVIDENCE: usize = 100;

/// The columns that [`alert_of_row`] reads.
pub(crate) const ALERT_COLUMNS: &str = "alert_id, rule, sensor_id, severity, status, summary, value, began_at, fired_at, \
    ended_at, acknowledged_by, acknowledged_at, acknowledgement_comment, labels, rule_definition";

/// What an alert's status was at the instant that stands in for the two question marks. The lifecycle allows no other way.
const STATUS_AT: &str =
    "CASE WHEN ended_at <= ? THEN status WHEN fired_at <= ? THEN 'firing' ELSE 'pending' END";

/// Which alerts are listed.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// With one of these statuses; empty: any.
    pub statuses: Vec<AlertStatus>,
    /// With one of these severities; empty: any.
    pub severities: Vec<Severity>,
    /// About this series (the sensor's id).
    pub source: Option<String>,
    /// About this service.
    pub service: Option<String>,
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
    /// The readings that the evidence names, if the alert is about a sensor.
    pub evidence_readings: Vec<EvidenceReading>,
    /// The events that the evidence names, if it is about a service.
    pub evidence_events: Vec<EvidenceEvent>,
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
    pub transition: TransitionKind,
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

/// An event that evidence names.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvidenceEvent {
    /// Where it stands in the log.
    pub position: Position,
    /// The event, if the view still has it.
    pub event: Option<Event>,
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
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let mut conditions = filter.conditions();
        let failed = self.failed("alerts");
        let total = self
            .number(&format!("SELECT count(*) FROM alerts {}", conditions.sql()), conditions.values_and([]))
            .map_err(&failed)?;
        if let Some(text) = &filter.cursor {
            conditions.and("(began_at, alert_id) < (?, ?)", cursor::decode::<2>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT {ALERT_COLUMNS} FROM alerts {} ORDER BY began_at DESC, alert_id DESC LIMIT ?",
            conditions.sql()
        );
        let values = conditions.values_and([sql_limit(limit + 1)]);
        let mut alerts = self.rows(&sql, values, alert_of_row).map_err(&failed)?;
        let more = alerts.len() > limit;
        alerts.truncate(limit);
        let next_cursor = alerts.last().filter(|_| more).map(|last| {
            let key = [Value::Integer(last.began_at.as_micros()), Value::Text(last.id.to_string())];
            cursor::encode(CURSOR, &key)
        });
        if let Some(at) = filter.at {
            for alert in &mut alerts {
                self.turn_back(alert, at)?;
            }
        }
        Ok(AlertPage { alerts, total, next_cursor })
    }

    /// The alert of that id as it stands.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert(&self, id: AlertId) -> Result<Option<Alert>, ViewError> {
        let sql = format!("SELECT {ALERT_COLUMNS} FROM alerts WHERE alert_id = ?");
        let mut found = self
            .rows(&sql, vec![Value::Text(id.to_string())], alert_of_row)
            .map_err(self.failed("alerts"))?;
        Ok(found.pop())
    }

    /// The alert of that id with its transitions, deliveries and the readings or events of its evidence.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert_detail(&self, id: AlertId) -> Result<Option<AlertDetail>, ViewError> {
        let Some(alert) = self.alert(id)? else { return Ok(None) };
        let transitions = self.transitions(id)?;
        let deliveries = self
            .rows(
                "SELECT channel, target, attempt, at, outcome, status, error, transition FROM deliveries
                 WHERE alert_id = ? ORDER BY at, partition, offset",
                vec![Value::Text(id.to_string())],
                delivery_of_row,
            )
            .map_err(self.failed("deliveries"))?;
        let named: BTreeSet<&Position> =
            transitions.iter().filter_map(|row| row.evidence.as_ref()).flat_map(|e| &e.positions).collect();
        let (mut evidence_readings, mut evidence_events) = (Vec::new(), Vec::new());
        for position in named.into_iter().take(MAX_EVIDENCE).cloned() {
            if position.topic == self.topics.sensor_data {
                let reading = self.reading_at(&alert.series, &position)?;
                evidence_readings.push(EvidenceReading { position, reading });
            } else {
                let event = self.event_at(&position)?;
                evidence_events.push(EvidenceEvent { position, event });
            }
        }
        Ok(Some(AlertDetail { alert, transitions, deliveries, evidence_readings, evidence_events }))
    }

    /// How many alerts fire, are pending, wait for an acknowledgement.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alert_counts(&self) -> Result<AlertCounts, ViewError> {
        let failed = self.failed("alerts");
        let mut counts = AlertCounts::default();
        let rows = self
            .rows(
                "SELECT status, severity, count(*), sum(acknowledged_at IS NULL) FROM alerts
                 WHERE status IN ('pending', 'firing') GROUP BY status, severity",
                Vec::new(),
                |row| Ok((word::<AlertStatus>(row, 0)?, severity(row, 1)?, count(row, 2)?, count(row, 3)?)),
            )
            .map_err(failed)?;
        for (status, severity, number, unacknowledged) in rows {
            if status == AlertStatus::Pending {
                counts.pending += number;
                continue;
            }
            counts.unacknowledged += unacknowledged;
            match severity {
                Severity::Info => counts.firing.info = number,
                Severity::Warning => counts.firing.warning = number,
                Severity::Error => counts.firing.error = number,
                Severity::Critical => counts.firing.critical = number,
            }
        }
        Ok(counts)
    }

    /// How many alerts fired after `since`.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn alerts_fired_since(&self, since: Timestamp) -> Result<u64, ViewError> {
        self.number("SELECT count(*) FROM alerts WHERE fired_at > ?", vec![Value::Integer(since.as_micros())])
            .map_err(self.failed("alerts"))
    }

    fn transitions(&self, id: AlertId) -> Result<Vec<AlertTransitionRow>, ViewError> {
        self.rows(
            "SELECT kind, at, evidence, acknowledgement, partition, offset FROM alert_transitions
             WHERE alert_id = ? ORDER BY partition, offset",
            vec![Value::Text(id.to_string())],
            |row| {
                Ok(AlertTransitionRow {
                    kind: word(row, 0)?,
                    at: instant(row, 1)?,
                    evidence: json_if_any(row, 2)?,
                    acknowledgement: json_if_any(row, 3)?,
                    position: Position {
                        topic: Arc::clone(&self.topics.alerts),
                        partition: row.get(4)?,
                        offset: row.get(5)?,
                    },
                })
            },
        )
        .map_err(self.failed("alert_transitions"))
    }

    /// Puts an alert back to how it stood at `at`, by folding its transitions up to then.
    fn turn_back(&self, alert: &mut Alert, at: Timestamp) -> Result<(), ViewError> {
        let mut rows = self
            .rows(
                "SELECT kind, at, summary, value, acknowledgement, beginning FROM alert_transitions
                 WHERE alert_id = ? ORDER BY partition, offset",
                vec![Value::Text(alert.id.to_string())],
                KeptTransition::of_row,
            )
            .map_err(self.failed("alert_transitions"))?;
        let corrupt = |problem: String| ViewError::Corrupt { table: "alert_transitions", problem };
        let beginning = rows
            .first_mut()
            .and_then(|first| first.beginning.take())
            .ok_or_else(|| corrupt(format!("alert {} has no beginning", alert.id)))?;
        let transitions: Vec<AlertTransition> = rows.into_iter().map(|row| row.whole(&beginning)).collect();
        match farol_alert::as_of(&transitions, at) {
            Ok(Some(then)) => *alert = then,
            Ok(None) => return Err(corrupt(format!("alert {} had not begun at {at}", alert.id))),
            Err(illegal) => return Err(corrupt(illegal.to_string())),
        }
        Ok(())
    }
}

/// What the cursors of the list of alerts are called.
const CURSOR: &str = "alerts";

impl AlertFilter {
    fn conditions(&self) -> Conditions {
        let micros = |at: Timestamp| Value::Integer(at.as_micros());
        let mut conditions = Conditions::default();
        let statuses: Vec<Value> = self.statuses.iter().map(|s| Value::Text(s.as_str().into())).collect();
        match self.at {
            None => conditions.and_one_of("status", statuses),
            Some(at) => {
                conditions.and("began_at <= ?", [micros(at)]);
                // Begun, but nobody had said so yet: a rule without a duration may find out late.
                conditions.and(
                    "EXISTS (SELECT 1 FROM alert_transitions AS t
                         WHERE t.alert_id = alerts.alert_id AND t.beginning IS NOT NULL AND t.at <= ?)",
                    [micros(at)],
                );
                if !statuses.is_empty() {
                    let marks = vec!["?"; statuses.len()].join(", ");
                    let values = [micros(at), micros(at)].into_iter().chain(statuses);
                    conditions.and(format!("{STATUS_AT} IN ({marks})"), values);
                }
            }
        }
        conditions.and_one_of(
            "severity",
            self.severities.iter().map(|severity| Value::Integer(severity.number().into())).collect(),
        );
        conditions.and_if("sensor_id = ?", self.source.clone());
        conditions.and_if("json_extract(labels, '$.service') = ?", self.service.clone());
        conditions.and_if("rule = ?", self.rule.clone());
        conditions.and_if("began_at >= ?", self.from.map(micros));
        conditions.and_if("began_at <= ?", self.to.map(micros));
        match (self.acknowledged, self.at) {
            (None, _) => {}
            (Some(true), None) => conditions.and("acknowledged_at IS NOT NULL", []),
            (Some(false), None) => conditions.and("acknowledged_at IS NULL", []),
            (Some(true), Some(at)) => conditions.and("acknowledged_at <= ?", [micros(at)]),
            (Some(false), Some(at)) => {
                conditions.and("(acknowledged_at IS NULL OR acknowledged_at > ?)", [micros(at)]);
            }
        }
        conditions
    }
}

/// A row of `alert_transitions` as time travel needs it.
struct KeptTransition {
    kind: TransitionKind,
    at: Timestamp,
    summary: String,
    value: Option<f64>,
    acknowledgement: Option<Acknowledgement>,
    beginning: Option<Alert>,
}

impl KeptTransition {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            kind: word(row, 0)?,
            at: instant(row, 1)?,
            summary: row.get(2)?,
            value: row.get(3)?,
            acknowledgement: json_if_any(row, 4)?,
            beginning: json_if_any(row, 5)?,
        })
    }

    /// The transition with the alert that it came with, as far as a fold looks at it.
    fn whole(self, beginning: &Alert) -> AlertTransition {
        let alert = Alert { summary: self.summary, value: self.value, ..beginning.clone() };
        AlertTransition {
            kind: self.kind,
            at: self.at,
            evidence: None,
            acknowledgement: self.acknowledgement,
            alert,
        }
    }
}

/// An alert from [`ALERT_COLUMNS`].
pub(crate) fn alert_of_row(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let id: String = row.get(0)?;
    let acknowledged_by: Option<String> = row.get(10)?;
    let acknowledged_at = instant_if_any(row, 11)?;
    let acknowledgement = match (acknowledged_by, acknowledged_at) {
        (Some(by), Some(at)) => Some(Acknowledgement { by, at, comment: row.get(12)? }),
        _ => None,
    };
    Ok(Alert {
        id: AlertId(Uuid::parse_str(&id).map_err(|error| unreadable(0, error))?),
        rule: row.get(1)?,
        series: row.get(2)?,
        severity: severity(row, 3)?,
        status: word(row, 4)?,
        summary: row.get(5)?,
        value: row.get(6)?,
        began_at: instant(row, 7)?,
        fired_at: instant_if_any(row, 8)?,
        ended_at: instant_if_any(row, 9)?,
        acknowledgement,
        labels: json(row, 13)?,
        rule_definition: json(row, 14)?,
    })
}

fn severity(row: &Row<'_>, column: usize) -> rusqlite::Result<Severity> {
    let number = row.get(column)?;
    Severity::from_number(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn delivery_of_row(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        channel: row.get(0)?,
        target: row.get(1)?,
        attempt: row.get(2)?,
        at: instant(row, 3)?,
        outcome: word(row, 4)?,
        status: row.get(5)?,
        error: row.get(6)?,
        transition: word(row, 7)?,
    })
}
