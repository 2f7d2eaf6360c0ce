//! `farol simulate services` and `farol service`: simulated and watched services, over the API like any other client.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use farol_event::service::SimulationApplied;
use farol_event::{DurationText, Timestamp};
use farol_simulate::services::Method;
use farol_simulate::{ServerUrl, ServiceOptions, ServiceSimulators, service_names, services};
use serde_json::{Map, Value, json};

use crate::cli::service::{Outages, Service, ServiceCommand, SimulateServices};
use crate::client::{server, until_interrupted};
use crate::settings::Settings;
use crate::terminal::{harmless, say};

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
    until_interrupted(|_| async move {
        match arguments.command {
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
                ask(&server, Method::PATCH, &name, "/simulation", &change.into()).await?;
                say(format_args!("{} is told", harmless(&name)));
            }
            ServiceCommand::Heartbeat { name } => {
                ask(&server, Method::POST, &name, "/heartbeat", &Value::Null).await?;
                say(format_args!("{} lives", harmless(&name)));
            }
            ServiceCommand::Maintenance { name, end: true, .. } => {
                ask(&server, Method::DELETE, &name, "/maintenance", &Value::Null).await?;
                say(format_args!("the maintenance of {} is over", harmless(&name)));
            }
            ServiceCommand::Maintenance { name, by, reason, lasts, .. } => {
                let lasts = lasts.map(DurationText::new);
                let body = json!({ "by": by, "reason": reason, "for": lasts });
                ask(&server, Method::POST, &name, "/maintenance", &body).await?;
                say(format_args!("{} is in maintenance", harmless(&name)));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn ask(server: &ServerUrl, method: Method, name: &str, rest: &str, body: &Value) -> anyhow::Result<()> {
    let id: farol_registry::ServiceId = name.parse()?;
    let path = format!("/api/services/{id}{rest}");
    let answer =
        services::call(server, method, &path, body).await.with_context(|| format!("asking {server}"))?;
    if answer.status.is_success() {
        return Ok(());
    }
    bail!("{}", harmless(&services::problem_of(&answer)))
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
