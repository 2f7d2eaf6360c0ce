//! The topics that the pipeline reads and writes, and their settings.

use std::collections::BTreeMap;

use farol_bus::{Bus, BusError, TopicDescription, TopicSpec};

/// Readings, keyed by sensor.
pub const SENSOR_DATA: &str = "sensor-data";
/// Alert transitions, keyed by series.
pub const ALERTS: &str = "alerts";
/// Events about Farol itself and about services, keyed by source.
pub const SYSTEM_EVENTS: &str = "system-events";
/// Records that could not be processed, with the reason.
pub const DEAD_LETTERS: &str = "dead-letters";
/// The detect processor's state; partition for partition that of [`SENSOR_DATA`].
pub const DETECTOR_STATE: &str = "detector-state";
/// The state of the detect processor of services; partition for partition that of [`SYSTEM_EVENTS`].
pub const SERVICE_DETECTOR_STATE: &str = "service-detector-state";
/// What the notifier must not forget: alerts that fire, silences, what was told.
pub const NOTIFIER_STATE: &str = "notifier-state";
/// The rules in force, for workers in other processes; see [`crate::published_rules`].
pub const RULES: &str = "rules";

/// What has to survive a restart about watched services; see [`crate::services`].
pub const SERVICES: &str = farol_registry::record::TOPIC;

/// The largest record of [`RULES`].
const MAX_RULES_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Names of the two topics that can be renamed by settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    /// In place of [`SENSOR_DATA`].
    pub sensor_data: String,
    /// In place of [`ALERTS`].
    pub alerts: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self { sensor_data: SENSOR_DATA.into(), alerts: ALERTS.into() }
    }
}

/// The topics of a fresh data folder. `overrides` are topic → Kafka topic configuration, laid over the defaults;
/// `partitions` under it sets the number of partitions (`detector-state` follows `sensor-data`, `service-detector-state` follows
/// `system-events`).
pub fn default_topics(names: &TopicNames, overrides: &BTreeMap<String, TopicOverride>) -> Vec<TopicSpec> {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    let partitions_of =
        |topic: &str, default: i32| overrides.get(topic).and_then(|o| o.partitions).unwrap_or(default);
    let topic = |name: &str, partitions: i32, config: &[(&str, String)]| {
        let mut config: BTreeMap<String, String> =
            config.iter().map(|(k, v)| ((*k).into(), v.clone())).collect();
        if let Some(over) = overrides.get(name) {
            config.extend(over.config.clone());
        }
        TopicSpec { name: name.into(), partitions, config }
    };
    let retain = |days: i64| vec![("retention.ms", (days * DAY_MS).to_string())];
    let sensor_partitions = partitions_of(&names.sensor_data, 3);
    let event_partitions = partitions_of(SYSTEM_EVENTS, 3);
    vec![
        topic(&names.sensor_data, sensor_partitions, &retain(7)),
        topic(&names.alerts, partitions_of(&names.alerts, 2), &retain(365)),
        topic(SYSTEM_EVENTS, event_partitions, &retain(30)),
        topic(DEAD_LETTERS, partitions_of(DEAD_LETTERS, 1), &retain(30)),
        topic(DETECTOR_STATE, sensor_partitions, &[("cleanup.policy", "compact".into())]),
        topic(SERVICE_DETECTOR_STATE, event_partitions, &[("cleanup.policy", "compact".into())]),
        topic(SERVICES, 1, &[("cleanup.policy", "compact".into())]),
        topic(NOTIFIER_STATE, 1, &[("cleanup.policy", "compact".into())]),
        topic(
            RULES,
            1,
            &[
                ("cleanup.policy", "compact".into()),
                ("max.message.bytes", MAX_RULES_RECORD_BYTES.to_string()),
            ],
        ),
    ]
}

/// What settings say about one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicOverride {
    /// Number of partitions, for a topic that does not exist yet.
    pub partitions: Option<i32>,
    /// Kafka topic configuration.
    pub config: BTreeMap<String, String>,
}

/// Creates the topics that don't exist yet, on somebody else's cluster: what is Farol's own in their configuration is left out, and topics
/// that exist stay as they are.
///
/// # Errors
/// Whatever the bus refuses, other than that a topic exists already.
pub async fn create_missing_topics(bus: &dyn Bus, topics: Vec<TopicSpec>) -> Result<Vec<String>, BusError> {
    let existing = bus.topics().await?;
    let mut created = Vec::new();
    for mut spec in topics {
        if existing.iter().any(|topic| *topic.name == *spec.name) {
            continue;
        }
        spec.config.retain(|key, _| !key.starts_with("farol."));
        follow(&mut spec, &existing);
        let name = spec.name.clone();
        match bus.create_topic(spec).await {
            Ok(()) => created.push(name),
            Err(BusError::TopicExists(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(created)
}

/// Creates the topics that don't exist yet, and gives those that exist the configuration of the settings. The number of partitions
/// stays as it is.
///
/// # Errors
/// Whatever the bus refuses, other than that a topic exists already.
pub async fn ensure_topics(bus: &dyn Bus, topics: Vec<TopicSpec>) -> Result<(), BusError> {
    let existing = bus.topics().await?;
    for mut spec in topics {
        if let Some(found) = existing.iter().find(|t| *t.name == *spec.name) {
            if found.partitions != spec.partitions {
                tracing::warn!(
                    topic = %spec.name, partitions = found.partitions, configured = spec.partitions,
                    "the topic keeps its number of partitions: keys would land elsewhere if it changed"
                );
            }
            if found.config != spec.config {
                bus.configure_topic(&spec.name, spec.config).await?;
            }
            continue;
        }
        follow(&mut spec, &existing);
        match bus.create_topic(spec).await {
            Ok(()) | Err(BusError::TopicExists(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A topic of state that is made later than the topic that it follows (by a newer Farol) has as many partitions as that one has,
/// whatever settings say by now.
fn follow(spec: &mut TopicSpec, existing: &[TopicDescription]) {
    if spec.name == SERVICE_DETECTOR_STATE
        && let Some(followed) = existing.iter().find(|topic| *topic.name == *SYSTEM_EVENTS)
    {
        spec.partitions = followed.partitions;
    }
}
