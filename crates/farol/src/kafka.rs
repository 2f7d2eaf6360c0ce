//! The commands that are Kafka clients: of the Farol of the same settings, of another one, or of an Apache Kafka.
//!
//! [`worker`] runs the rules; [`topics`], [`groups`], [`consume`] and [`produce`] are for people and scripts at a command line.

pub mod consume;
pub mod groups;
pub mod produce;
pub mod topics;
pub mod worker;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use farol_bus::kafka::{Credentials, KafkaBus, KafkaOptions};

use anyhow::Context as _;
use farol_bus::{Bus as _, BusError, OffsetSpec, TopicDescription, TopicPartition};

use crate::cli;
use crate::settings::Settings;
use crate::settings::value::ListenOrOff;

/// How long a record may wait for its acknowledgement before a command says that it can't be sent.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How long a broker may take to answer the first question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The brokers of the settings, which must answer.
pub async fn connect(settings: &Settings, client_id: &str) -> anyhow::Result<Arc<KafkaBus>> {
    let bus = bus(settings, client_id)?;
    if let Err(error) = bus.check(ANSWER_LIMIT).await {
        let problem = match error {
            BusError::Unreachable => "does not answer".to_owned(),
            other => format!("can't be used: {other}"),
        };
        anyhow::bail!(
            "{} {problem}\n  is Farol running there? Name another broker with --brokers (setting kafka.brokers, KAFKA_BROKERS); if it asks who you are, \
             set kafka.username and kafka.password",
            bus.brokers()
        );
    }
    Ok(bus)
}

/// First and last offsets of the partitions that are there: the first record that is still stored, and the end.
async fn extents(
    bus: &KafkaBus,
    partitions: &[TopicPartition],
) -> anyhow::Result<BTreeMap<TopicPartition, (i64, i64)>> {
    let first = bus.known_offsets(partitions, OffsetSpec::Earliest).await?;
    let ends = bus.known_offsets(partitions, OffsetSpec::Latest).await?;
    let extent = |(partition, first): (TopicPartition, i64)| {
        let end = ends.get(&partition).copied().unwrap_or(first);
        (partition, (first, end))
    };
    Ok(first.into_iter().map(extent).collect())
}

/// A topic that must be there.
async fn topic(bus: &KafkaBus, name: &str) -> anyhow::Result<TopicDescription> {
    let found = bus.topics().await?.into_iter().find(|topic| *topic.name == *name);
    found.with_context(|| {
        format!(
            "there is no topic `{name}`; `farol topics` lists them, `farol topics create {name}` makes it"
        )
    })
}

/// The partitions of one topic.
fn partitions_of(topic: &Arc<str>, count: i32) -> Vec<TopicPartition> {
    (0..count).map(|partition| TopicPartition::new(Arc::clone(topic), partition)).collect()
}

/// Asks before something that can't be undone. Without a terminal nobody can answer.
fn confirm(what: &str, sure: &cli::kafka::Sure) -> anyhow::Result<bool> {
    if sure.yes {
        return Ok(true);
    }
    anyhow::ensure!(io::stdin().is_terminal(), "{what}? Say so with --yes");
    let mut err = io::stderr().lock();
    write!(err, "{what}? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "s" | "sim"))
}

/// The brokers of the settings.
pub fn bus(settings: &Settings, client_id: &str) -> anyhow::Result<Arc<KafkaBus>> {
    Ok(KafkaBus::new(options(settings, client_id)?)?)
}

fn options(settings: &Settings, client_id: &str) -> anyhow::Result<KafkaOptions> {
    let kafka = &settings.kafka;
    let brokers = match (&kafka.brokers, &kafka.listen) {
        (Some(brokers), _) => brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        (None, ListenOrOff::On(listen)) => listen.to_string(),
        (None, ListenOrOff::Off) => anyhow::bail!(
            "no broker is named, and kafka.listen is off; name one with --brokers (setting kafka.brokers, KAFKA_BROKERS)"
        ),
    };
    let credentials = kafka.username.clone().zip(kafka.password.clone());
    Ok(KafkaOptions {
        credentials: credentials.map(|(username, password)| Credentials { username, password }),
        send_limit: SEND_LIMIT,
        ..KafkaOptions::new(brokers, client_id)
    })
}
