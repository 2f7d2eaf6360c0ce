//! A notification as an e-mail: subject, text, and the same as simple HTML.
//!
//! Whatever comes from outside (summaries, labels) is kept from breaking out of its place: the subject is one line of at most
//! [`MAX_SUBJECT_CHARS`], HTML is escaped.

use std::fmt::Write as _;

use farol_event::{Alert, AlertStatus, Severity};

use crate::alertmanager::{MAX_LISTED_ALERTS, alert_url};
use crate::group::{Notification, Reason};
use crate::label;

/// The longest subject, in characters.
pub const MAX_SUBJECT_CHARS: usize = 200;

/// The words of one e-mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `[CRITICAL] firing: temp-1: 41.5 °C is above 40 °C (and 2 more)`; with nothing but ends, `[INFO] resolved: …`.
    pub subject: String,
    /// For readers of plain text.
    pub text: String,
    /// For the others.
    pub html: String,
}

impl Mail {
    /// Of one notification. `dashboard` is where people reach Farol.
    pub fn new(notification: &Notification, dashboard: Option<&str>) -> Self {
        Self {
            subject: subject(notification),
            text: text(notification, dashboard),
            html: html(notification, dashboard),
        }
    }
}

fn all(notification: &Notification) -> impl Iterator<Item = &Alert> {
    notification.firing.iter().chain(&notification.resolved)
}

fn subject(notification: &Notification) -> String {
    let worst = |alerts: &[Alert]| alerts.iter().map(|alert| alert.severity).max();
    let severity = worst(&notification.firing).unwrap_or(Severity::Info).as_str().to_uppercase();
    let state = match (notification.reason, notification.firing.is_empty()) {
        (_, true) => "resolved",
        (Reason::Repeat, false) => "still firing",
        (_, false) => "firing",
    };
    // The gravest says most.
    let first = all(notification).max_by_key(|alert| (alert.status == AlertStatus::Firing, alert.severity));
    let summary = first.map_or("", |alert| alert.summary.as_str());
    let count = all(notification).count();
    let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    let subject = format!("[{severity}] {state}: {summary}{more}");
    subject.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SUBJECT_CHARS).collect()
}

fn heading(notification: &Notification) -> String {
    let state = |count: usize, word: &str| (count > 0).then(|| format!("{count} {word}"));
    let states = [state(notification.firing.len(), "firing"), state(notification.resolved.len(), "resolved")];
    let states: Vec<String> = states.into_iter().flatten().collect();
    let labels: Vec<String> =
        notification.group.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if labels.is_empty() {
        states.join(", ")
    } else {
        format!("{}: {}", labels.join(", "), states.join(", "))
    }
}

/// When something happened to an alert last, in words.
fn since(alert: &Alert) -> String {
    match (alert.status, alert.ended_at) {
        (AlertStatus::Resolved, Some(ended)) => format!("from {} to {ended}", alert.began_at),
        _ => format!("since {}", alert.began_at),
    }
}

fn labels(alert: &Alert) -> String {
    let labels: Vec<String> =
        label::all(alert).iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(", ")
}

fn unlisted(notification: &Notification) -> Option<String> {
    let more = all(notification).count().saturating_sub(MAX_LISTED_ALERTS);
    (more > 0).then(|| format!("{more} more alerts are not listed."))
}

fn text(notification: &Notification, dashboard: Option<&str>) -> String {
    let mut text = format!("{}\n", heading(notification));
    for alert in all(notification).take(MAX_LISTED_ALERTS) {
        let _ = write!(
            text,
            "\n{} {}\n  {}\n  {}\n  {}\n",
            alert.severity.as_str().to_uppercase(),
            alert.status,
            alert.summary,
            since(alert),
            labels(alert)
        );
        if let Some(given) = &alert.acknowledgement {
            let _ = writeln!(text, "  acknowledged by {}", given.by);
        }
        if let Some(url) = dashboard {
            let _ = writeln!(text, "  {}", alert_url(url, alert.id));
        }
    }
    if let Some(unlisted) = unlisted(notification) {
        let _ = write!(text, "\n{unlisted}\n");
    }
    text
}

fn html(notification: &Notification, dashboard: Option<&str>) -> String {
    let mut html = format!(
        "<!doctype html><html><body style=\"font-family:sans-serif\"><p><strong>{}</strong></p>",
        escaped(&heading(notification))
    );
    html.push_str("<table cellpadding=\"6\" style=\"border-collapse:collapse\">");
    for alert in all(notification).take(MAX_LISTED_ALERTS) {
        let summary = escaped(&alert.summary);
        let summary = match dashboard {
            Some(url) => format!("<a href=\"{}\">{summary}</a>", escaped(&alert_url(url, alert.id))),
            None => summary,
        };
        let acknowledged = alert
            .acknowledgement
            .as_ref()
            .map_or_else(String::new, |given| format!("<br>acknowledged by {}", escaped(&given.by)));
        let _ = write!(
            html,
            "<tr style=\"border-top:1px solid #ccc;vertical-align:top\"><td>{}<br>{}</td><td>{summary}<br>{}{acknowledged}<br><small>{}</small></td></tr>",
            alert.severity.as_str().to_uppercase(),
            alert.status,
            since(alert),
            escaped(&labels(alert))
        );
    }
    html.push_str("</table>");
    if let Some(unlisted) = unlisted(notification) {
        let _ = write!(html, "<p>{unlisted}</p>");
    }
    html.push_str("</body></html>\n");
    html
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
