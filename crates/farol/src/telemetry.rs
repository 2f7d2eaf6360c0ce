//! Farol's own log lines: to standard error, so that standard output stays with what was asked for.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::settings::TelemetrySettings;
use crate::settings::problem::{Origin, Problem, Problems};
use crate::settings::value::LogFormat;

/// Starts logging for the rest of the process. A filter that can't be read is a problem of the settings.
pub fn start(settings: &TelemetrySettings) -> Result<(), Problems> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| {
        let message = format!(
            "telemetry.log: `{}` is not a filter such as \"info\" or \"farol=debug,warn\": {error}",
            settings.log
        );
        Problems(vec![Problem::new(Origin::Default, message)])
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The second start of a process (only tests could do that) keeps the first subscriber.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
