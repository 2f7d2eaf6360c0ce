//! Topics: their names, configuration and partitions, and the file that lists them.

mod catalog;
mod config;
mod internal;

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_log::{Log, Partition, PartitionId, SyncPolicy};
use uuid::Uuid;

pub(crate) use catalog::{Catalog, ListedTopic, read_file};
pub use config::keys::{CONFIG_KEYS, ConfigKey, ConfigKind, Effect};
pub use config::{CleanupPolicy, TopicConfig};
pub(crate) use internal::read_records;

use crate::error::BrokerError;
use crate::transactions::TRANSACTIONS_TOPIC;

/// The topic of committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Longest name of a topic, as in Kafka.
const MAX_NAME_BYTES: usize = 249;
/// Most partitions of one topic: each has a folder, open files and some memory.
pub const MAX_PARTITIONS: i32 = 1024;

/// An open topic.
#[derive(Clone)]
pub struct Topic {
    name: Arc<str>,
    id: Uuid,
    config: TopicConfig,
    overrides: BTreeMap<String, String>,
    partitions: Vec<Partition>,
}

impl Topic {
    /// Whether a topic may be made so; its configuration if it may.
    pub(crate) fn check(
        name: &str,
        partitions: i32,
        overrides: &BTreeMap<String, String>,
        default_sync: SyncPolicy,
    ) -> Result<TopicConfig, BrokerError> {
        let topic = shorten(name);
        if let Err(problem) = check_name(name) {
            return Err(BrokerError::InvalidTopicName { topic, problem });
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let problem = format!("{partitions} partitions are not between 1 and {MAX_PARTITIONS}");
            return Err(BrokerError::InvalidPartitionCount { topic, problem });
        }
        TopicConfig::parse(overrides, default_sync)
            .map_err(|problem| BrokerError::InvalidTopicConfig { topic, problem })
    }

    /// Opens the partitions of a listed topic, making those that are missing.
    pub(crate) fn open(
        log: &Log,
        name: &str,
        listed: ListedTopic,
        default_sync: SyncPolicy,
    ) -> Result<Self, BrokerError> {
        let ListedTopic { id, partitions, config: overrides } = listed;
        let config = Self::check(name, partitions, &overrides, default_sync)?;
        let options = config.partition_options();
        let partitions = (0..partitions)
            .map(|partition| {
                let id = PartitionId::new(&format!("{name}-{partition}")).map_err(|error| {
                    BrokerError::InvalidTopicName { topic: name.to_owned(), problem: error.to_string() }
                })?;
                if let Some(open) = log.partition(&id) {
                    open.set_options(options.clone());
                    return Ok(open);
                }
                log.create_partition(&id, options.clone())
                    .map_err(|source| BrokerError::CreatePartition { topic: name.to_owned(), source })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), id, config, overrides, partitions })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Tells it from an earlier or later topic of the same name.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its configuration, defaults filled in.
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// What a key of its configuration is now, as its setting would be written.
    pub fn config_value(&self, key: &ConfigKey) -> String {
        let set = self.overrides.get(key.name).map(|value| value.trim().to_owned());
        set.unwrap_or_else(|| self.config.unset_value(key))
    }

    /// Its configuration where it differs from the defaults, by Kafka's names.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// Its partitions, in order.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// How many partitions it has.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// One partition.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn partition(&self, partition: i32) -> Result<&Partition, BrokerError> {
        usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get(index))
            .ok_or_else(|| BrokerError::UnknownTopicOrPartition(format!("{}/{partition}", self.name)))
    }

    /// Whether it is the broker's own.
    pub fn is_internal(&self) -> bool {
        [OFFSETS_TOPIC, TRANSACTIONS_TOPIC].contains(&&*self.name)
    }
}

/// Kafka's rule for names of topics.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("the name is empty".to_owned())
    } else if name.starts_with('.') {
        Err("the name begins with a dot".to_owned())
    } else if name.len() > MAX_NAME_BYTES {
        Err(format!("the name has {} bytes, {MAX_NAME_BYTES} are allowed", name.len()))
    } else if let Some(bad) = name.chars().find(|c| !c.is_ascii() || !u8::try_from(*c).is_ok_and(allowed)) {
        Err(format!("the name contains {bad:?}; letters, digits, `.`, `_` and `-` are allowed"))
    } else {
        Ok(())
    }
}

/// A name for an error message, which may be long.
fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        for good in ["sensor-data", "a", "A_1.b", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "é", "a\0", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
