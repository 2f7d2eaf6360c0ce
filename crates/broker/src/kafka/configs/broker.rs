//! What the broker's configuration is, in Kafka's words. It comes from the settings, and can only be read.

use super::{Call, DEFAULT, Described, SET_FOR_BROKER};
use crate::kafka::NODE_ID;
use crate::kafka::metadata::advertised;
use crate::kafka::topics::DEFAULT_PARTITIONS;
use crate::topic::{ConfigKey, ConfigKind};

/// Every value, by name.
pub(super) fn described(call: &Call) -> Vec<Described> {
    let settings = &call.server.settings;
    let limits = &settings.limits;
    let (host, port) = advertised(call);
    let protocol = match (settings.tls.is_some(), call.server.users.is_empty()) {
        (false, true) => "PLAINTEXT",
        (false, false) => "SASL_PLAINTEXT",
        (true, true) => "SSL",
        (true, false) => "SASL_SSL",
    };
    let topic = |name: &str| ConfigKey::find(name).map_or("", |key| key.default).to_owned();
    let set = [
        ("advertised.listeners", format!("{protocol}://{host}:{port}"), ConfigKind::List),
        ("auto.create.topics.enable", settings.auto_create_topics.to_string(), ConfigKind::Boolean),
        ("broker.id", NODE_ID.to_string(), ConfigKind::Int),
        ("connections.max.idle.ms", limits.idle.as_millis().to_string(), ConfigKind::Long),
        ("fetch.max.bytes", limits.fetch_bytes.to_string(), ConfigKind::Int),
        ("listeners", format!("{protocol}://{}", call.server.local_addr), ConfigKind::List),
        ("log.dirs", call.broker().dir().display().to_string(), ConfigKind::Text),
        ("max.connections", limits.connections.to_string(), ConfigKind::Int),
        ("max.connections.per.ip", limits.connections_per_address.to_string(), ConfigKind::Int),
        ("node.id", NODE_ID.to_string(), ConfigKind::Int),
        (
            "num.partitions",
            settings.default_partitions.unwrap_or(DEFAULT_PARTITIONS).to_string(),
            ConfigKind::Int,
        ),
        ("socket.request.max.bytes", limits.request_bytes.to_string(), ConfigKind::Int),
    ];
    let fixed = [
        ("default.replication.factor", "1".to_owned(), ConfigKind::Int),
        ("delete.topic.enable", "true".to_owned(), ConfigKind::Boolean),
        ("log.cleanup.policy", topic("cleanup.policy"), ConfigKind::List),
        ("log.message.timestamp.type", topic("message.timestamp.type"), ConfigKind::Text),
        ("log.retention.bytes", topic("retention.bytes"), ConfigKind::Long),
        ("log.retention.ms", topic("retention.ms"), ConfigKind::Long),
        ("log.segment.bytes", topic("segment.bytes"), ConfigKind::Int),
        ("message.max.bytes", topic("max.message.bytes"), ConfigKind::Int),
        ("min.insync.replicas", topic("min.insync.replicas"), ConfigKind::Int),
        ("offsets.topic.replication.factor", "1".to_owned(), ConfigKind::Int),
        ("transaction.state.log.replication.factor", "1".to_owned(), ConfigKind::Int),
    ];
    let set = set.into_iter().map(|value| (SET_FOR_BROKER, value));
    let mut all: Vec<Described> = set
        .chain(fixed.into_iter().map(|value| (DEFAULT, value)))
        .map(|(source, (name, value, kind))| Described {
            name,
            synonyms: vec![(name, value.clone(), source)],
            value,
            source,
            read_only: true,
            kind,
            help: String::new(),
        })
        .collect();
    all.sort_by_key(|value| value.name);
    all
}
