//! Which transitions are told to whom, in what words, and what an attempt came to. Sending, and when to try again, is for others.
//!
//! A notification is one transition on its way to one target of one channel (`webhook`, `log`). It is attempted until it is
//! delivered, or until it makes no sense to go on: [`classify`] says which outcome is which. Every attempt leaves a
//! [`DeliveryRecord`], the `data` of a `notificacao_enviada` event.

use std::time::Duration;

use farol_event::{Alert, AlertId, AlertStatus, AlertTransition, Severity, Timestamp, TransitionKind};
use serde::{Deserialize, Serialize};

use crate::group::Suppression;

/// Which transitions are notified about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyOn {
    /// When an alert becomes pending.
    pub pending: bool,
    /// When an alert fires.
    pub fired: bool,
    /// When an alert resolves.
    pub resolved: bool,
    /// When a pending alert ends without having fired.
    pub dismissed: bool,
    /// When somebody acknowledges an alert.
    pub acknowledged: bool,
}

impl Default for NotifyOn {
    /// Fired and resolved.
    fn default() -> Self {
        Self { pending: false, fired: true, resolved: true, dismissed: false, acknowledged: false }
    }
}

impl NotifyOn {
    /// Whether transitions of this kind are notified about.
    pub fn wants(self, kind: TransitionKind) -> bool {
        match kind {
            TransitionKind::Pending => self.pending,
            TransitionKind::Fired => self.fired,
            TransitionKind::Resolved => self.resolved,
            TransitionKind::Dismissed => self.dismissed,
            TransitionKind::Acknowledged => self.acknowledged,
        }
    }
}

/// What a webhook is sent, as JSON.
///
/// `id` is the same for every attempt to deliver the same transition, so that a receiver can drop repeats: delivery is at least
/// once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationPayload {
    /// Version of this shape, 1.
    pub version: u32,
    /// The id of the transition's event on topic `alerts`.
    pub id: uuid::Uuid,
    /// What happened.
    pub transition: TransitionKind,
    /// When it happened.
    pub at: Timestamp,
    /// How much it asks for: the alert's severity, but of an end `info`.
    pub level: Severity,
    /// One sentence for people about the alert.
    pub summary: String,
    /// One sentence about what was found, if it was a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// Where the alert is shown, if the sender knows its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The alert as it stands after the transition.
    pub alert: Alert,
}

impl NotificationPayload {
    /// The payload for `transition`. `url` is where people find the alert.
    pub fn new(transition: &AlertTransition, url: Option<String>) -> Self {
        let alert = transition.alert.clone();
        Self {
            version: 1,
            id: crate::record::event_id(alert.id, transition.kind, transition.at),
            transition: transition.kind,
            at: transition.at,
            level: if transition.kind == TransitionKind::Resolved { Severity::Info } else { alert.severity },
            summary: alert.summary.clone(),
            explanation: transition.evidence.as_ref().map(|evidence| evidence.explanation.clone()),
            url,
            alert,
        }
    }

    /// The JSON that is sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a payload has only string keys, so it serialises")
    }
}

/// What one attempt came to, as the sender saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver answered with this HTTP status, and perhaps asked to wait (`Retry-After`).
    Answered {
        /// The status.
        status: u16,
        /// How long the receiver asks to wait.
        retry_after: Option<Duration>,
    },
    /// The mail server answered with this SMTP reply.
    Replied {
        /// Its code.
        code: u16,
        /// Its words.
        text: String,
    },
    /// Not tried: the circuit breaker in front of the receiver is open.
    Rejected {
        /// When it lets somebody through again.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    TimedOut,
    /// No connection, or it broke.
    Unreachable(String),
    /// The notification can't be sent at all: the target is no address, say.
    Impossible(String),
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// Try again.
    Retry {
        /// Not before so long has passed, if the receiver asked for that.
        not_before: Option<Duration>,
    },
    /// It makes no sense to try again.
    GiveUp,
}

/// What an attempt means. 2xx is delivered. 408, 429, 5xx, timeouts and broken connections pass, so they are tried again. Anything else (a redirect, too: a
/// webhook's address is to be set right, not followed) says that the same request would fail in the same way. Of a mail server's replies,
/// 2xx is delivered and 4xx passes (RFC 5321, 4.2.1).
pub fn classify(attempt: &Attempt) -> Verdict {
    match attempt {
        Attempt::Answered { status: 200..=299, .. } => Verdict::Delivered,
        Attempt::Answered { status: 408 | 429 | 500..=599, retry_after } => {
            Verdict::Retry { not_before: *retry_after }
        }
        Attempt::Replied { code: 200..=299, .. } => Verdict::Delivered,
        Attempt::Replied { code: 400..=499, .. } => Verdict::Retry { not_before: None },
        Attempt::Rejected { retry_after } => Verdict::Retry { not_before: *retry_after },
        Attempt::TimedOut | Attempt::Unreachable(_) => Verdict::Retry { not_before: None },
        Attempt::Answered { .. } | Attempt::Replied { .. } | Attempt::Impossible(_) => Verdict::GiveUp,
    }
}

/// How an attempt ended, for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// It arrived.
    Delivered,
    /// It failed, and there will be another attempt.
    Failed,
    /// It failed, and there will be none.
    GaveUp,
    /// There was no attempt: a silence or a graver alert held it back.
    HeldBack,
}

/// One attempt to deliver one notification: the `data` of a `notificacao_enviada` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryRecord {
    /// The alert.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub alert_id: AlertId,
    /// What was told about it.
    pub transition: TransitionKind,
    /// The receiver's name: `webhook`, `log`.
    pub channel: String,
    /// The target as it was configured, without secrets.
    pub target: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: DeliveryOutcome,
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, if something did; by what it was held back, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Other transitions that were told with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<ToldTransition>,
}

/// One transition of one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToldTransition {
    /// The alert.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub alert_id: AlertId,
    /// What was told about it.
    pub transition: TransitionKind,
}

/// The longest `error` in a record, in bytes.
pub const MAX_ERROR_BYTES: usize = 512;

impl DeliveryRecord {
    /// The record of one attempt at telling a transition, and `others` with it; `again` is whether there will be another.
    pub fn new(
        first: ToldTransition,
        others: &[ToldTransition],
        (channel, target): (&str, &str),
        attempt: u32,
        came_to: &Attempt,
        again: bool,
    ) -> Self {
        let outcome = match (classify(came_to), again) {
            (Verdict::Delivered, _) => DeliveryOutcome::Delivered,
            (Verdict::Retry { .. }, true) => DeliveryOutcome::Failed,
            (Verdict::Retry { .. }, false) | (Verdict::GiveUp, _) => DeliveryOutcome::GaveUp,
        };
        let (status, error) = match came_to {
            Attempt::Answered { status, .. } => {
                let error = (outcome != DeliveryOutcome::Delivered)
                    .then(|| format!("the receiver answered {status}"));
                (Some(*status), error)
            }
            Attempt::Replied { code, text } => {
                let text = shortened(text);
                let error = (outcome != DeliveryOutcome::Delivered)
                    .then(|| format!("the mail server replied {code} {text}"));
                (Some(*code), error)
            }
            Attempt::Rejected { .. } => {
                (None, Some("not tried: the receiver's circuit breaker is open".to_owned()))
            }
            Attempt::TimedOut => (None, Some("no answer in time".to_owned())),
            Attempt::Unreachable(problem) => (None, Some(format!("no connection: {}", shortened(problem)))),
            Attempt::Impossible(problem) => (None, Some(shortened(problem).to_owned())),
        };
        Self {
            alert_id: first.alert_id,
            transition: first.transition,
            channel: channel.to_owned(),
            target: target.to_owned(),
            attempt,
            outcome,
            status,
            error,
            with: others.to_vec(),
        }
    }
}

impl DeliveryRecord {
    /// The record that a transition was not told, and why.
    pub fn held_back(told: ToldTransition, channel: &str, suppression: &Suppression) -> Self {
        Self {
            alert_id: told.alert_id,
            transition: told.transition,
            channel: channel.to_owned(),
            target: String::new(),
            attempt: 0,
            outcome: DeliveryOutcome::HeldBack,
            status: None,
            error: Some(shortened(&suppression.reason()).to_owned()),
            with: Vec::new(),
        }
    }
}

impl ToldTransition {
    /// What is told of an alert as it stands.
    pub fn of(alert: &Alert) -> Self {
        let fires = alert.status == AlertStatus::Firing;
        let transition = if fires { TransitionKind::Fired } else { TransitionKind::Resolved };
        Self { alert_id: alert.id, transition }
    }
}

impl From<&AlertTransition> for ToldTransition {
    fn from(transition: &AlertTransition) -> Self {
        Self { alert_id: transition.alert.id, transition: transition.kind }
    }
}

/// At most [`MAX_ERROR_BYTES`] of a text that came from outside.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_ERROR_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests;
