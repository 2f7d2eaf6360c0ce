//! `farol alerts` and `farol silence`: what fires, and who need not be told of it.

use std::process::ExitCode;

use anyhow::ensure;
use farol_event::{Alert, AlertStatus, DurationText};
use farol_simulate::event_stream::percent_encoded;
use farol_simulate::services::Method;
use farol_view::query::silences::SilenceRow;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{all, ask, read};
use crate::cli::alerts::{Alerts, Silence, SilenceCommand};
use crate::client::{server, unless_interrupted};
use crate::settings::Settings;
use crate::terminal::{harmless, harmless_json, say, table};

/// An alert, and what holds it back.
#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    alert: Alert,
    silenced_by: Vec<Value>,
    inhibited_by: Vec<Value>,
}

/// Lists alerts.
pub fn list(arguments: &Alerts, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.target.url.as_deref(), settings)?;
    let status = match (&arguments.status, arguments.all) {
        (Some(status), _) => Some(status.as_str()),
        (None, true) => None,
        (None, false) => Some("firing,pending"),
    };
    let given = [
        ("status", status),
        ("severity", arguments.severity.as_deref()),
        ("service", arguments.service.as_deref()),
        ("source", arguments.source.as_deref()),
        ("rule", arguments.rule.as_deref()),
    ];
    let query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    unless_interrupted(async move {
        let alerts = all(&server, "alerts", &query).await?;
        if arguments.form.json {
            say(harmless_json(&serde_json::to_string_pretty(&alerts)?));
            return Ok(ExitCode::SUCCESS);
        }
        let rows = alerts.iter().map(|alert| read(alert).map(row)).collect::<anyhow::Result<Vec<_>>>()?;
        table(["BEGAN", "SEVERITY", "STATUS", "RULE", "SUMMARY"], rows);
        Ok(ExitCode::SUCCESS)
    })
}

fn row(listed: Listed) -> [String; 5] {
    let Listed { alert, silenced_by, inhibited_by } = listed;
    [
        alert.began_at.to_string(),
        alert.severity.to_string(),
        standing(&alert, !silenced_by.is_empty(), !inhibited_by.is_empty()),
        harmless(&alert.rule),
        harmless(&alert.summary),
    ]
}

/// The status, and why nobody is told any more, in a word.
fn standing(alert: &Alert, silenced: bool, inhibited: bool) -> String {
    let active = matches!(alert.status, AlertStatus::Pending | AlertStatus::Firing);
    let notes = [
        (alert.acknowledgement.is_some() && active, "acknowledged"),
        (silenced, "silenced"),
        (inhibited, "inhibited"),
    ];
    let notes = notes.into_iter().filter(|(so, _)| *so).map(|(_, word)| word);
    std::iter::once(alert.status.as_str()).chain(notes).collect::<Vec<_>>().join(", ")
}

/// Makes, lists or ends silences.
pub fn silence(arguments: Silence, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.url.as_deref(), settings)?;
    let json = arguments.form.json;
    unless_interrupted(async move {
        match arguments.command {
            SilenceCommand::Add { matchers, by, comment, lasts, starts } => {
                let duration = DurationText::new(lasts);
                let body = json!({
                    "matchers": matchers.join(","), "created_by": by, "comment": comment, "duration": duration,
                    "starts_at": starts,
                });
                tell(&ask(&server, Method::POST, "/api/silences", &body).await?, json)?;
            }
            SilenceCommand::List { all: every } => {
                let state = if every { "pending,active,expired" } else { "pending,active" };
                let silences = all(&server, "silences", &[("state", state)]).await?;
                if json {
                    say(harmless_json(&serde_json::to_string_pretty(&silences)?));
                } else {
                    let rows = silences
                        .iter()
                        .map(|silence| read(silence).map(silence_row))
                        .collect::<anyhow::Result<Vec<_>>>()?;
                    table(["ID", "STATE", "UNTIL", "BY", "MATCHERS", "COMMENT"], rows);
                }
            }
            SilenceCommand::Expire { ids, by } => {
                ensure!(!ids.is_empty(), "no silence is named; `farol silence list` shows them");
                let by = by.map(|by| format!("?by={}", percent_encoded(&by))).unwrap_or_default();
                for id in ids {
                    tell(
                        &ask(&server, Method::DELETE, &format!("/api/silences/{id}{by}"), &Value::Null)
                            .await?,
                        json,
                    )?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Says how a silence stands now.
fn tell(silence: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        say(harmless_json(&serde_json::to_string_pretty(silence)?));
        return Ok(());
    }
    let SilenceRow { silence, state } = read(silence)?;
    say(format_args!("{} is {} until {}", silence.id, state.as_str(), silence.ends_at));
    Ok(())
}

fn silence_row(row: SilenceRow) -> [String; 6] {
    let SilenceRow { silence, state } = row;
    [
        silence.id.to_string(),
        state.as_str().to_owned(),
        silence.ends_at.to_string(),
        harmless(&silence.created_by),
        harmless(&silence.matchers.to_string()),
        harmless(&silence.comment),
    ]
}
