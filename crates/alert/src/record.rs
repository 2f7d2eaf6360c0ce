//! Transitions as events of the topic `alerts`, and back.
//!
//! The event's `source` (and so the record's key) is the series, its `time` the instant of the transition, its `data` the transition. Its id is made from alert, kind and instant, so that
//! a replay makes the same events, and whoever has seen one knows it again.

use farol_event::{AlertId, AlertTransition, Event, EventType, Timestamp, TransitionKind};
use uuid::Uuid;

/// UUID v5 namespace of the ids of alert events, fixed for ever: replays of old logs must give the same ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6fa4_01a1_e127_5d0e_9c3b_5a1e_47f0_a103);

/// Why an event is no transition of an alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its type is none of those that are about alerts.
    #[error("event {id} is of type `{event_type}`, which is not about an alert")]
    OtherType {
        /// The event.
        id: String,
        /// Its type.
        event_type: String,
    },
    /// Its `data` is in a version that this program doesn't know.
    #[error("event {id} has `dataversion` {version}; this program knows 1")]
    UnknownVersion {
        /// The event.
        id: String,
        /// The version.
        version: u32,
    },
    /// Its `data` is no transition.
    #[error("the data of event {id} is no transition of an alert: {problem}")]
    Malformed {
        /// The event.
        id: String,
        /// What the parser said.
        problem: String,
    },
    /// Type and `data` contradict each other.
    #[error("event {id} is of type `{event_type}`, but its data says `{kind:?}`")]
    Contradiction {
        /// The event.
        id: String,
        /// Its type.
        event_type: String,
        /// The kind in its data.
        kind: TransitionKind,
    },
}

/// The type of the event that carries transitions of this kind.
pub fn event_type(kind: TransitionKind) -> EventType {
    match kind {
        TransitionKind::Pending => EventType::ALERT_PENDING,
        TransitionKind::Fired => EventType::ALERT_FIRED,
        TransitionKind::Resolved => EventType::ALERT_RESOLVED,
        TransitionKind::Dismissed => EventType::ALERT_DISMISSED,
        TransitionKind::Acknowledged => EventType::ALERT_ACKNOWLEDGED,
    }
}

/// The id of the event that carries this transition.
pub fn event_id(alert: AlertId, kind: TransitionKind, at: Timestamp) -> Uuid {
    let name = format!("{alert}/{}/{}", event_type(kind), at.as_micros());
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The event that carries `transition`. `correlation` ties it to the command that asked for it, if one did.
pub fn to_event(transition: &AlertTransition, correlation: Option<Uuid>) -> Event {
    let id = event_id(transition.alert.id, transition.kind, transition.at);
    let series = transition.alert.series.as_str();
    let mut event = Event::new(id, transition.at, event_type(transition.kind), series, transition);
    event.correlationid = correlation;
    event
}

/// The transition that `event` carries.
///
/// # Errors
/// [`RecordError`] if it carries none, or not in a form that this program knows.
pub fn from_event(event: &Event) -> Result<AlertTransition, RecordError> {
    let id = || event.id.clone();
    let event_type_text = || event.event_type.to_string();
    let kinds = [
        TransitionKind::Pending,
        TransitionKind::Fired,
        TransitionKind::Resolved,
        TransitionKind::Dismissed,
        TransitionKind::Acknowledged,
    ];
    let Some(expected) = kinds.into_iter().find(|kind| event_type(*kind) == event.event_type) else {
        return Err(RecordError::OtherType { id: id(), event_type: event_type_text() });
    };
    if event.dataversion != 1 {
        return Err(RecordError::UnknownVersion { id: id(), version: event.dataversion });
    }
    let data = serde_json::Value::Object(event.data.clone());
    let transition: AlertTransition = serde_json::from_value(data)
        .map_err(|e| RecordError::Malformed { id: id(), problem: e.to_string() })?;
    if transition.kind != expected {
        let kind = transition.kind;
        return Err(RecordError::Contradiction { id: id(), event_type: event_type_text(), kind });
    }
    Ok(transition)
}

#[cfg(test)]
mod tests;
