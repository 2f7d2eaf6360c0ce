//! The commands that talk to a running Farol as any other client would: `replay`, `load`, `simulate`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use farol_bus::{Bus as _, BusError};
use farol_simulate::load::StopAfter;
use farol_simulate::series::ColumnChoice;
use farol_simulate::{
    BusSink, HttpSink, LoadOptions, PlainProgress, Progress, ReplayOptions, SensorSimulators, SensorSpec,
    ServerUrl, Sink, TerminalProgress, demo_fleet, load, numbered_fleet, replay,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::settings::{Settings, SimulateSettings};
use crate::terminal::say;
use crate::{cli, kafka};

/// Sends a recorded series.
pub fn replay(arguments: cli::Replay, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.target.url.as_deref(), settings)?;
    let options = ReplayOptions {
        columns: ColumnChoice { time: arguments.time_column, value: arguments.value_column },
        unit: arguments.unit,
        factory_section: arguments.factory_section,
        machine_id: arguments.machine_id,
        zone: arguments.zone,
        speed: arguments.speed,
        batch: arguments.batch,
        max_errors: arguments.max_errors,
        skip_rows: arguments.skip_rows,
        ..ReplayOptions::new(arguments.file, server, arguments.sensor_id, arguments.sensor_type)
    };
    until_interrupted(|shutdown| async {
        let summary = replay::run(options, progress(), shutdown).await?;
        say(summary);
        Ok(ExitCode::SUCCESS)
    })
}

/// Sends made-up readings and measures. Fails when the server could not store readings, or lacks some that it
/// acknowledged.
pub fn load(arguments: cli::Load, settings: &Settings) -> anyhow::Result<ExitCode> {
    let options = LoadOptions {
        rate: arguments.rate,
        connections: arguments.connections,
        batch: arguments.batch,
        stop: arguments.readings.map_or(StopAfter::Duration(arguments.duration), StopAfter::Readings),
        sensors: arguments.sensors,
        sensor_prefix: arguments.sensor_prefix,
        alerts_fraction: arguments.alerts_fraction,
        reconnect: arguments.reconnect,
        acknowledged: arguments.acknowledged,
        alert_probes_per_second: arguments.alert_probes,
        sensor_topic: sensor_topic(settings),
        ..LoadOptions::new(server(arguments.target.url.as_deref(), settings)?)
    };
    let json = arguments.json;
    until_interrupted(|shutdown| async move {
        let summary = load::run(options, progress(), shutdown).await?;
        if json {
            say(serde_json::to_string_pretty(&summary)?);
        } else {
            say(&summary);
        }
        match summary.failure() {
            Some(failure) => Err(anyhow::Error::msg(failure)),
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Sends readings of simulated sensors.
pub fn simulate(arguments: &cli::Simulate, settings: &Settings) -> anyhow::Result<ExitCode> {
    let fleet = match arguments.sensors {
        Some(count) => numbered_fleet(count)?,
        None => configured_sensor(&settings.simulate)?.map_or_else(demo_fleet, |sensor| vec![sensor]),
    };
    let count = fleet.len();
    let simulators = SensorSimulators::new(fleet, arguments.seed)?;
    let limit = arguments.duration;
    until_interrupted(|shutdown| async move {
        let (sink, target) = match &settings.kafka.client.brokers {
            Some(_) if arguments.url.is_none() => {
                match shutdown.run_until_cancelled(kafka_sink(settings)).await {
                    Some(sink) => sink?,
                    None => return Ok(interrupted()),
                }
            }
            _ => {
                let server = server(arguments.url.as_deref(), settings)?;
                let target = server.to_string();
                (Sink::Http(HttpSink::new(server)), target)
            }
        };
        say(format_args!("{count} sensors send to {target}; Ctrl-C stops"));
        let stop_in_time = shutdown.clone();
        if let Some(limit) = limit {
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                stop_in_time.cancel();
            });
        }
        let summary = simulators.run(sink, shutdown).await?;
        say(format_args!(
            "{} sensors: {} readings accepted, {} rejected, {} skipped",
            summary.sensors, summary.accepted, summary.rejected, summary.skipped
        ));
        Ok(ExitCode::SUCCESS)
    })
}

/// The one sensor of the settings, if they name one.
fn configured_sensor(settings: &SimulateSettings) -> anyhow::Result<Option<SensorSpec>> {
    let Some(sensor_id) = &settings.sensor_id else { return Ok(None) };
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    let mut sensor = SensorSpec::of_type(sensor_id.as_str(), &settings.sensor_type)?;
    sensor.factory_section = shared(&settings.factory_section);
    sensor.machine_id = shared(&settings.machine_id);
    sensor.zone = shared(&settings.zone);
    sensor.producer = Arc::clone(&sensor.sensor_id);
    if let Some(interval) = settings.sampling_interval {
        sensor.interval = interval;
    }
    sensor.check()?;
    Ok(Some(sensor))
}

/// The Farol that is meant: named on the command line, or the one of the same settings.
pub fn server(url: Option<&str>, settings: &Settings) -> anyhow::Result<ServerUrl> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => format!("http://{}", settings.http.listen),
    };
    let server: ServerUrl = url.parse()?;
    Ok(match &settings.http.token {
        Some(token) => server.with_token(token)?,
        None => server,
    })
}

/// Where simulated readings go over the Kafka protocol, and its name for people.
async fn kafka_sink(settings: &Settings) -> anyhow::Result<(Sink, String)> {
    let bus = kafka::bus(settings, "simulators")?;
    // One that is away may come; one that has said no won't say yes.
    if let Err(error @ BusError::NoAccess { .. }) = bus.check(kafka::ANSWER_LIMIT).await {
        return Err(kafka::no_access(bus.brokers(), error));
    }
    let sink = BusSink {
        producer: bus.producer("simulators").await?,
        sensor_topic: settings.topic("sensor-data").into(),
        system_topic: settings.topic("system-events").into(),
    };
    let target = format!("topic {} at {}", sink.sensor_topic, bus.brokers());
    Ok((Sink::Bus(sink), target))
}

fn sensor_topic(settings: &Settings) -> String {
    settings.topic("sensor-data").to_owned()
}

/// A bar for people, lines for pipes.
fn progress() -> Arc<dyn Progress> {
    if io::stderr().is_terminal() {
        Arc::new(TerminalProgress::new())
    } else {
        Arc::new(PlainProgress::new(io::stderr()))
    }
}

/// What shells give for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// How a command ends that was interrupted before it had done anything.
pub fn interrupted() -> ExitCode {
    if io::stderr().is_terminal() {
        // What comes next shall not stand behind the terminal's `^C`.
        let _ = writeln!(io::stderr());
    }
    ExitCode::from(INTERRUPTED)
}

/// Runs a command that has nothing to bring to an end: the first Ctrl-C (or SIGTERM) ends it where it is.
pub fn unless_interrupted(
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    until_interrupted(|stop| async move {
        stop.run_until_cancelled(command).await.unwrap_or_else(|| Ok(interrupted()))
    })
}

/// Runs a command until it ends; the first Ctrl-C (or SIGTERM) asks it to stop in order, the second ends the process.
pub fn until_interrupted<F>(command: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let asked = shutdown.clone();
        let mut terminated = signal(SignalKind::terminate()).context("can't listen for signals")?;
        let mut pressed = signal(SignalKind::interrupt()).context("can't listen for signals")?;
        tokio::spawn(async move {
            for once_more in [false, true] {
                tokio::select! {
                    _ = pressed.recv() => {}
                    _ = terminated.recv() => {}
                }
                if once_more {
                    std::process::exit(INTERRUPTED.into());
                }
                asked.cancel();
            }
        });
        command(shutdown).await
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
