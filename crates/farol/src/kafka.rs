//! The commands that are Kafka clients: of the Farol of the same settings, of another one, or of an Apache Kafka.
//!
//! [`worker`] runs the rules; [`topics`], [`groups`], [`consume`] and [`produce`] are for people and scripts at a command line.

pub mod consume;
pub mod groups;
pub mod produce;
pub mod topics;
pub mod worker;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use farol_bus::kafka::{Credentials, KafkaBus, KafkaOptions, Mechanism, Tls};
use farol_bus::{Bus as _, BusError, Obstacle, OffsetSpec, TopicDescription, TopicPartition};

use crate::cli;
use crate::settings::Settings;
use crate::settings::kafka_client::{KafkaClientSettings, SaslMechanism};
use crate::settings::value::ListenOrOff;

/// How long a record may wait for its acknowledgement before a command says that it can't be sent.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// As much as is read of a file with a password.
const MAX_PASSWORD_FILE_BYTES: u64 = 64 * 1024;
/// How long a broker may take to answer the first question.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The brokers of the settings, which must answer.
pub async fn connect(settings: &Settings, client_id: &str) -> anyhow::Result<Arc<KafkaBus>> {
    let bus = bus(settings, client_id)?;
    match bus.check(ANSWER_LIMIT).await {
        Ok(()) => Ok(bus),
        Err(error @ BusError::NoAccess { .. }) => Err(no_access(bus.brokers(), error)),
        Err(error) => {
            let problem = match error {
                BusError::Unreachable => "does not answer".to_owned(),
                other => format!("can't be used: {other}"),
            };
            anyhow::bail!(
                "{} {problem}
  is Farol running there? Name another broker with --brokers (setting kafka.brokers, KAFKA_BROKERS)",
                bus.brokers()
            )
        }
    }
}

/// That a broker is there and can't be used, with what to do about it.
pub fn no_access(brokers: &str, error: BusError) -> anyhow::Error {
    match error {
        BusError::NoAccess { obstacle, .. } => anyhow::anyhow!("{brokers}: {error}\n  {}", advice(obstacle)),
        other => other.into(),
    }
}

/// What to do about an obstacle.
fn advice(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Credentials => {
            "look at kafka.username and kafka.password (or kafka.password_file), and at the broker's users"
        }
        Obstacle::Mechanism => {
            "set kafka.sasl_mechanism (--sasl-mechanism) to one that it takes; Farol takes PLAIN over TLS and on its own machine only"
        }
        Obstacle::Certificate => {
            "name the certificate of who vouches for it in kafka.ssl_ca_location (--ssl-ca-location), and see that neither is out of date"
        }
        Obstacle::HostName => {
            "connect by a name that is in its certificate (kafka.brokers, --brokers), or give it a certificate for this one"
        }
        Obstacle::NotTls => {
            "set kafka.security_protocol (--security-protocol) to SASL_PLAINTEXT or PLAINTEXT, or give it a certificate"
        }
        Obstacle::Tls => "set kafka.security_protocol (--security-protocol) to SASL_SSL or SSL",
        Obstacle::NoUser => "set kafka.username and kafka.password (or kafka.password_file)",
    }
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
    found(bus, name).await?.with_context(|| {
        format!(
            "there is no topic `{name}`; `farol topics` lists them, `farol topics create {name}` makes it"
        )
    })
}

/// A topic that must be there for something to be taken from it.
async fn topic_to_change(bus: &KafkaBus, name: &str) -> anyhow::Result<TopicDescription> {
    let found = found(bus, name).await?;
    found.with_context(|| format!("there is no topic `{name}`; `farol topics` lists them"))
}

async fn found(bus: &KafkaBus, name: &str) -> anyhow::Result<Option<TopicDescription>> {
    anyhow::ensure!(!KafkaBus::is_internal(name), "topic `{name}` is the brokers' own");
    Ok(bus.topics().await?.into_iter().find(|topic| *topic.name == *name))
}

/// A name that no other process has: with those of machine and process behind it.
fn name_of_this_process(name: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default();
    format!("{name}-{host}{}{}", if host.is_empty() { "" } else { "-" }, std::process::id())
}

/// The partitions of one topic.
fn partitions_of(topic: &Arc<str>, count: i32) -> Vec<TopicPartition> {
    (0..count).map(|partition| TopicPartition::new(Arc::clone(topic), partition)).collect()
}

/// What whoever doesn't want to delete is told.
const NOTHING_DELETED: &str = "nothing was deleted";

/// Asks before something that can't be undone, and says what a no comes to. Without a terminal nobody can answer. The answer is read by a thread of its own, so that
/// whoever waits for it can be interrupted.
async fn confirm(what: &str, otherwise: &str, sure: &cli::kafka::Sure) -> anyhow::Result<bool> {
    if sure.yes {
        return Ok(true);
    }
    anyhow::ensure!(io::stdin().is_terminal(), "{what}? Say so with --yes");
    write!(io::stderr(), "{what}? [y/N] ")?;
    let typed = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let answer = typed.await??;
    let agreed = matches!(answer.trim(), "y" | "Y" | "yes" | "s" | "sim");
    if !agreed {
        writeln!(io::stderr(), "{otherwise}")?;
    }
    Ok(agreed)
}

/// The brokers of the settings.
pub fn bus(settings: &Settings, client_id: &str) -> anyhow::Result<Arc<KafkaBus>> {
    Ok(KafkaBus::new(options(settings, client_id)?)?)
}

fn options(settings: &Settings, client_id: &str) -> anyhow::Result<KafkaOptions> {
    let (kafka, client) = (&settings.kafka, &settings.kafka.client);
    let brokers = match (&client.brokers, &kafka.listen) {
        (Some(brokers), _) => brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        (None, ListenOrOff::On(listen)) => listen.to_string(),
        (None, ListenOrOff::Off) => anyhow::bail!(
            "no broker is named, and kafka.listen is off; name one with --brokers (setting kafka.brokers, KAFKA_BROKERS)"
        ),
    };
    let protocol = client.protocol(kafka.tls_certificate.is_some());
    if let Some(file) = client.ssl_ca_location.as_ref().filter(|file| !file.is_file()) {
        anyhow::bail!("there is no file {} (kafka.ssl_ca_location)", file.display());
    }
    Ok(KafkaOptions {
        tls: protocol.tls.then(|| Tls { ca: client.ssl_ca_location.clone() }),
        credentials: if protocol.sasl { credentials(client)? } else { None },
        send_limit: SEND_LIMIT,
        ..KafkaOptions::new(brokers, client_id)
    })
}

fn credentials(client: &KafkaClientSettings) -> anyhow::Result<Option<Credentials>> {
    let Some(username) = client.username.clone() else { return Ok(None) };
    let password = match (&client.password, &client.password_file) {
        (Some(password), _) => password.clone(),
        (None, Some(file)) => password_in(file)?,
        (None, None) => return Ok(None),
    };
    let mechanism = match client.sasl_mechanism {
        SaslMechanism::Plain => Mechanism::Plain,
        SaslMechanism::ScramSha256 => Mechanism::ScramSha256,
        SaslMechanism::ScramSha512 => Mechanism::ScramSha512,
    };
    Ok(Some(Credentials { mechanism, username, password }))
}

/// The first line of a file.
fn password_in(file: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("can't read the password in {} (kafka.password_file)", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(unreadable)?;
    opened.take(MAX_PASSWORD_FILE_BYTES).read_to_string(&mut text).with_context(unreadable)?;
    let password = text.lines().next().unwrap_or_default();
    anyhow::ensure!(!password.is_empty(), "there is no password in {} (kafka.password_file)", file.display());
    Ok(password.to_owned())
}
