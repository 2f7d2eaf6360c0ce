//! The `farol` binary: arguments, settings file and environment become resolved settings; one list starts the parts;
//! signals end them in order.
//!
//! Nothing else lives here, and nobody depends on it. It is the only place that reads the process's environment and the
//! only one that knows every crate.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 130 interrupted.

mod alerts;
mod api;
mod cli;
mod client;
mod data_folder;
mod demo;
mod events;
mod kafka;
mod paper;
mod rules_check;
mod run;
mod services;
mod settings;
mod telemetry;
mod terminal;
mod view_commands;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, Demo, RulesCommand, SimulateWhat, ViewCommand};
use settings::listing::{Explanations, example, listing};
use settings::problem::Problems;
use settings::{Role, Settings, Sources};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads may be gone; there is nobody left to tell.
            let _ = writeln!(io::stderr(), "farol: {}", terminal::with_causes(error.as_ref()));
            ExitCode::from(if error.is::<Problems>() { 2 } else { 1 })
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    // What needs no settings works even where the settings are wrong.
    match &cli.command {
        Command::Version => terminal::say(format_args!("farol {}", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => paper::completions(*shell, &mut io::stdout().lock())?,
        Command::Man { dir } => paper::manual(dir)?,
        Command::Settings { example: true, .. } => write!(io::stdout(), "{}", example())?,
        Command::Rules(RulesCommand::Check { files }) => return rules_check::check(files),
        _ => return with_settings(cli),
    }
    Ok(ExitCode::SUCCESS)
}

fn with_settings(cli: Cli) -> anyhow::Result<ExitCode> {
    let role = if matches!(cli.command, Command::Run(_)) { Role::Server } else { Role::Client };
    let sources = Sources {
        file: cli.common.config.clone(),
        environment: environment(),
        flags: cli.setting_flags(),
        role,
    };
    let (settings, given) = Settings::load(sources)?;
    telemetry::start(&settings.telemetry)?;
    if matches!(cli.command, Command::Run(_) | Command::Settings { .. }) {
        for warning in settings.notify.warnings() {
            tracing::warn!("{warning}");
        }
    }
    match cli.command {
        Command::Run(arguments) => run::run(&arguments, &settings),
        Command::Replay(arguments) => client::replay(arguments, &settings),
        Command::Load(arguments) => client::load(arguments, &settings),
        Command::Simulate(cli::Simulate { what: Some(SimulateWhat::Services(arguments)), .. }) => {
            services::simulate(&arguments, &settings)
        }
        Command::Simulate(arguments) => client::simulate(&arguments, &settings),
        Command::Events(arguments) => events::run(&arguments, &settings),
        Command::Service(arguments) => services::command(arguments, &settings),
        Command::Alerts(arguments) => alerts::list(&arguments, &settings),
        Command::Silence(arguments) => alerts::silence(arguments, &settings),
        Command::Demo(Demo::Resilience(arguments)) => demo::run(&arguments, &settings),
        Command::Topics(arguments) => kafka::topics::run(arguments, &settings),
        Command::Groups(arguments) => kafka::groups::run(arguments, &settings),
        Command::Consume(arguments) => kafka::consume::run(arguments, &settings),
        Command::Produce(arguments) => kafka::produce::run(arguments, &settings),
        Command::Worker(arguments) => kafka::worker::run(&arguments, &settings, &given),
        Command::View(ViewCommand::List(_)) => view_commands::list(&settings),
        Command::View(ViewCommand::Rebuild { name, .. }) => view_commands::rebuild(&name, &settings),
        Command::Settings { explain, .. } => {
            let explanations = if explain { Explanations::With } else { Explanations::Without };
            write!(io::stdout(), "{}", listing(&given, explanations))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Version | Command::Completions { .. } | Command::Man { .. } | Command::Rules(_) => {
            unreachable!("these need no settings and were dispatched before")
        }
    }
}

/// The process's environment; variables that aren't UTF-8 can't be settings and are left out.
fn environment() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
