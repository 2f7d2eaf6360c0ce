//! `farol run`: every part in one process, started from one list and stopped in the reverse order.
//!
//! Order of starting: log and bus, store of the views, rules, pipeline (workers, views, notifier), service checks, Kafka, HTTP, watch over the rule
//! files, simulators. A part that can't start ends the run with an error that says what to do; what had started before it
//! is stopped in order. Stopping says each step and names who is late; a second Ctrl-C ends the process at once, which
//! loses nothing that was acknowledged.
//!
//! Parts, in reading order: [`parts`] (the list), [`stops`] (the way back), [`kafka`], [`rules_watch`], [`open_files`], [`control`] and
//! [`metrics`] (what HTTP asks), [`greeting`].

mod control;
mod greeting;
mod kafka;
pub mod metrics;
mod notify;
mod open_files;
pub mod parts;
mod rules_watch;
pub mod stops;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli;
use crate::settings::Settings;
use crate::terminal::say;
use stops::{PART_LIMIT, Stops};

/// What the shell reports for a process that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;
/// How long the runtime waits for file and database work that nobody waits for any more.
const RUNTIME_LIMIT: Duration = Duration::from_secs(2);

/// Runs until a signal ends it.
pub fn run(arguments: &cli::Run, settings: &Settings) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    open_files::raise_limit(settings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("farol")
        .build()
        .context("can't start the runtime")?;
    let result = runtime.block_on(serve(arguments, settings, began));
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    result
}

async fn serve(arguments: &cli::Run, settings: &Settings, began: Instant) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("can't listen to signals")?;
    let mut stops = Stops::new(PART_LIMIT);
    let started = tokio::select! {
        started = parts::start(settings, arguments.demo, &mut stops) => Some(started),
        name = signals.next() => {
            say(format_args!("{name} while starting"));
            None
        }
    };
    let failed = match started {
        Some(Ok(started)) => {
            say(greeting::text(settings, &started, began.elapsed()));
            if arguments.open {
                greeting::open_browser(&started.dashboard);
            }
            let name = signals.next().await;
            say(format_args!("\n{name}: stopping in order; once more ends at once"));
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    tokio::select! {
        () = stops.stop_all() => {}
        name = signals.next() => {
            say(format_args!("{name} again: ended at once, before everything had stopped; the next start recovers"));
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            say("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The signals that end Farol.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
