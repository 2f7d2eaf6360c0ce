//! `farol service list` and `farol service show`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use farol_event::{Alert, AlertStatus, DurationText, Timestamp};
use farol_simulate::ServerUrl;
use farol_simulate::event_stream::percent_encoded;
use farol_view::query::policies::Policy;
use farol_view::query::services::{Service, ServiceCheck};
use serde::Deserialize;
use serde_json::Value;

use super::now;
use crate::api::{all, get, read};
use crate::terminal::{harmless, harmless_json, say, table};

/// What stands where nothing is known.
const UNKNOWN: &str = "-";
/// The kind of policy that is a circuit breaker.
const BREAKER: &str = "circuit_breaker";

/// Lists services.
pub async fn list(
    server: &ServerUrl,
    states: Option<&str>,
    search: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let given = [("state", states), ("search", search)];
    let query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let services = all(server, "services", &query).await?;
    if json {
        say(harmless_json(&serde_json::to_string_pretty(&services)?));
        return Ok(());
    }
    let mut alerts: BTreeMap<String, usize> = BTreeMap::new();
    for alert in all(server, "alerts", &[("status", "firing,pending")]).await? {
        if let Some(service) = alert.pointer("/labels/service").and_then(Value::as_str) {
            *alerts.entry(service.to_owned()).or_default() += 1;
        }
    }
    let now = now();
    let row = |service: Service| {
        let active = alerts.get(&service.service).copied().unwrap_or(0);
        [
            harmless(&service.service),
            service.state.as_str().to_owned(),
            ago(service.last_check_at, now),
            number(service.response_time_ms, " ms"),
            number(service.error_rate_percent, " %"),
            number(service.requests_per_second, ""),
            number(service.cpu_percent, " %"),
            memory(&service),
            uptime(service.uptime_seconds),
            active.to_string(),
            service.breakers_open.to_string(),
        ]
    };
    let rows = services.iter().map(|service| read(service).map(row)).collect::<anyhow::Result<Vec<_>>>()?;
    let header = [
        "SERVICE",
        "STATE",
        "CHECKED",
        "RESPONSE",
        "ERRORS",
        "REQUESTS/S",
        "CPU",
        "MEMORY",
        "UPTIME",
        "ALERTS",
        "OPEN BREAKERS",
    ];
    table(header, rows);
    Ok(())
}

/// What is shown of a service's story.
#[derive(Deserialize)]
struct Detail {
    service: Service,
    checks: Vec<ServiceCheck>,
    policies: Vec<Policy>,
    alerts: Vec<Alert>,
}

/// Shows one service.
pub async fn show(server: &ServerUrl, name: &str, json: bool) -> anyhow::Result<()> {
    let answer =
        get(server, &format!("/api/services/{}", percent_encoded(name))).await.with_context(|| {
            format!("`{}` can't be shown; `farol service list` lists services", harmless(name))
        })?;
    if json {
        say(harmless_json(&serde_json::to_string_pretty(&answer)?));
        return Ok(());
    }
    let Detail { service, checks, policies, mut alerts } = read(&answer)?;
    alerts.retain(|alert| matches!(alert.status, AlertStatus::Pending | AlertStatus::Firing));
    let now = now();
    say(format_args!("{} is {} since {}", harmless(&service.service), service.state.as_str(), service.since));
    for (name, fact) in facts(&service, alerts.len(), now) {
        say(format_args!("  {name:<14}{}", harmless(&fact)));
    }
    if !checks.is_empty() {
        table(["CHECK", "STATE", "SINCE", "CRITICAL", "REASON"], checks.iter().map(check_row));
    }
    if !alerts.is_empty() {
        table(["ALERT", "SEVERITY", "STATUS", "BEGAN", "SUMMARY"], alerts.iter().map(alert_row));
    }
    let breakers: Vec<_> = policies.into_iter().filter(|policy| policy.kind == BREAKER).collect();
    if !breakers.is_empty() {
        table(
            ["BREAKER", "CALLER", "SERVICE", "STATE", "SINCE", "CAUSE"],
            breakers.into_iter().map(breaker_row),
        );
    }
    Ok(())
}

/// What is known of a service, each with its name.
fn facts(service: &Service, alerts: usize, now: Timestamp) -> Vec<(&'static str, String)> {
    let known = |text: &Option<String>| text.clone();
    let always = [
        ("last check", ago(service.last_check_at, now)),
        ("response time", number(service.response_time_ms, " ms")),
        ("error rate", number(service.error_rate_percent, " %")),
        ("requests/s", number(service.requests_per_second, "")),
        ("CPU", number(service.cpu_percent, " %")),
        ("memory", memory(service)),
        ("uptime", uptime(service.uptime_seconds)),
        ("alerts", alerts.to_string()),
        ("open breakers", service.breakers_open.to_string()),
    ];
    let told = [
        ("why", known(&service.reason)),
        ("kind", known(&service.kind)),
        ("version", known(&service.version)),
        ("address", known(&service.address)),
        ("about", known(&service.description)),
    ];
    told.into_iter().filter_map(|(name, fact)| Some((name, fact?))).chain(always).collect()
}

fn check_row(check: &ServiceCheck) -> [String; 5] {
    [
        harmless(&check.check),
        check.state.as_str().to_owned(),
        check.since.to_string(),
        if check.critical { "yes" } else { "no" }.to_owned(),
        check.reason.as_deref().map_or_else(String::new, harmless),
    ]
}

fn alert_row(alert: &Alert) -> [String; 5] {
    [
        harmless(&alert.rule),
        alert.severity.to_string(),
        alert.status.as_str().to_owned(),
        alert.began_at.to_string(),
        harmless(&alert.summary),
    ]
}

fn breaker_row(breaker: Policy) -> [String; 6] {
    let text = |text: Option<String>| text.as_deref().map_or_else(|| UNKNOWN.to_owned(), harmless);
    [
        harmless(&breaker.name),
        harmless(&breaker.caller),
        text(breaker.service),
        text(breaker.state),
        breaker.since.map_or_else(|| UNKNOWN.to_owned(), |since| since.to_string()),
        text(breaker.cause),
    ]
}

fn number(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:.1}{unit}"))
}

fn memory(service: &Service) -> String {
    let megabytes = service.memory_bytes.map(|bytes| format!("{:.1} MB", bytes / 1e6));
    let share = service.memory_percent.map(|share| format!("{share:.1} %"));
    let told: Vec<_> = megabytes.into_iter().chain(share).collect();
    if told.is_empty() { UNKNOWN.to_owned() } else { told.join(", ") }
}

fn uptime(seconds: Option<f64>) -> String {
    let lasts = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    lasts.map_or_else(|| UNKNOWN.to_owned(), whole_seconds)
}

fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| UNKNOWN.to_owned(), |at| format!("{} ago", whole_seconds(now.since(at))))
}

fn whole_seconds(duration: Duration) -> String {
    DurationText::new(Duration::from_secs(duration.as_secs())).to_string()
}
