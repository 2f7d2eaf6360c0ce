//! `farol simulate services` and `farol service`: simulated and watched services, over the API like any other client.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::bail;
use farol_event::service::SimulationApplied;
use farol_event::{DurationText, Timestamp};
use farol_simulate::services::Method;
use farol_simulate::{ServerUrl, ServiceOptions, ServiceSimulators, service_names};
use serde_json::{Map, Value};

use crate::api;
use crate::cli::service::{Outages, Service, ServiceCommand, SimulateServices};
use crate::client::{server, unless_interrupted, until_interrupted};
use crate::settings::Settings;
use crate::terminal::{harmless, say};

mod shown;

/// Simulates services until Ctrl-C.
pub fn simulate(arguments: &SimulateServices, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.target.url.as_deref(), settings)?;
    let names =
        if arguments.name.is_empty() { service_names(arguments.count) } else { arguments.name.clone() };
    let (outages, seed) = match arguments.outages {
        Outages::None => (false, None),
        Outages::Random(seed) => (true, seed),
    };
    let options = ServiceOptions {
        behaviour: SimulationApplied {
            failure_rate: arguments.failure_rate,
            latency_ms: millis(arguments.latency),
            latency_variation_ms: millis(arguments.latency_variation),
            down: false,
            until: None,
        },
        outages,
        port_base: arguments.port_base,
        check_interval: arguments.check_interval,
        ..ServiceOptions::new(names, seed.unwrap_or_else(a_seed))
    };
    until_interrupted(|shutdown| async move {
        let seed = options.seed;
        let simulators = ServiceSimulators::listen(options).await?;
        say(format_args!("{} services report to {server}; Ctrl-C stops", simulators.services().len()));
        for service in simulators.services() {
            say(format_args!("  {:<16} http://{}/work", service.name, service.address));
        }
        if outages {
            say(format_args!("outages come from the seed {seed}: --outages random:{seed} plays them again"));
        }
        simulators.run(server, shutdown).await?;
        say("the services have stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// A command about one service.
pub fn command(arguments: Service, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.url.as_deref(), settings)?;
    let json = arguments.form.json;
    unless_interrupted(async move {
        match arguments.command {
            ServiceCommand::List { state, search } => {
                shown::list(&server, state.as_deref(), search.as_deref(), json).await?;
            }
            ServiceCommand::Show { name } => shown::show(&server, &name, json).await?,
            ServiceCommand::Set { name, failure_rate, latency, latency_variation, down, up, lasts } => {
                let mut change = Map::new();
                let mut set = |key: &str, value: Option<Value>| {
                    change.extend(value.map(|value| (key.to_owned(), value)));
                };
                set("failure_rate", failure_rate.map(Value::from));
                set("latency_ms", latency.map(|latency| millis(latency).into()));
                set("latency_variation_ms", latency_variation.map(|variation| millis(variation).into()));
                set("down", if down { Some(true.into()) } else { up.then_some(false.into()) });
                let until = lasts.map(|lasts| now().saturating_add(lasts));
                set("until", until.map(|until| until.to_string().into()));
                if change.is_empty() {
                    bail!("nothing is to be set; see farol service set --help");
                }
                let done = ask(&server, Method::PATCH, &name, "/simulation", &change.into()).await?;
                tell(json, &done, format_args!("{} is told", harmless(&name)));
            }
            ServiceCommand::Heartbeat { name } => {
                let done = ask(&server, Method::POST, &name, "/heartbeat", &Value::Null).await?;
                tell(json, &done, format_args!("{} lives", harmless(&name)));
            }
            ServiceCommand::Maintenance { name, end: true, .. } => {
                let done = ask(&server, Method::DELETE, &name, "/maintenance", &Value::Null).await?;
                tell(json, &done, format_args!("the maintenance of {} is over", harmless(&name)));
            }
            ServiceCommand::Maintenance { name, by, reason, lasts, .. } => {
                let lasts = lasts.map(DurationText::new);
                let body = serde_json::json!({ "by": by, "reason": reason, "for": lasts });
                let done = ask(&server, Method::POST, &name, "/maintenance", &body).await?;
                tell(json, &done, format_args!("{} is in maintenance", harmless(&name)));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn ask(
    server: &ServerUrl,
    method: Method,
    name: &str,
    rest: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let id: farol_registry::ServiceId = name.parse()?;
    api::ask(server, method, &format!("/api/services/{id}{rest}"), body).await
}

/// What was done, as the server says it or in a sentence.
fn tell(json: bool, answer: &Value, sentence: impl Display) {
    if json { say(answer) } else { say(sentence) }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

/// A seed that differs from run to run and is short enough to be typed.
pub fn a_seed() -> u64 {
    u64::try_from(now().as_micros()).unwrap_or(0) % 1_000_000
}
