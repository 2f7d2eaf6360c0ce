//! Making, changing and deleting topics. All of it blocks for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_log::{Log, PartitionError, PartitionId};
use tokio::sync::watch;
use uuid::Uuid;

use super::Broker;
use crate::error::BrokerError;
use crate::groups::LeftOffsets;
use crate::topic::{Catalog, ListedTopic, Topic};

impl Broker {
    /// Makes a topic; it is durable when this returns.
    ///
    /// # Errors
    /// As [`Broker::check_new_topic`], and [`BrokerError::Catalog`], [`BrokerError::CreatePartition`].
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        config: BTreeMap<String, String>,
    ) -> Result<(), BrokerError> {
        // Held throughout, so that two calls for one name don't both make it.
        let mut catalog = self.inner.catalog.lock();
        self.check_new_topic(name, partitions, &config)?;
        if let Some(left) = catalog.deleting().get(name).copied() {
            // An earlier topic of this name could not be deleted whole, and its records must not be found in this one.
            delete_partitions(&self.inner.log, name, left)?;
            catalog.end_deletion(name)?;
        }
        let listed = ListedTopic { id: Uuid::new_v4(), partitions, config };
        catalog.set(name, listed.clone())?;
        let topic = match Topic::open(&self.inner.log, name, listed, self.inner.sync) {
            Ok(topic) => topic,
            Err(error) => {
                if let Err(unlisting) = catalog.begin_deletion(name) {
                    tracing::warn!(topic = name, %unlisting, "a topic that could not be made stays listed");
                }
                return Err(error);
            }
        };
        self.put_topic(topic);
        Ok(())
    }

    /// Whether a topic could be made so.
    ///
    /// # Errors
    /// [`BrokerError::TopicExists`], [`BrokerError::InvalidTopicName`], [`BrokerError::InvalidPartitionCount`],
    /// [`BrokerError::InvalidTopicConfig`], [`BrokerError::Closed`].
    pub fn check_new_topic(
        &self,
        name: &str,
        partitions: i32,
        config: &BTreeMap<String, String>,
    ) -> Result<(), BrokerError> {
        self.check_open()?;
        if self.inner.topics.read().contains_key(name) {
            return Err(BrokerError::TopicExists(name.to_owned()));
        }
        Topic::check(name, partitions, config, self.inner.sync)?;
        self.check_room(name, partitions)
    }

    /// Gives a topic another configuration, in place of all that it had. Its partitions follow at once.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::InternalTopic`], [`BrokerError::InvalidTopicConfig`],
    /// [`BrokerError::Catalog`]; the topic is then as it was.
    pub fn configure_topic(&self, name: &str, config: BTreeMap<String, String>) -> Result<(), BrokerError> {
        self.change_topic_config(name, |current| {
            *current = config;
            Ok(())
        })
    }

    /// Changes the configuration of a topic, as far as it differs from the defaults. Its partitions follow at once.
    ///
    /// # Errors
    /// What `change` says, and those of [`Broker::configure_topic`]; the topic is then as it was.
    pub fn change_topic_config(
        &self,
        name: &str,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        self.check_open()?;
        // Held throughout, so that list and topic agree whoever else configures it.
        let mut catalog = self.inner.catalog.lock();
        let topic = self.topic(name)?;
        if topic.is_internal() {
            return Err(BrokerError::InternalTopic(name.to_owned()));
        }
        let mut config = topic.overrides().clone();
        change(&mut config)?;
        let (id, partitions) = (topic.id(), topic.partition_count());
        Topic::check(name, partitions, &config, self.inner.sync)?;
        let opened = ListedTopic { id, partitions, config };
        let listed = listed_as(&catalog, name, &opened);
        catalog.set(name, listed)?;
        self.put_topic(Topic::open(&self.inner.log, name, opened, self.inner.sync)?);
        Ok(())
    }

    /// Whether a topic could have this configuration.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::InvalidTopicConfig`].
    pub fn check_topic_config(
        &self,
        name: &str,
        config: &BTreeMap<String, String>,
    ) -> Result<(), BrokerError> {
        let topic = self.topic(name)?;
        Topic::check(name, topic.partition_count(), config, self.inner.sync).map(|_| ())
    }

    /// Gives a topic more partitions, so that it has `partitions`. Records with keys go to other partitions from then on.
    ///
    /// # Errors
    /// As [`Broker::check_more_partitions`], and [`BrokerError::Catalog`], [`BrokerError::CreatePartition`]: then those that are
    /// missing are made at the next start.
    pub fn add_partitions(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        let mut catalog = self.inner.catalog.lock();
        self.check_more_partitions(name, partitions)?;
        let topic = self.topic(name)?;
        let opened = ListedTopic { id: topic.id(), partitions, config: topic.overrides().clone() };
        // Listed first: a crash before the last one is made leaves a topic whose partitions are made at the next start.
        let listed = listed_as(&catalog, name, &opened);
        catalog.set(name, listed)?;
        self.put_topic(Topic::open(&self.inner.log, name, opened, self.inner.sync)?);
        Ok(())
    }

    /// Whether a topic could have `partitions` partitions from now on.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::InternalTopic`], [`BrokerError::InvalidPartitionCount`].
    pub fn check_more_partitions(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        self.check_open()?;
        let topic = self.topic(name)?;
        if topic.is_internal() {
            return Err(BrokerError::InternalTopic(name.to_owned()));
        }
        let current = topic.partition_count();
        if partitions <= current {
            let problem = format!("it has {current} partitions, and can only get more");
            return Err(BrokerError::InvalidPartitionCount { topic: name.to_owned(), problem });
        }
        Topic::check(name, partitions, topic.overrides(), self.inner.sync)?;
        self.check_room(name, partitions - current)
    }

    /// Deletes a topic with its records. It is gone when this returns, also after a crash; space that could not be freed is
    /// freed at the next start. The offsets that groups committed for it are left to [`Broker::delete_left_offsets`], or to the next start.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::InternalTopic`], [`BrokerError::Catalog`]: it is then still there.
    pub fn delete_topic(&self, name: &str) -> Result<LeftOffsets, BrokerError> {
        self.check_open()?;
        let mut catalog = self.inner.catalog.lock();
        let topic = self.topic(name)?;
        if topic.is_internal() {
            return Err(BrokerError::InternalTopic(name.to_owned()));
        }
        catalog.begin_deletion(name)?;
        // As many as were listed: more than the topic has if some could not be made.
        let listed = catalog.deleting().get(name).copied().unwrap_or_else(|| topic.partition_count());
        self.inner.topics.write().remove(name);
        self.tell_topic_change();
        // As long as the list is held, nobody makes another topic of this name.
        let left = self.groups().offsets_of_topic(name);
        let deleted =
            delete_partitions(&self.inner.log, name, listed).and_then(|()| catalog.end_deletion(name));
        if let Err(error) = deleted {
            tracing::warn!(topic = name, %error, "what is left of a deleted topic goes at the next start");
        }
        Ok(left)
    }

    /// Changes whenever a topic is made, changed or deleted.
    pub fn topic_changes(&self) -> watch::Receiver<u64> {
        self.inner.topic_changes.subscribe()
    }

    fn put_topic(&self, topic: Topic) {
        self.inner.topics.write().insert(Arc::clone(topic.name()), Arc::new(topic));
        self.tell_topic_change();
    }

    fn tell_topic_change(&self) {
        self.inner.topic_changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn check_room(&self, name: &str, more: i32) -> Result<(), BrokerError> {
        let topics = self.inner.topics.read();
        let total: usize = topics.values().map(|topic| topic.partitions().len()).sum();
        let limit = self.inner.max_partitions;
        if total.saturating_add(usize::try_from(more).unwrap_or(0)) > limit {
            let problem = format!("all topics together may have {limit} partitions");
            return Err(BrokerError::InvalidPartitionCount { topic: name.to_owned(), problem });
        }
        Ok(())
    }
}

/// How a topic is listed that is opened like this: with the partitions that could not be made when they were asked for, too. Some of them
/// may have folders, and what isn't listed is never deleted.
fn listed_as(catalog: &Catalog, name: &str, opened: &ListedTopic) -> ListedTopic {
    let listed = catalog.topics().get(name).map_or(0, |listed| listed.partitions);
    ListedTopic { partitions: opened.partitions.max(listed), ..opened.clone() }
}

/// Deletes what a crash or a failure left of deleted topics. What can't be deleted now stays noted.
pub(super) fn end_deletions(log: &Log, catalog: &mut Catalog) {
    for (name, partitions) in catalog.deleting().clone() {
        let deleted = delete_partitions(log, &name, partitions).and_then(|()| catalog.end_deletion(&name));
        if let Err(error) = deleted {
            tracing::warn!(topic = name, %error, "what is left of a deleted topic stays for now");
        }
    }
}

/// Deletes the partitions that are there.
fn delete_partitions(log: &Log, name: &str, partitions: i32) -> Result<(), BrokerError> {
    for partition in 0..partitions {
        // A name that was listed once can name a partition.
        let Ok(id) = PartitionId::new(&format!("{name}-{partition}")) else { continue };
        match log.delete_partition(&id) {
            Ok(()) | Err(PartitionError::Missing { .. }) => {}
            Err(source) => return Err(BrokerError::DeletePartition { topic: name.to_owned(), source }),
        }
    }
    Ok(())
}
