//! Transactions: collected in memory, appended in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use farol_broker::{Broker, Membership, OffsetCommit, TopicBatches, TransactionalId};
use farol_log::{Batch, Partition};

use super::off_thread;
use super::producer::{Partitioner, push, total_size_hint};
use crate::engine::{BusError, GroupMetadata, TransactionalProducer};
use crate::record::{ProducerRecord, TopicPartition};

/// Building batches of this much takes about half a millisecond.
const INLINE_BUILD_BYTES: usize = 256 * 1024;

pub(super) struct EmbeddedTransactionalProducer {
    broker: Broker,
    id: TransactionalId,
    partitioner: Partitioner,
    open: Option<OpenTransaction>,
}

/// What a transaction has collected.
#[derive(Default)]
struct OpenTransaction {
    topics: BTreeMap<Arc<str>, TopicBatches>,
    /// By group: who commits, and what.
    offsets: BTreeMap<String, (GroupMetadata, BTreeMap<TopicPartition, i64>)>,
    /// A send that failed halfway; the transaction can only be aborted.
    broken: bool,
}

/// The same, ready to be appended.
struct Finished {
    batches: Vec<(Partition, Batch)>,
    offsets: Vec<OffsetCommit>,
}

impl EmbeddedTransactionalProducer {
    pub(super) fn new(broker: Broker, id: TransactionalId) -> Self {
        Self { broker, id, partitioner: Partitioner::default(), open: None }
    }

    fn open(&mut self) -> Result<&mut OpenTransaction, BusError> {
        self.open.as_mut().ok_or_else(|| BusError::InvalidState("no transaction was begun".to_owned()))
    }
}

impl OpenTransaction {
    fn encoded_bytes(&self) -> usize {
        self.topics.values().fold(0, |sum, topic| sum.saturating_add(topic.encoded_bytes()))
    }

    fn finish(self) -> Result<Finished, BusError> {
        let mut batches = Vec::new();
        for topic in self.topics.into_values() {
            for part in topic.build()? {
                batches.extend(part.batches.into_iter().map(|batch| (part.partition.clone(), batch)));
            }
        }
        let offsets = self
            .offsets
            .into_values()
            .filter(|(_, offsets)| !offsets.is_empty())
            .map(|(group, offsets)| OffsetCommit::by_owner(membership(group), offsets))
            .collect();
        Ok(Finished { batches, offsets })
    }
}

#[async_trait]
impl TransactionalProducer for EmbeddedTransactionalProducer {
    fn begin(&mut self) -> Result<(), BusError> {
        if self.open.is_some() {
            return Err(BusError::InvalidState("a transaction is open already".to_owned()));
        }
        self.id.check()?;
        self.open = Some(OpenTransaction::default());
        Ok(())
    }

    async fn send(&mut self, topic: &str, records: Vec<ProducerRecord>) -> Result<(), BusError> {
        let topic = self.broker.topic(topic)?;
        let limit = self.broker.max_request_bytes();
        let keyless = self.partitioner.next_keyless(&topic);
        let open = self.open()?;
        // What the commit appends is one request, so a transaction that has outgrown it can be told now.
        let bytes = open.encoded_bytes().saturating_add(total_size_hint(&records));
        if bytes > limit {
            open.broken = true;
            return Err(BusError::TooLarge { what: "transaction", bytes, limit });
        }
        let batches = open
            .topics
            .entry(Arc::clone(topic.name()))
            .or_insert_with(|| TopicBatches::new(Arc::clone(&topic)));
        for record in &records {
            if let Err(error) = push(batches, record, keyless) {
                open.broken = true;
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn send_offsets(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
        group: &GroupMetadata,
    ) -> Result<(), BusError> {
        check_offsets(&offsets)?;
        let open = self.open()?;
        let (metadata, sent) = open.offsets.entry(group.group.clone()).or_default();
        metadata.clone_from(group);
        sent.extend(offsets);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        if self.open()?.broken {
            return Err(BusError::InvalidState(
                "a send of this transaction failed; it can only be aborted".to_owned(),
            ));
        }
        let Some(open) = self.open.take() else { return Ok(()) };
        let finished = if open.encoded_bytes() <= INLINE_BUILD_BYTES {
            open.finish()?
        } else {
            off_thread(move || open.finish()).await?
        };
        Ok(self.id.commit(finished.batches, finished.offsets).await?)
    }

    async fn abort(&mut self) -> Result<(), BusError> {
        self.open()?;
        self.open = None;
        Ok(())
    }
}

/// The same in the broker's words.
pub(super) fn membership(group: GroupMetadata) -> Membership {
    Membership { group: group.group, member_id: group.member_id, generation: group.generation }
}

/// Offsets to commit count from zero.
pub(super) fn check_offsets(offsets: &BTreeMap<TopicPartition, i64>) -> Result<(), BusError> {
    match offsets.iter().find(|(_, offset)| **offset < 0) {
        Some((partition, offset)) => {
            Err(BusError::InvalidState(format!("offset {offset} of {partition} is negative")))
        }
        None => Ok(()),
    }
}
