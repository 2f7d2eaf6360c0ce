//! Offsets that a transaction holds until it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_log::{AppendRequest, Batch, Rejection};
use parking_lot::Mutex;

use super::record::{PendingOffsets, StateRecord};
use super::{ProducerIdentity, Transactions, check_id, encode};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::groups::{CommittedOffset, Groups, MAX_NAME_BYTES, OffsetCommit, check_offsets};
use crate::partition::TopicPartition;
use crate::topic::OFFSETS_TOPIC;

/// Offsets on their way through the log, shared by their precondition and their completion.
struct InFlightOffsets {
    transactions: Arc<Transactions>,
    groups: Arc<Groups>,
    transactional_id: String,
    producer: ProducerIdentity,
    commit: OffsetCommit,
    stage: Mutex<Stage>,
}

enum Stage {
    Queued,
    /// With what the transaction held of the group's offsets before.
    Admitted(BTreeMap<TopicPartition, CommittedOffset>),
    Finished,
}

impl Broker {
    /// Says that the producer's transaction, which begins if none is open, will commit offsets of a group.
    ///
    /// # Errors
    /// [`BrokerError::Transaction`], [`BrokerError::TooLarge`] for the name, and those of [`Broker::append`].
    pub async fn add_offsets_to_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        group: &str,
    ) -> Result<(), BrokerError> {
        check_group(group)?;
        self.add_to_transaction(transactional_id, producer, &[offsets_partition()].into()).await
    }

    /// Commits offsets with the producer's transaction: they are durable when this returns, and count when it is committed.
    ///
    /// # Errors
    /// [`BrokerError::Transaction`], [`BrokerError::Fenced`] for a member that may not, [`BrokerError::TooLarge`], and those
    /// of [`Broker::append`].
    pub async fn commit_offsets_in_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        commit: OffsetCommit,
    ) -> Result<(), BrokerError> {
        self.check_open()?;
        check_id(transactional_id)?;
        check_group(&commit.group)?;
        check_offsets(&commit)?;
        if commit.offsets.is_empty() {
            return Ok(());
        }
        let transactions = Arc::clone(self.transactions());
        transactions.coordinator.lock().begin_offsets(
            transactional_id,
            producer,
            &offsets_partition(),
            &commit.group,
        )?;
        let in_flight = Arc::new(InFlightOffsets {
            groups: Arc::clone(self.groups()),
            transactional_id: transactional_id.to_owned(),
            producer,
            commit,
            stage: Mutex::new(Stage::Queued),
            transactions: Arc::clone(&transactions),
        });
        let batch = in_flight.encode()?;
        let deciding = Arc::clone(&in_flight);
        let request = AppendRequest::single(transactions.partition.clone(), batch)
            .with_precondition(move || deciding.admit());
        self.submit(request, move |outcome| in_flight.finish(outcome.is_ok())).await.map(|_| ())
    }
}

impl InFlightOffsets {
    /// All that the transaction will commit of the group. Nobody else adds to it meanwhile: the id is busy.
    fn encode(&self) -> Result<Batch, BrokerError> {
        let mut offsets = self.groups.pending(self.producer.producer_id, &self.commit.group);
        offsets.extend(
            self.commit.offsets.iter().map(|(partition, offset)| (partition.clone(), offset.clone())),
        );
        let record = StateRecord::Offsets {
            transactional_id: self.transactional_id.clone(),
            group: self.commit.group.clone(),
            pending: Some(PendingOffsets { producer: self.producer, offsets }),
        };
        encode(&[record], self.transactions.clock.now().as_millis())
    }

    /// Whether the member may. Run by the thread that commits.
    fn admit(&self) -> Result<(), Rejection> {
        let producer_id = self.producer.producer_id;
        let before = self.groups.pending(producer_id, &self.commit.group);
        self.groups
            .add_pending(producer_id, &self.commit)
            .map_err(|error| Rejection::from(BrokerError::Fenced(error)))?;
        *self.stage.lock() = Stage::Admitted(before);
        Ok(())
    }

    fn finish(&self, is_written: bool) {
        let before = match std::mem::replace(&mut *self.stage.lock(), Stage::Finished) {
            Stage::Queued => None,
            Stage::Admitted(before) => Some(before),
            Stage::Finished => return,
        };
        if let Some(before) = before.filter(|_| !is_written) {
            self.groups.restore_pending(self.producer.producer_id, &self.commit.group, before);
        }
        let mut coordinator = self.transactions.coordinator.lock();
        coordinator.finish_offsets(&self.transactional_id, &self.commit.group, is_written);
    }
}

impl Drop for InFlightOffsets {
    /// A caller that was dropped before the append, or a log that forgot its callback, must not leave the id busy for ever.
    fn drop(&mut self) {
        self.finish(false);
    }
}

/// What a transaction that commits offsets has among its partitions.
fn offsets_partition() -> TopicPartition {
    TopicPartition::new(OFFSETS_TOPIC, 0)
}

fn check_group(group: &str) -> Result<(), BrokerError> {
    let bytes = group.len();
    if bytes > MAX_NAME_BYTES {
        return Err(BrokerError::TooLarge { what: "group name", bytes, limit: MAX_NAME_BYTES });
    }
    Ok(())
}
