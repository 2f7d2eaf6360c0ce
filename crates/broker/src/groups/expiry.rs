//! Committed offsets that have had their time.
//!
//! An offset goes when it was committed longer ago than the retention and nobody reads its topic in its group any more: the
//! group has had no members for as long, or its members, being consumers, read other topics. After a restart a group
//! counts as empty from then on.
//!
//! Offsets of topics that are gone go with their topics; a crash in between is made up for at the start.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use super::Groups;
use super::commit::{DeletionCondition, OffsetDeletion};
use crate::broker::{Broker, Inner};

impl Groups {
    fn topics_with_offsets(&self) -> BTreeSet<Arc<str>> {
        let state = self.state.lock();
        let partitions = state.groups.values().flat_map(|entry| entry.ledger.committed().keys());
        partitions.map(|partition| Arc::clone(&partition.topic)).collect()
    }

    /// What has had its time, by group.
    fn expired_offsets(&self) -> Vec<OffsetDeletion> {
        let limit = self.now().saturating_sub(self.options().offsets_retention);
        let state = self.state.lock();
        let mut deletions = Vec::new();
        for (name, entry) in &state.groups {
            let group = &entry.group;
            let empty_for_long = group.empty_since().is_some_and(|since| since <= limit);
            let partitions: BTreeSet<_> = entry.ledger.expired(limit, |partition| {
                if group.has_members() {
                    group.is_of_consumers() && !group.is_subscribed(&partition.topic)
                } else {
                    empty_for_long
                }
            });
            if !partitions.is_empty() {
                let condition = DeletionCondition::CommittedBefore(limit.as_millis());
                deletions.push(OffsetDeletion { group: name.clone(), partitions, condition });
            }
        }
        deletions
    }
}

/// Looks for offsets of missing topics at once, and for expired ones now and then, for as long as the broker lives.
pub(crate) async fn expire_offsets(broker: Weak<Inner>) {
    if let Some(broker) = broker.upgrade().map(Broker::from_inner) {
        for topic in broker.groups().topics_with_offsets() {
            // Looked at first: what is committed from now on may be of a topic that is being made.
            let seen = broker.groups().offsets_of_topic(&topic);
            if broker.topic(&topic).is_err()
                && let Err(error) = broker.delete_left_offsets(seen).await
            {
                tracing::warn!(%topic, %error, "committed offsets of a topic that is gone could not be deleted");
            }
        }
    }
    loop {
        let Some(interval) =
            broker.upgrade().map(|inner| inner.groups.options().offsets_retention_check_interval)
        else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(broker) = broker.upgrade().map(Broker::from_inner) else { return };
        for deletion in broker.groups().expired_offsets() {
            let (group, offsets) = (deletion.group.clone(), deletion.partitions.len());
            match broker.delete(deletion).await {
                Ok(()) => tracing::info!(group, offsets, "committed offsets expired"),
                // They are looked at again next time.
                Err(error) => tracing::warn!(group, offsets, %error, "expired offsets could not be deleted"),
            }
        }
    }
}
