//! What a started Farol tells its terminal.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::parts::Started;
use crate::settings::Settings;
use crate::settings::value::show_duration;

/// Where everything is, what was repaired, and how to go on.
pub fn text(settings: &Settings, started: &Started, elapsed: Duration) -> String {
    let mut lines = vec![
        format!("Farol {}", env!("CARGO_PKG_VERSION")),
        format!("  dashboard  {}", started.dashboard),
        format!("  kafka      {}", kafka(started)),
        format!("  data       {}", started.data_dir.display()),
        format!("  rules      {}", rules(settings, started)),
    ];
    lines.extend(recovery(started).map(|line| format!("  recovered  {line}")));
    if started.disk_full {
        lines.push(
            "  DISK       the disk is full: what is there can be read, readings are refused until there is space"
                .to_owned(),
        );
    }
    if !started.cleared_views.is_empty() {
        lines.push(format!("  views      built again from the log: {}", started.cleared_views.join(", ")));
    }
    lines.push(String::new());
    if started.simulated_sensors > 0 {
        lines.push(format!("{} simulated sensors are sending.", started.simulated_sensors));
        if !started.simulated_services.is_empty() {
            let names = started.simulated_services.join(", ");
            lines.push(format!("Simulated services: {names}; farol service set NAME --down --for 30s"));
        }
    } else {
        lines.push("Send a reading:".to_owned());
        lines.push(curl(settings, &started.dashboard));
        lines.push("Or see it at work: farol run --demo".to_owned());
    }
    lines.push(String::new());
    lines.push(format!("Ready in {} ms. Ctrl-C stops.", elapsed.as_millis()));
    lines.join("\n")
}

fn kafka(started: &Started) -> String {
    started.kafka.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

fn rules(settings: &Settings, started: &Started) -> String {
    let count = started.rules;
    match (settings.rules.files.len(), settings.rules.defaults) {
        (0, true) => format!("{count}, the built-in thresholds"),
        (0, false) => "none: no alert will be raised".to_owned(),
        (files, defaults) => {
            let plural = if files == 1 { "" } else { "s" };
            let built_in = if defaults { " and the built-in thresholds" } else { "" };
            format!("{count}, from {files} file{plural}{built_in}")
        }
    }
}

/// Said only when there was something to repair.
fn recovery(started: &Started) -> Option<String> {
    let recovered = &started.recovery;
    if recovered.clean_shutdown && recovered.torn_bytes == 0 {
        return None;
    }
    let torn = match recovered.torn_bytes {
        0 => "no torn tail".to_owned(),
        bytes => format!("{bytes} bytes of a torn tail cut, none of them acknowledged"),
    };
    let took = show_duration(recovered.elapsed);
    Some(format!(
        "not stopped in order before; {} records read back, {torn}, in {took}",
        recovered.records_replayed
    ))
}

/// A command that can be copied as it is.
fn curl(settings: &Settings, address: &str) -> String {
    let token =
        if settings.http.token.is_some() { " -H \"authorization: Bearer $FAROL_HTTP_TOKEN\"" } else { "" };
    format!(
        "  curl {address}/api/readings -H 'content-type: application/json'{token} \\\n    \
         -d '{{\"sensor_id\": \"temp-1\", \"sensor_type\": \"temperature\", \"value\": 42.5, \"unit\": \"°C\"}}'"
    )
}

/// Opens the dashboard where the desktop has a way to do so.
pub fn open_browser(address: &str) {
    let opened = Command::new("xdg-open")
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = opened {
        tracing::warn!(%error, "no browser could be opened; open {address} by hand");
    }
}
