//! View `alerts`: every alert, its transitions, and the deliveries of its notifications.
//!
//! What may follow what is decided by [`farol_alert::fold`]; here its outcome is kept. Only transitions that changed
//! something become rows of `alert_transitions`, so that a record that was appended twice is shown once. One that can't
//! follow what went before is skipped and counted. The transitions of an alert share a partition, because they share the
//! key, so their order is the log's.

use farol_alert::{DeliveryOutcome, DeliveryRecord, Folded, ToldTransition};
use farol_event::{Alert, AlertId, AlertTransition, EventType, TransitionKind};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::decode::{Decoded, EventRecord, Starts};
use crate::fold::{Tally, json_text};
use crate::name::TopicContent;
use crate::query::alerts::{ALERT_COLUMNS, alert_of_row};

pub(crate) const CREATE: &str = "
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    sensor_id TEXT NOT NULL,
    severity INTEGER NOT NULL,
    status TEXT NOT NULL,
    summary TEXT NOT NULL,
    value REAL,
    began_at INTEGER NOT NULL,
    fired_at INTEGER,
    ended_at INTEGER,
    acknowledged_by TEXT,
    acknowledged_at INTEGER,
    acknowledgement_comment TEXT,
    labels TEXT NOT NULL,
    rule_definition TEXT NOT NULL
);
CREATE INDEX alerts_by_beginning ON alerts (began_at, alert_id);
CREATE INDEX alerts_by_sensor ON alerts (sensor_id, began_at, alert_id);
CREATE INDEX alerts_by_service ON alerts (json_extract(labels, '$.service'), began_at, alert_id);
CREATE INDEX alerts_by_firing ON alerts (fired_at) WHERE fired_at IS NOT NULL;
CREATE INDEX alerts_active ON alerts (status, sensor_id, severity, acknowledged_at)
    WHERE status IN ('pending', 'firing');
CREATE TABLE alert_transitions (
    alert_id TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    summary TEXT NOT NULL,
    value REAL,
    evidence TEXT,
    acknowledgement TEXT,
    beginning TEXT,
    PRIMARY KEY (alert_id, partition, offset)
) WITHOUT ROWID;
CREATE TABLE deliveries (
    alert_id TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    transition TEXT NOT NULL,
    channel TEXT NOT NULL,
    target TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    status INTEGER,
    error TEXT,
    PRIMARY KEY (alert_id, partition, offset)
) WITHOUT ROWID;
";

pub(crate) const DROP: &str = "
DROP TABLE IF EXISTS alerts;
DROP TABLE IF EXISTS alert_transitions;
DROP TABLE IF EXISTS deliveries;
";

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    for record in decoded.events_from(starts) {
        let read = match record.content {
            TopicContent::Alerts => transition(transaction, record)?,
            _ if record.event.event_type == EventType::NOTIFICATION_ATTEMPTED => {
                delivery(transaction, record)?
            }
            _ => Ok(()),
        };
        match read {
            Ok(()) => tally.applied += 1,
            Err(reason) => tally.skip(reason),
        }
    }
    Ok(())
}

/// Folds one transition. The inner error says why the record is skipped.
fn transition(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let Ok(transition) = farol_alert::from_event(&record.event) else {
        return Ok(Err("not a transition of an alert"));
    };
    let current = alert(transaction, transition.alert.id)?;
    match farol_alert::fold(current.as_ref(), &transition) {
        Ok(Folded::Changed(next)) => {
            save(transaction, &next)?;
            keep(transaction, record, &transition, current.is_none())?;
            Ok(Ok(()))
        }
        Ok(Folded::Unchanged) => Ok(Ok(())),
        Err(_) => Ok(Err("a transition that can't follow")),
    }
}

fn alert(transaction: &Transaction<'_>, id: AlertId) -> rusqlite::Result<Option<Alert>> {
    transaction
        .prepare_cached(&format!("SELECT {ALERT_COLUMNS} FROM alerts WHERE alert_id = ?1"))?
        .query_row([id.to_string()], alert_of_row)
        .optional()
}

fn save(transaction: &Transaction<'_>, alert: &Alert) -> rusqlite::Result<()> {
    let acknowledgement = alert.acknowledgement.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO alerts (alert_id, rule, sensor_id, severity, status, summary, value, began_at, fired_at, ended_at,
                 acknowledged_by, acknowledged_at, acknowledgement_comment, labels, rule_definition)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (alert_id) DO UPDATE SET rule = excluded.rule, sensor_id = excluded.sensor_id,
                 severity = excluded.severity, status = excluded.status, summary = excluded.summary,
                 value = excluded.value, began_at = excluded.began_at, fired_at = excluded.fired_at,
                 ended_at = excluded.ended_at, acknowledged_by = excluded.acknowledged_by,
                 acknowledged_at = excluded.acknowledged_at,
                 acknowledgement_comment = excluded.acknowledgement_comment, labels = excluded.labels,
                 rule_definition = excluded.rule_definition",
        )?
        .execute(params![
            alert.id.to_string(),
            alert.rule,
            alert.series,
            alert.severity.number(),
            alert.status.as_str(),
            alert.summary,
            alert.value,
            alert.began_at.as_micros(),
            alert.fired_at.map(|at| at.as_micros()),
            alert.ended_at.map(|at| at.as_micros()),
            acknowledgement.map(|given| given.by.as_str()),
            acknowledgement.map(|given| given.at.as_micros()),
            acknowledgement.and_then(|given| given.comment.as_deref()),
            json_text(&alert.labels),
            json_text(&alert.rule_definition),
        ])?;
    Ok(())
}

/// Keeps a transition. Only an alert's first one holds the alert as a whole: the later ones change nothing but status,
/// summary and value.
fn keep(
    transaction: &Transaction<'_>,
    record: &EventRecord,
    transition: &AlertTransition,
    is_first: bool,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO alert_transitions
                 (alert_id, partition, offset, kind, at, summary, value, evidence, acknowledgement, beginning)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            transition.alert.id.to_string(),
            record.partition,
            record.offset,
            kind_word(transition.kind),
            transition.at.as_micros(),
            transition.alert.summary,
            transition.alert.value,
            transition.evidence.as_ref().map(json_text),
            transition.acknowledgement.as_ref().map(json_text),
            is_first.then(|| json_text(&transition.alert)),
        ])?;
    Ok(())
}

fn delivery(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let data = serde_json::Value::Object(record.event.data.clone());
    let Ok(delivery) = serde_json::from_value::<DeliveryRecord>(data) else {
        return Ok(Err("not a delivery"));
    };
    let first = ToldTransition { alert_id: delivery.alert_id, transition: delivery.transition };
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO deliveries
             (alert_id, partition, offset, at, transition, channel, target, attempt, outcome, status, error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for told in std::iter::once(&first).chain(&delivery.with) {
        insert.execute(params![
            told.alert_id.to_string(),
            record.partition,
            record.offset,
            record.event.time.as_micros(),
            kind_word(told.transition),
            delivery.channel,
            delivery.target,
            delivery.attempt,
            outcome_word(delivery.outcome),
            delivery.status,
            delivery.error,
        ])?;
    }
    Ok(Ok(()))
}

/// The word of the wire and of the tables.
pub(crate) fn kind_word(kind: TransitionKind) -> &'static str {
    match kind {
        TransitionKind::Pending => "pending",
        TransitionKind::Fired => "fired",
        TransitionKind::Resolved => "resolved",
        TransitionKind::Dismissed => "dismissed",
        TransitionKind::Acknowledged => "acknowledged",
    }
}

fn outcome_word(outcome: DeliveryOutcome) -> &'static str {
    match outcome {
        DeliveryOutcome::Delivered => "delivered",
        DeliveryOutcome::Failed => "failed",
        DeliveryOutcome::GaveUp => "gave_up",
        DeliveryOutcome::HeldBack => "held_back",
    }
}
