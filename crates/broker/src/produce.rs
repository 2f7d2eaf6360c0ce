//! Appending foreign batches: whole, as they came, to one partition.
//!
//! The order in which batches of a connection get into the log's queue is the order in which they are judged, so whoever
//! has several on their way first awaits [`Broker::begin_produce`] of each in turn, and the [`Producing`]s in any order.

use std::sync::Arc;

use farol_log::{AppendRequest, Batch, BatchHeader};
use parking_lot::Mutex;

use crate::broker::{AppendUnderWay, Broker};
use crate::clock::Clock;
use crate::error::BrokerError;
use crate::partition::TopicPartition;
use crate::producers::ProducerError;
use crate::producers::tracker::{Admitted, Tracker, base_offset_of};
use crate::transactions::{ProducerIdentity, Transactions};

/// A batch on its way into a partition.
pub struct Producing {
    append: AppendUnderWay,
    judged: Option<Arc<Judged>>,
    partition: TopicPartition,
}

/// A producer's batch, shared by its precondition and its completion.
struct Judged {
    tracker: Arc<Tracker>,
    header: BatchHeader,
    transactions: Arc<Transactions>,
    partition: TopicPartition,
    clock: Clock,
    stage: Mutex<Stage>,
}

enum Stage {
    Queued,
    Admitted,
    /// The same batch is there already, or on its way.
    Duplicate(Admitted),
    Finished,
}

/// Tells the log that there is nothing to append. It never leaves this module.
#[derive(Debug, thiserror::Error)]
#[error("the batch is in the log already")]
struct AlreadyThere;

impl Broker {
    /// Puts validated batches into the queue of a partition, all or none. A batch of an idempotent producer comes alone; it is
    /// written once, however often it is sent, and in order; one of a transaction only while that is open and has the
    /// partition.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::Producer`] for fields that contradict one another,
    /// [`BrokerError::TooLarge`], [`BrokerError::Closed`].
    pub async fn begin_produce(
        &self,
        partition: &TopicPartition,
        mut batches: Vec<Batch>,
    ) -> Result<Producing, BrokerError> {
        let log_partition = self.partition(partition)?;
        if batches.iter().all(has_no_producer) {
            let batches = batches.into_iter().map(|batch| (log_partition.clone(), batch)).collect();
            let append = self.begin(AppendRequest::new(batches), |_| {}).await?;
            return Ok(Producing { append, judged: None, partition: partition.clone() });
        }
        let alone = batches.pop().filter(|_| batches.is_empty());
        let problem = "a producer sends one batch at a time to a partition";
        let batch = alone.ok_or(ProducerError::InvalidFields { problem })?;
        let header = *batch.header();
        let tracker = self.producers().tracker(&log_partition);
        tracker.mark(self.producers().limits()).await.map_err(|source| BrokerError::Snapshot {
            partition: partition.to_string(),
            problem: source.to_string(),
        })?;
        let judged = Arc::new(Judged {
            tracker,
            header,
            transactions: Arc::clone(self.transactions()),
            partition: partition.clone(),
            clock: self.clock(),
            stage: Mutex::new(Stage::Queued),
        });
        let (deciding, finishing) = (Arc::clone(&judged), Arc::clone(&judged));
        let request =
            AppendRequest::single(log_partition, batch).with_precondition(move || deciding.decide());
        let append = self.begin(request, move |outcome| finishing.finish(base_offset_of(outcome))).await?;
        Ok(Producing { append, judged: Some(judged), partition: partition.clone() })
    }

    /// [`Broker::begin_produce`] and [`Producing::wait`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub async fn produce(&self, partition: &TopicPartition, batch: Batch) -> Result<i64, BrokerError> {
        self.begin_produce(partition, vec![batch]).await?.wait().await
    }
}

impl Producing {
    /// The offset of the batch's first record, when it is as durable as its topic asks and can be read. For a batch that
    /// was sent again, the one that it got the first time.
    ///
    /// # Errors
    /// [`BrokerError::Producer`], [`BrokerError::Transaction`], [`BrokerError::Poisoned`], [`BrokerError::Closed`].
    pub async fn wait(self) -> Result<i64, BrokerError> {
        let error = match self.append.decided().await {
            Ok(base_offsets) => return base_offsets.first().copied().ok_or(BrokerError::Closed),
            Err(error) => error,
        };
        let duplicate = self.judged.and_then(|judged| judged.take_duplicate());
        match duplicate {
            None | Some(Admitted::Append) => Err(error),
            Some(Admitted::At(base_offset)) => Ok(base_offset),
            Some(Admitted::OnItsWay(first)) => match first.await {
                Ok(Some(base_offset)) => Ok(base_offset),
                Ok(None) | Err(_) => Err(BrokerError::Poisoned {
                    partition: self.partition.to_string(),
                    problem: "the same batch, sent before, could not be appended".to_owned(),
                }),
            },
        }
    }
}

impl Judged {
    /// Whether the batch is to be written. Run by the thread that commits.
    fn decide(&self) -> Result<(), farol_log::Rejection> {
        match self.admit()? {
            Admitted::Append => {
                *self.stage.lock() = Stage::Admitted;
                Ok(())
            }
            duplicate => {
                *self.stage.lock() = Stage::Duplicate(duplicate);
                Err(Box::new(AlreadyThere))
            }
        }
    }

    fn admit(&self) -> Result<Admitted, BrokerError> {
        if self.header.is_transactional() {
            let (producer_id, epoch) = (self.header.producer_id, self.header.producer_epoch);
            self.transactions.may_write(ProducerIdentity { producer_id, epoch }, &self.partition)?;
        }
        Ok(self.tracker.admit(&self.header, self.clock.now())?)
    }

    /// The append has ended.
    fn finish(&self, base_offset: Option<i64>) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Admitted) {
            *stage = Stage::Finished;
            drop(stage);
            self.tracker.finish(&self.header, base_offset);
        }
    }

    fn take_duplicate(&self) -> Option<Admitted> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Finished) {
            Stage::Duplicate(duplicate) => Some(duplicate),
            Stage::Queued | Stage::Admitted | Stage::Finished => None,
        }
    }
}

impl Drop for Judged {
    /// A log that forgot its callback must not leave the batch on its way for ever.
    fn drop(&mut self) {
        self.finish(None);
    }
}

fn has_no_producer(batch: &Batch) -> bool {
    let header = batch.header();
    header.producer_id < 0 && !header.is_transactional() && !header.is_control()
}

impl From<ProducerError> for BrokerError {
    fn from(error: ProducerError) -> Self {
        Self::Producer(error)
    }
}
