//! Producers of transactions.
//!
//! Records go to the brokers as they come. Offsets are kept until the commit and sent right before it, so that the proof of
//! membership is as fresh as it can be, and so that a transaction has one place where it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::Offset;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{self, blocking};
use super::error::{bus_error, code_error, is_fenced};
use super::producer::{KnownTopics, NativeProducer, Outstanding, Reports, largest};
use super::{CALL_LIMIT, KafkaOptions, admin};
use crate::engine::{BusError, GroupMetadata, TransactionalProducer};
use crate::record::{ProducerRecord, TopicPartition};

pub(super) struct KafkaTransactionalProducer {
    options: KafkaOptions,
    native: Arc<NativeProducer>,
    id: String,
    topics: KnownTopics,
    open: Option<OpenTransaction>,
    /// Why this producer can't be used any more.
    over: Option<BusError>,
}

#[derive(Default)]
struct OpenTransaction {
    sends: Vec<Sent>,
    /// By group: who commits, and what.
    offsets: BTreeMap<String, (GroupMetadata, BTreeMap<TopicPartition, i64>)>,
    /// A send that failed; the transaction can only be aborted.
    broken: bool,
}

/// Records on their way.
struct Sent {
    outstanding: Arc<Outstanding>,
    topic: String,
    largest: usize,
}

/// How a failed commit ended.
enum Failed {
    /// Records were not taken, of this topic and at most this large; the rest was aborted.
    Refused { code: Code, topic: String, largest: usize },
    /// Aborted: nothing of it is ever seen.
    Aborted(BusError),
    /// The producer can't go on.
    Over(BusError),
}

impl KafkaTransactionalProducer {
    /// Takes the transactional id over: an older producer is fenced, and what it left open is aborted. Waits for the coordinator.
    pub(super) fn open(
        options: &KafkaOptions,
        transactional_id: &str,
        topics: KnownTopics,
    ) -> Result<Self, BusError> {
        let native = open_native(options, transactional_id)?;
        Ok(Self {
            options: options.clone(),
            native,
            id: transactional_id.to_owned(),
            topics,
            open: None,
            over: None,
        })
    }

    /// After a refused batch, librdkafka would number the next one as if that had been taken, and the broker would refuse it,
    /// too. A new producer begins a new count.
    async fn renew(&mut self) {
        let (options, id) = (self.options.clone(), self.id.clone());
        match blocking(move || open_native(&options, &id)).await {
            Ok(native) => self.native = native,
            Err(error) => self.over = Some(error),
        }
    }

    fn check(&self) -> Result<(), BusError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    fn transaction(&mut self) -> Result<&mut OpenTransaction, BusError> {
        self.check()?;
        self.open.as_mut().ok_or_else(|| BusError::InvalidState("no transaction was begun".to_owned()))
    }

    async fn fail(&mut self, failed: Failed) -> BusError {
        match failed {
            Failed::Refused { code, topic, largest } => {
                self.renew().await;
                self.topics.explain(code, &topic, largest).await
            }
            Failed::Aborted(error) => error,
            Failed::Over(error) => {
                self.over = Some(error.clone());
                error
            }
        }
    }
}

#[async_trait]
impl TransactionalProducer for KafkaTransactionalProducer {
    fn begin(&mut self) -> Result<(), BusError> {
        self.check()?;
        if self.open.is_some() {
            return Err(BusError::InvalidState("a transaction is open already".to_owned()));
        }
        // Changes a state in memory; no request is made.
        if let Err(error) = self.native.begin_transaction() {
            let error = bus_error(&error, &self.id);
            self.over = Some(error.clone());
            return Err(error);
        }
        self.open = Some(OpenTransaction::default());
        Ok(())
    }

    async fn send(&mut self, topic: &str, records: Vec<ProducerRecord>) -> Result<(), BusError> {
        self.transaction()?;
        if records.is_empty() {
            return Ok(());
        }
        let known = self.topics.check(topic).await;
        let outstanding = Outstanding::of(records.len());
        let sent = match known {
            Err(error) => Err(error),
            Ok(()) => match outstanding.enqueue(&self.native, topic, &records).await {
                Ok(()) => Ok(()),
                Err(code) => Err(self.topics.explain(code, topic, largest(&records)).await),
            },
        };
        let open = self.transaction()?;
        open.broken |= sent.is_err();
        open.sends.push(Sent { outstanding, topic: topic.to_owned(), largest: largest(&records) });
        sent
    }

    async fn send_offsets(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
        group: &GroupMetadata,
    ) -> Result<(), BusError> {
        let open = self.transaction()?;
        if let Some((partition, offset)) = offsets.iter().find(|(_, offset)| **offset < 0) {
            return Err(BusError::InvalidState(format!("offset {offset} of {partition} is negative")));
        }
        let (metadata, sent) = open.offsets.entry(group.group.clone()).or_default();
        metadata.clone_from(group);
        sent.extend(offsets);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        if self.transaction()?.broken {
            return Err(BusError::InvalidState(
                "a send of this transaction failed; it can only be aborted".to_owned(),
            ));
        }
        let Some(open) = self.open.take() else { return Ok(()) };
        let (native, id, limit) = (Arc::clone(&self.native), self.id.clone(), self.options.transaction_limit);
        let done = blocking(move || Ok(commit(&native, &id, &open, limit))).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(self.fail(failed).await),
            Err(interrupted) => Err(self.fail(Failed::Over(interrupted)).await),
        }
    }

    async fn abort(&mut self) -> Result<(), BusError> {
        self.transaction()?;
        let Some(open) = self.open.take() else { return Ok(()) };
        let (native, id) = (Arc::clone(&self.native), self.id.clone());
        let aborted = blocking(move || Ok(abort(&native, &id))).await;
        match aborted {
            Ok(Ok(())) => {
                // What the abort itself threw away is no failure.
                let refused = |code| !matches!(code, Code::PurgeQueue | Code::PurgeInflight);
                if open.sends.iter().filter_map(|sent| sent.outstanding.failure()).any(refused) {
                    self.renew().await;
                }
                Ok(())
            }
            Ok(Err(error)) | Err(error) => Err(self.fail(Failed::Over(error)).await),
        }
    }
}

impl Drop for KafkaTransactionalProducer {
    /// Ends what is open, so that readers don't wait for the transaction's time limit.
    fn drop(&mut self) {
        if self.open.take().is_some() && self.over.is_none() {
            let native = Arc::clone(&self.native);
            std::thread::spawn(move || {
                if let Err(error) = native.abort_transaction(CALL_LIMIT) {
                    tracing::debug!(%error, "a transaction was left to its time limit");
                }
            });
        }
    }
}

/// A producer that has taken the transactional id over.
fn open_native(options: &KafkaOptions, transactional_id: &str) -> Result<Arc<NativeProducer>, BusError> {
    let native: NativeProducer =
        client::create(&client::transactional_config(options, transactional_id), Reports::default())?;
    let what = format!("transactional id {transactional_id}");
    native.init_transactions(CALL_LIMIT).map_err(|error| bus_error(&error, &what))?;
    Ok(Arc::new(native))
}

fn commit(native: &NativeProducer, id: &str, open: &OpenTransaction, limit: Duration) -> Result<(), Failed> {
    let deadline = Instant::now() + limit;
    // Only to know what went wrong; the commit would wait for them itself.
    let flushed = native.flush(limit);
    if let Some((sent, code)) = open.sends.iter().find_map(|s| Some((s, s.outstanding.failure()?))) {
        return Err(match end(native, id, code_error(code, &sent.topic)) {
            Failed::Aborted(_) => Failed::Refused { code, topic: sent.topic.clone(), largest: sent.largest },
            over => over,
        });
    }
    if let Err(error) = flushed {
        return Err(end(native, id, bus_error(&error, id)));
    }
    for (metadata, offsets) in open.offsets.values() {
        let Some(proof) = metadata.proof.as_ref().filter(|proof| proof.holds()) else {
            let text =
                format!("`{}` is no longer a member of group `{}`", metadata.member_id, metadata.group);
            return Err(end(native, id, BusError::Fenced(text)));
        };
        let offsets = offsets.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset)));
        let list = admin::list(offsets).map_err(|error| end(native, id, error))?;
        retried(deadline, |limit| native.send_offsets_to_transaction(&list, proof.metadata(), limit))
            .map_err(|error| end(native, id, transaction_error(&error, id)))?;
    }
    retried(deadline, |limit| native.commit_transaction(limit)).map_err(|error| match &error {
        KafkaError::Transaction(reason) if reason.txn_requires_abort() => {
            end(native, id, transaction_error(&error, id))
        }
        _ => Failed::Over(in_doubt(&error, id)),
    })
}

/// Aborts what could not be committed.
fn end(native: &NativeProducer, id: &str, why: BusError) -> Failed {
    match abort(native, id) {
        Ok(()) => Failed::Aborted(why),
        // Fenced for good, or the coordinator can't be reached; either way nothing was committed.
        Err(error) => Failed::Over(if matches!(error, BusError::Fenced(_)) { error } else { why }),
    }
}

fn abort(native: &NativeProducer, id: &str) -> Result<(), BusError> {
    let deadline = Instant::now() + CALL_LIMIT;
    retried(deadline, |limit| native.abort_transaction(limit)).map_err(|error| transaction_error(&error, id))
}

/// A commit that failed without an answer.
fn in_doubt(error: &KafkaError, id: &str) -> BusError {
    match transaction_error(error, id) {
        fenced @ BusError::Fenced(_) => fenced,
        other => {
            BusError::Unavailable(format!("whether the transaction was committed is not known: {other}"))
        }
    }
}

fn transaction_error(error: &KafkaError, id: &str) -> BusError {
    match error {
        KafkaError::Transaction(reason) if is_fenced(reason.code()) => {
            BusError::Fenced(format!("{id}: {}", reason.string()))
        }
        KafkaError::Transaction(reason) => match code_error(reason.code(), id) {
            // librdkafka's own sentence says more.
            BusError::Unavailable(_) => BusError::Unavailable(format!("{id}: {}", reason.string())),
            BusError::InvalidState(_) => BusError::InvalidState(format!("{id}: {}", reason.string())),
            other => other,
        },
        other => bus_error(other, id),
    }
}

/// Calls until it succeeds, fails for good, or the time is up.
fn retried(
    deadline: Instant,
    mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        match call(limit) {
            Err(KafkaError::Transaction(reason))
                if (reason.is_retriable() || reason.code() == Code::OperationTimedOut)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}
