//! Producers of transactions.

use farol_log::{Batch, Partition};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::groups::{MAX_NAME_BYTES, OffsetChange, OffsetCommit, ProducerEpoch};

/// A producer of transactions. The newest of an id is in force, and its commits pass; those of older ones are refused.
///
/// Epochs live in memory: every producer of this broker lives in this process, and none outlives it.
pub struct TransactionalId {
    broker: Broker,
    producer: ProducerEpoch,
}

impl TransactionalId {
    pub(crate) async fn take(broker: &Broker, transactional_id: &str) -> Result<Self, BrokerError> {
        if transactional_id.len() > MAX_NAME_BYTES {
            let bytes = transactional_id.len();
            return Err(BrokerError::TooLarge { what: "transactional id", bytes, limit: MAX_NAME_BYTES });
        }
        // Whoever stops waiting drops it, so that it is forgotten.
        let taken = Self { broker: broker.clone(), producer: broker.groups().new_producer(transactional_id) };
        broker.groups().commits_decided(transactional_id).await;
        Ok(taken)
    }

    /// Appends batches and commits offsets in one step: all of it or nothing, also across a crash. Refused if a newer
    /// producer has the id, or if a member has lost its generation or one of the partitions.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], [`BrokerError::ProducerFenced`], and those of [`Broker::append`].
    pub async fn commit(
        &self,
        batches: Vec<(Partition, Batch)>,
        offsets: Vec<OffsetCommit>,
    ) -> Result<(), BrokerError> {
        let changes = offsets.into_iter().map(OffsetChange::Commit).collect();
        self.broker.commit(batches, changes, Some(self.producer.clone())).await
    }

    /// An error if a newer producer has the id.
    ///
    /// # Errors
    /// [`BrokerError::ProducerFenced`].
    pub fn check(&self) -> Result<(), BrokerError> {
        self.broker.groups().check_producer(&self.producer)
    }
}

impl Drop for TransactionalId {
    fn drop(&mut self) {
        self.broker.groups().forget_producer(&self.producer);
    }
}
