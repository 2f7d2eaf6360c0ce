//! The commands that are Kafka clients: of the Farol of the same settings, of another one, or of an Apache Kafka.
//!
//! [`worker`] runs the rules.

pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use farol_bus::kafka::{Credentials, KafkaBus, KafkaOptions};

use crate::settings::Settings;
use crate::settings::value::ListenOrOff;

/// How long a record may wait for its acknowledgement before a command says that it can't be sent.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The brokers of the settings.
pub fn bus(settings: &Settings, client_id: &str) -> anyhow::Result<Arc<KafkaBus>> {
    let kafka = &settings.kafka;
    let brokers = match (&kafka.brokers, &kafka.listen) {
        (Some(brokers), _) => brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        (None, ListenOrOff::On(listen)) => listen.to_string(),
        (None, ListenOrOff::Off) => anyhow::bail!(
            "no broker is named, and kafka.listen is off; name one with --brokers (setting kafka.brokers, KAFKA_BROKERS)"
        ),
    };
    let credentials = kafka.username.clone().zip(kafka.password.clone());
    Ok(KafkaBus::new(KafkaOptions {
        credentials: credentials.map(|(username, password)| Credentials { username, password }),
        send_limit: SEND_LIMIT,
        ..KafkaOptions::new(brokers, client_id)
    })?)
}
