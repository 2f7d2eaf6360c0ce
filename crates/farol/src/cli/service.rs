//! The commands about services: simulated ones, watched ones, and the demonstration.

use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueHint};

use super::Target;
use super::kafka::Form;

/// What else is simulated.
#[derive(Debug, Subcommand)]
pub enum SimulateWhat {
    /// Services: HTTP servers on loopback that fail and are slow as they are told
    #[command(after_help = "Examples:\n  \
        farol simulate services --count 3\n  \
        farol simulate services --name shop,db --failure-rate 0.2 --latency 50ms\n  \
        farol simulate services --count 20 --outages random:42\n\n\
        Steer them while they run: farol service set payments --failure-rate 0.5 --latency 200ms --for 30s")]
    Services(SimulateServices),
}

#[derive(Debug, Args)]
pub struct SimulateServices {
    /// Number of services
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "name")]
    pub count: usize,

    /// Their names, with commas between
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = watchable)]
    pub name: Vec<String>,

    /// Share of requests to /work that fail, from 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.02, value_parser = rate)]
    pub failure_rate: f64,

    /// How long an answer takes
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = super::duration)]
    pub latency: Duration,

    /// By how much that varies, up and down
    #[arg(long, value_name = "DURATION", default_value = "30ms", value_parser = super::duration)]
    pub latency_variation: Duration,

    /// Outages by themselves: none, random, or random:SEED
    #[arg(long, value_name = "SCHEDULE", default_value = "none", value_parser = outages)]
    pub outages: Outages,

    /// Port of the first; the next ones follow [default: free ones]
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,

    /// How often Farol checks each
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration)]
    pub check_interval: Duration,

    #[command(flatten)]
    pub target: Target,
}

/// Whether services have outages by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outages {
    /// They have none.
    None,
    /// Out of this seed, or any.
    Random(Option<u64>),
}

fn outages(text: &str) -> Result<Outages, String> {
    match text.split_once(':') {
        None if text == "none" => Ok(Outages::None),
        None if text == "random" => Ok(Outages::Random(None)),
        Some(("random", seed)) => seed
            .parse()
            .map(|seed| Outages::Random(Some(seed)))
            .map_err(|_| "the seed must be a whole number".into()),
        _ => Err("it must be none, random or random:SEED".into()),
    }
}

/// A name under which Farol can watch a service.
fn watchable(text: &str) -> Result<String, String> {
    text.parse::<farol_registry::ServiceId>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it must be a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("it must be from 0 to 1".into()) }
}

#[derive(Debug, Args)]
pub struct Service {
    /// Address of the running Farol [default: the settings' http.listen]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,

    #[command(flatten)]
    pub form: Form,

    #[command(subcommand)]
    pub command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Every service: state, last check, response time, errors, load, uptime, active alerts, open breakers
    #[command(after_help = "Examples:\n  \
        farol service list\n  \
        farol service list --state down,degraded\n  \
        farol service list --json | jq '.[].service'")]
    List {
        /// Only in one of these states, with commas between: starting, up, degraded, down, unknown, maintenance
        #[arg(long, value_name = "STATES")]
        state: Option<String>,

        /// Only with this text in name, kind, address or description
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },

    /// One service: the same, and its checks, active alerts and breakers; with --json its whole story
    Show {
        /// The service
        name: String,
    },

    /// Have a simulated service behave otherwise
    #[command(after_help = "Examples:\n  \
        farol service set payments --failure-rate 0.5 --latency 200ms\n  \
        farol service set payments --down --for 30s")]
    Set {
        /// The service
        name: String,

        /// Share of requests to /work that fail, from 0 to 1
        #[arg(long, value_name = "RATE", value_parser = rate)]
        failure_rate: Option<f64>,

        /// How long an answer takes
        #[arg(long, value_name = "DURATION", value_parser = super::duration)]
        latency: Option<Duration>,

        /// By how much that varies, up and down
        #[arg(long, value_name = "DURATION", value_parser = super::duration)]
        latency_variation: Option<Duration>,

        /// Let it be down
        #[arg(long, action = ArgAction::SetTrue, conflicts_with = "up")]
        down: bool,

        /// Let it be up, whatever its schedule of outages says
        #[arg(long, action = ArgAction::SetTrue)]
        up: bool,

        /// For how long; then everything is as the simulation began
        #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
        lasts: Option<Duration>,
    },

    /// Say that a service with a `ttl` check lives
    Heartbeat {
        /// The service
        name: String,
    },

    /// Begin maintenance of a service, or end it
    #[command(after_help = "Examples:\n  \
        farol service maintenance shop --by ana --reason \"new disk\" --for 30m\n  \
        farol service maintenance shop --end")]
    Maintenance {
        /// The service
        name: String,

        /// Who says so
        #[arg(long, value_name = "NAME", required_unless_present = "end")]
        by: Option<String>,

        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// After which time it ends by itself
        #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
        lasts: Option<Duration>,

        /// End it
        #[arg(long, conflicts_with_all = ["by", "reason", "lasts"])]
        end: bool,
    },
}

/// What is demonstrated.
#[derive(Debug, Subcommand)]
pub enum Demo {
    /// Breakers, bulkheads, retries and events at work on simulated services, about a minute
    #[command(after_help = "Examples:\n  \
        farol demo resilience                                  with a Farol of its own, on a temporary folder\n  \
        farol demo resilience --server http://127.0.0.1:5000   on the dashboard of one that runs; its Kafka port is needed, too")]
    Resilience(DemoResilience),
}

#[derive(Debug, Args)]
pub struct DemoResilience {
    /// Address of a running Farol [default: one of its own is started]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub server: Option<String>,

    /// Kafka port of that Farol [default: the settings' kafka.brokers, or the Farol of the same settings]
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    pub brokers: Option<String>,

    /// Shorter waits, for tests
    #[arg(long)]
    pub fast: bool,
}
