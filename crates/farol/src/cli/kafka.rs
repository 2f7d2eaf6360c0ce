//! The commands that are Kafka clients.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Which brokers a command talks to.
#[derive(Debug, Args)]
pub struct Brokers {
    /// Kafka brokers, with commas between [default: the settings' kafka.brokers, or the Farol of the same settings]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
}

#[derive(Debug, Args)]
pub struct Worker {
    #[command(flatten)]
    pub brokers: Brokers,

    /// Consumer group [default: sensor-processors]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,

    /// The worker's name; no two of a group may have the same [default: one made of the machine's name and the process's number]
    #[arg(long, value_name = "NAME")]
    pub consumer_id: Option<String>,

    /// A rule file, read once, in place of the rules that `farol run` publishes; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub rules: Vec<PathBuf>,
}
