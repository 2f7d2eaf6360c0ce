//! The command line: what can be typed, and what the help says. Nothing runs here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use farol_simulate::Speed;
use farol_simulate::load::Rate;

pub mod alerts;
mod events;
pub mod kafka;
pub mod service;

pub use alerts::{Alerts, Silence};
pub use events::Events;
pub use kafka::{Brokers, Consume, Groups, Produce, Topics, Worker};
pub use service::{Demo, Service, SimulateWhat};

use crate::settings::layers::Flag;
use crate::settings::value::{LogFormat, RawValue, SettingValue as _};

/// Readings in, alerts and a live dashboard out: one binary that watches machines.
#[derive(Debug, Parser)]
#[command(
    name = "farol",
    version,
    disable_help_subcommand = true,
    after_help = "Start with `farol run --demo`, then open http://127.0.0.1:5000.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,

    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Settings file [default: ./farol.toml if it is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// What is logged: a level (error, warn, info, debug, trace), or target=level with commas between
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run Farol: log, rules, views, API and dashboard in one process
    #[command(after_help = "Examples:\n  \
        farol run --demo                       with simulated sensors\n  \
        farol run --data /var/lib/farol        on a folder of your choice\n  \
        farol run --rules rules.toml           with rules of your own\n  \
        FAROL_HTTP_TOKEN=… farol run --listen 0.0.0.0:5000")]
    Run(Run),

    /// Send a recorded series from a CSV file to a running Farol
    #[command(after_help = "Examples:\n  \
        farol replay temperature.csv --sensor-id machine-7 --sensor-type temperature\n  \
        farol replay temperature.csv --sensor-id machine-7 --sensor-type temperature --speed 3600\n  \
        farol replay log.csv --sensor-id m7 --sensor-type vibration --time-column when --value-column rms")]
    Replay(Replay),

    /// Send made-up readings to a running Farol as fast as it takes them, and measure
    #[command(after_help = "Examples:\n  \
        farol load --duration 30s --batch 1000 --connections 4\n  \
        farol load --rate 20000 --batch 1 --connections 64")]
    Load(Load),

    /// Send readings of simulated sensors to a running Farol, over HTTP or over the Kafka protocol, or simulate services
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  \
        farol simulate --sensors 20\n  \
        farol simulate --sensors 20 --brokers 127.0.0.1:9092\n  \
        farol simulate services --count 3\n  \
        SENSOR_ID=temp-sensor-001 SENSOR_TYPE=temperature SAMPLING_INTERVAL=3.0 farol simulate"
    )]
    Simulate(Simulate),

    /// Look at services, say what is known of watched ones, and steer simulated ones
    #[command(after_help = "Examples:\n  \
        farol service list\n  \
        farol service show shop\n  \
        farol service maintenance shop --by ana --for 30m")]
    Service(Service),

    /// List the alerts of a running Farol: those that fire or are pending
    #[command(after_help = "Examples:\n  \
        farol alerts\n  \
        farol alerts --severity critical --service shop\n  \
        farol alerts --all --json | jq '.[].summary'")]
    Alerts(Alerts),

    /// Silence alerts, list silences and end them
    #[command(after_help = "Examples:\n  \
        farol silence add service=shop --by ana --comment \"new disk\" --for 2h\n  \
        farol silence list\n  \
        farol silence expire 0190b0b5-7c2e-7000-8000-000000000001 --by ana")]
    Silence(Silence),

    /// Play a demonstration, on the terminal and on the dashboard
    #[command(subcommand)]
    Demo(Demo),

    /// Run the rules in a process of its own, as a member of the workers' group
    #[command(after_help = "Examples:\n  \
        farol run --workers 0                  somewhere: the log, the views, the dashboard\n  \
        farol worker                           beside it, as many as wanted\n  \
        farol worker --brokers plant-7:9092 --consumer-id line-3\n  \
        CONSUMER_ID=consumer-1 KAFKA_BROKERS=127.0.0.1:9092 farol worker\n\n\
        It evaluates the rules that `farol run` publishes, and follows their changes. Ctrl-C commits and leaves the group.")]
    Worker(Worker),

    /// Print events of a running Farol, and follow what comes
    #[command(after_help = "Examples:\n  \
        farol events                                           the newest hundred\n  \
        farol events --follow                                  the newest ten, then what comes\n  \
        farol events --follow --type alerta_gerado,alerta_resolvido\n  \
        farol events --source loja --json | jq .data")]
    Events(Events),

    /// Look at topics, make and delete them, over the Kafka protocol
    #[command(after_help = "Examples:\n  \
        farol topics\n  \
        farol topics describe sensor-data\n  \
        farol topics create measurements --partitions 6 --topic-config retention.ms=86400000\n  \
        farol topics list --json --brokers plant-7:9092")]
    Topics(Topics),

    /// Look at consumer groups, reset and delete them, over the Kafka protocol
    #[command(after_help = "Examples:\n  \
        farol groups\n  \
        farol groups describe sensor-processors\n  \
        farol groups reset my-readers --topic alerts --to earliest")]
    Groups(Groups),

    /// Print the records of a topic, one a line, over the Kafka protocol
    #[command(after_help = "Examples:\n  \
        farol consume alerts                                   new ones, as they come\n  \
        farol consume alerts --from-beginning --pretty         all there are, readable\n  \
        farol consume sensor-data --partition 0 --offset 100 --max-messages 5\n  \
        farol consume sensor-data --from-beginning --json | jq .value.sensor_id\n  \
        farol consume alerts --group my-readers                with others, each record once")]
    Consume(Consume),

    /// Send lines as records of a topic, over the Kafka protocol
    #[command(after_help = "Examples:\n  \
        farol produce notes                                    what is typed; Ctrl-D ends\n  \
        farol produce sensor-data --key temp-1 readings.ndjson\n  \
        printf 'temp-1:{\"sensor_id\":\"temp-1\",\"value\":42.5}\\n' | farol produce sensor-data --key-separator :")]
    Produce(Produce),

    /// Look at rule files
    #[command(subcommand)]
    Rules(RulesCommand),

    /// Look at the views, and rebuild them from the log
    #[command(subcommand)]
    View(ViewCommand),

    /// Print every setting as it stands, and where it came from
    #[command(after_help = "Example:\n  farol settings --example > farol.toml")]
    Settings {
        /// With a sentence about each
        #[arg(long)]
        explain: bool,
        /// Print a settings file to start from instead: every setting, explained and commented out
        #[arg(long, conflicts_with = "explain")]
        example: bool,
    },

    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  farol completions bash > ~/.local/share/bash-completion/completions/farol"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Write the manual pages into a folder
    Man {
        /// The folder, made if it is missing
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },

    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Simulate sensors of every type, so that there is something to see
    #[arg(long)]
    pub demo: bool,

    /// Address and port of API and dashboard [default: 127.0.0.1:5000]; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address and port for Kafka clients [default: 127.0.0.1:9092]; port 0 takes a free one, `off` is none
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka_listen: Option<String>,

    /// Folder of everything that is kept [default: ./farol-data]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,

    /// Number of workers that run the rules [default: 3]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,

    /// A rule file; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub rules: Vec<PathBuf>,

    /// Open the dashboard in the browser
    #[arg(long)]
    pub open: bool,
}

/// Which Farol a client command talks to.
#[derive(Debug, Args)]
pub struct Target {
    /// Address of the running Farol [default: the settings' http.listen]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// The CSV file, with a header line
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Sensor that the readings belong to
    #[arg(long, value_name = "ID")]
    pub sensor_id: String,

    /// Its type: temperature, vibration, energy, humidity, pressure or any other
    #[arg(long, value_name = "TYPE")]
    pub sensor_type: String,

    /// Column with the time: its name, or its number from 1 [default: found by its name]
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,

    /// Column with the value: its name, or its number from 1 [default: found by its name]
    #[arg(long, value_name = "COLUMN")]
    pub value_column: Option<String>,

    /// Unit of the values [default: the type's own]
    #[arg(long)]
    pub unit: Option<String>,

    /// Section of the plant that the readings name
    #[arg(long, value_name = "NAME")]
    pub factory_section: Option<String>,

    /// Machine that the readings name
    #[arg(long, value_name = "ID")]
    pub machine_id: Option<String>,

    /// Zone that the readings name
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,

    /// Seconds of the series per second of the clock, or max
    #[arg(long, default_value = "max", value_name = "FACTOR")]
    pub speed: Speed,

    /// Readings in one request
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub batch: usize,

    /// Rows to leave out at the start, to go on where an interrupted replay said that it stopped
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub skip_rows: u64,

    /// Bad rows and refused readings after which the replay gives up
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub max_errors: u64,

    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Load {
    /// Readings a second over all connections, or max
    #[arg(long, value_name = "N", default_value = "max")]
    pub rate: Rate,

    /// Readings in one request; 1 sends single JSON readings
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub batch: usize,

    /// Connections used at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub connections: usize,

    /// How long to send, for example 30s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub duration: Duration,

    /// Stop after this many readings instead of after a time
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub readings: Option<u64>,

    /// Different sensors
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub sensors: usize,

    /// What the sensors' ids begin with
    #[arg(long, value_name = "TEXT", default_value = "load")]
    pub sensor_prefix: String,

    /// Share of the readings, from 0 to 1, that are above the critical threshold
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub alerts_fraction: f64,

    /// Measure the time from a reading to its alert on /api/stream, this many times a second
    #[arg(long, value_name = "N")]
    pub alert_probes: Option<f64>,

    /// Open lost connections again instead of ending them
    #[arg(long)]
    pub reconnect: bool,

    /// Write every acknowledged reading into this file, as CSV
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub acknowledged: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
// The brokers are nothing to `simulate services`.
#[command(mut_args(|argument| argument.global(false)))]
#[command(mut_arg("brokers", |argument| argument.help("Kafka brokers, to send over the Kafka protocol instead")))]
pub struct Simulate {
    #[command(subcommand)]
    pub what: Option<SimulateWhat>,

    /// Number of sensors, of all types [default: the sensor of the settings, or a small plant]
    #[arg(long, value_name = "N")]
    pub sensors: Option<usize>,

    /// How long to send, for example 10m; until Ctrl-C without it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Seed of the made-up values; every run is different without it
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Address of the running Farol, to send over HTTP [default: the settings' http.listen]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with = "brokers")]
    pub url: Option<String>,

    #[command(flatten)]
    pub brokers: Brokers,
}

/// Durations are written as in the settings.
fn duration(text: &str) -> Result<Duration, String> {
    Duration::from_raw(&RawValue::Bare(text.to_owned())).map_err(|expected| format!("it must be {expected}"))
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Read rule files: print every problem, or a table of the rules
    #[command(after_help = "Example:\n  farol rules check rules.toml")]
    Check {
        /// The rule files; together, because names must be unique among them
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ViewCommand {
    /// The views, and how far each has read the log
    List(DataFolder),

    /// Empty a view and build it again from the log; Farol must not be running on the folder
    #[command(after_help = "Example:\n  farol view rebuild alerts --data ./farol-data")]
    Rebuild {
        /// Name of the view; see `farol view list`
        name: String,
        #[command(flatten)]
        folder: DataFolder,
    },
}

#[derive(Debug, Args)]
pub struct DataFolder {
    /// The data folder [default: the settings' data.dir]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
}

impl Cli {
    /// What was given on the command line and is a setting too.
    pub fn setting_flags(&self) -> Vec<Flag> {
        let bare = |text: &str| RawValue::Bare(text.to_owned());
        let path = |path: &PathBuf| RawValue::Text(path.to_string_lossy().into_owned());
        let mut flags = Vec::new();
        let mut add = |key, flag, value: Option<RawValue>| {
            if let Some(value) = value {
                flags.push(Flag { key, flag, value });
            }
        };
        add("telemetry.log", "--log", self.common.log.as_deref().map(bare));
        add(
            "telemetry.format",
            "--log-format",
            self.common.log_format.map(|format| bare(&format.to_string())),
        );
        match &self.command {
            Command::Run(run) => {
                add("http.listen", "--listen", run.listen.as_deref().map(bare));
                add("kafka.listen", "--kafka-listen", run.kafka_listen.as_deref().map(bare));
                add("data.dir", "--data", run.data.as_ref().map(path));
                add("pipeline.workers", "--workers", run.workers.as_deref().map(bare));
                let rules =
                    (!run.rules.is_empty()).then(|| RawValue::List(run.rules.iter().map(path).collect()));
                add("rules.files", "--rules", rules);
            }
            Command::Demo(Demo::Resilience(demo)) => {
                add("kafka.brokers", "--brokers", demo.brokers.as_deref().map(bare));
            }
            Command::Simulate(Simulate { brokers, .. })
            | Command::Topics(Topics { brokers, .. })
            | Command::Groups(Groups { brokers, .. })
            | Command::Consume(Consume { brokers, .. })
            | Command::Produce(Produce { brokers, .. }) => {
                brokers.given().into_iter().for_each(|(key, flag, value)| add(key, flag, value));
            }
            Command::Worker(worker) => {
                worker.brokers.given().into_iter().for_each(|(key, flag, value)| add(key, flag, value));
                add("pipeline.group", "--group", worker.group.as_deref().map(bare));
                add("pipeline.consumer_id", "--consumer-id", worker.consumer_id.as_deref().map(bare));
            }
            Command::View(ViewCommand::List(folder) | ViewCommand::Rebuild { folder, .. }) => {
                add("data.dir", "--data", folder.data.as_ref().map(path));
            }
            _ => {}
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {} has no help",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn flags_that_are_settings_name_themselves() {
        let cli = Cli::parse_from([
            "farol",
            "run",
            "--listen",
            "127.0.0.1:0",
            "--rules",
            "a",
            "--rules",
            "b",
            "--log",
            "debug",
        ]);
        let flags: Vec<_> = cli.setting_flags().into_iter().map(|flag| (flag.key, flag.flag)).collect();
        assert_eq!(
            flags,
            [("telemetry.log", "--log"), ("http.listen", "--listen"), ("rules.files", "--rules")]
        );
    }
}
