//! The commands that are Kafka clients.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use farol_bus::OffsetSpec;
use farol_event::Timestamp;

use crate::settings::value::RawValue;

/// Which brokers a command talks to, and how.
#[derive(Debug, Args)]
pub struct Brokers {
    /// Kafka brokers, with commas between [default: the settings' kafka.brokers, or the Farol of the same settings]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub brokers: Option<String>,

    /// How to connect to them: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    #[arg(long, global = true, value_name = "PROTOCOL")]
    pub security_protocol: Option<String>,

    /// How to prove the password: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 [default: PLAIN]
    #[arg(long, global = true, value_name = "NAME")]
    pub sasl_mechanism: Option<String>,

    /// The user to be; its password is in --password-file or in FAROL_KAFKA_PASSWORD
    #[arg(long, global = true, value_name = "NAME")]
    pub username: Option<String>,

    /// File with the user's password
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,

    /// PEM file of the certificates that may vouch for brokers [default: the system's]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ssl_ca_location: Option<PathBuf>,
}

impl Brokers {
    /// What was given, each with its setting and its flag.
    pub fn given(&self) -> [(&'static str, &'static str, Option<RawValue>); 6] {
        let text = |text: &Option<String>| text.as_deref().map(|text| RawValue::Bare(text.to_owned()));
        let path = |path: &Option<PathBuf>| {
            path.as_deref().map(|path| RawValue::Text(path.to_string_lossy().into_owned()))
        };
        [
            ("kafka.brokers", "--brokers", text(&self.brokers)),
            ("kafka.security_protocol", "--security-protocol", text(&self.security_protocol)),
            ("kafka.sasl_mechanism", "--sasl-mechanism", text(&self.sasl_mechanism)),
            ("kafka.username", "--username", text(&self.username)),
            ("kafka.password_file", "--password-file", path(&self.password_file)),
            ("kafka.ssl_ca_location", "--ssl-ca-location", path(&self.ssl_ca_location)),
        ]
    }
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

/// How a command answers.
#[derive(Debug, Args)]
pub struct Form {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can't be undone is asked for.
#[derive(Debug, Args)]
pub struct Sure {
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Topics {
    #[command(flatten)]
    pub brokers: Brokers,

    #[command(flatten)]
    pub form: Form,

    #[command(subcommand)]
    pub command: Option<TopicsCommand>,
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Every topic: partitions, records, configuration (also without a word after `topics`)
    List,

    /// One topic: where each partition begins and ends, and its configuration
    Describe {
        /// The topic
        name: String,
    },

    /// Make a topic
    #[command(after_help = "Example:\n  \
        farol topics create measurements --partitions 6 --topic-config retention.ms=86400000")]
    Create {
        /// Its name: letters, digits, `.`, `_` and `-`
        name: String,
        /// Number of partitions
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: i32,
        /// Configuration in Kafka's words; may be given several times
        #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
        topic_config: Vec<(String, String)>,
    },

    /// Delete a topic with everything in it
    Delete {
        /// The topic
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Args)]
pub struct Groups {
    #[command(flatten)]
    pub brokers: Brokers,

    #[command(flatten)]
    pub form: Form,

    #[command(subcommand)]
    pub command: Option<GroupsCommand>,
}

#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// Every consumer group: state, members, lag (also without a word after `groups`)
    List,

    /// One group: its members, who owns which partition, and how far each is behind, in records and in time
    Describe {
        /// The group
        name: String,
    },

    /// Have a group without members go on from another place
    #[command(after_help = "Examples:\n  \
        farol groups reset my-readers --topic alerts --to earliest\n  \
        farol groups reset my-readers --topic alerts --to 2026-11-24T08:00:00Z")]
    Reset {
        /// The group
        name: String,
        /// The topic
        #[arg(long, value_name = "NAME")]
        topic: String,
        /// `earliest`, `latest`, or a time (RFC 3339): the first record of then or later
        #[arg(long, value_name = "PLACE", value_parser = place)]
        to: OffsetSpec,
        #[command(flatten)]
        sure: Sure,
    },

    /// Delete a group without members, and what it has committed
    Delete {
        /// The group
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Args)]
pub struct Consume {
    /// The topic
    pub topic: String,

    /// Begin with the oldest record that is still stored, and stop at the end unless --follow is given, too
    #[arg(long)]
    pub from_beginning: bool,

    /// Go on with new records as they come; the default if no place to begin at is given
    #[arg(long)]
    pub follow: bool,

    /// Only this partition
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,

    /// Begin at this offset of the partition
    #[arg(
        long, value_name = "N", requires = "partition", conflicts_with = "from_beginning", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    pub offset: Option<i64>,

    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub max_messages: Option<u64>,

    /// Share the topic with the other members of this consumer group, and go on where it has committed; where it begins, and then what is printed, is committed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["partition", "offset"])]
    pub group: Option<String>,

    /// Values that are JSON over several lines
    #[arg(long, conflicts_with = "json")]
    pub pretty: bool,

    #[command(flatten)]
    pub form: Form,

    #[command(flatten)]
    pub brokers: Brokers,
}

#[derive(Debug, Args)]
pub struct Produce {
    /// The topic
    pub topic: String,

    /// File whose lines are sent, without what ends them (a line feed, also with a carriage return before it); empty lines are left out and
    /// counted [default: standard input]
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// Key of every record
    #[arg(long, value_name = "TEXT", conflicts_with = "key_separator")]
    pub key: Option<String>,

    /// What stands between key and value of each line
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<String>,

    #[command(flatten)]
    pub form: Form,

    #[command(flatten)]
    pub brokers: Brokers,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE, for example retention.ms=86400000".to_owned()),
    }
}

/// Where a group is to go on.
fn place(text: &str) -> Result<OffsetSpec, String> {
    match text {
        "earliest" => Ok(OffsetSpec::Earliest),
        "latest" => Ok(OffsetSpec::Latest),
        time => match time.parse::<Timestamp>() {
            Ok(time) => Ok(OffsetSpec::Timestamp(time.as_millis())),
            Err(_) => Err("not `earliest`, `latest` or a time such as 2026-11-24T08:00:00Z".to_owned()),
        },
    }
}
