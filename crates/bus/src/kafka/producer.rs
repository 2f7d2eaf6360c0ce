//! Producers whose records stand alone, and what a send waits for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use super::client::{self, Logging, MAX_RECORD_BYTES, blocking};
use super::error::{code_error, librdkafka_says};
use super::{KafkaOptions, admin};
use crate::engine::{BusError, Producer};
use crate::record::{Partitioning, ProducerRecord, RecordMetadata};

/// Handing over so many records takes well under half a millisecond; then others get their turn.
const RECORDS_A_TURN: usize = 128;
/// How often a producer of little patience sends again. The pauses double from 100 ms on: some one and a half seconds.
const FEW_RETRIES: u32 = 4;
/// The header of a batch, and the lengths in its one record.
const BYTES_AROUND_A_RECORD: usize = 61 + 9;
/// How long a send waits for room in librdkafka's queue before it looks again.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct KafkaProducer {
    options: KafkaOptions,
    client_id: String,
    patience: Patience,
    native: Mutex<Arc<NativeProducer>>,
    topics: KnownTopics,
}

/// How long a record is sent again that the broker refuses for the time being, because of a full disk mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as it may wait for its acknowledgement. Then only that is known.
    Whole,
    /// A few times, then the broker's reason is given. Later batches would be numbered as if this one had been taken, so the producer is of no
    /// use any more.
    Short,
}

/// librdkafka's producer with a thread that takes its delivery reports.
pub(super) type NativeProducer = ThreadedProducer<Reports>;

/// Takes delivery reports to the sends that wait for them.
#[derive(Default)]
pub(super) struct Reports {
    /// The broker could not write what it was last asked to: a record, or an id for this producer, without which nothing is sent.
    has_no_disk: AtomicBool,
}

/// One record of a send.
pub(super) struct Delivery {
    send: Arc<Outstanding>,
    index: usize,
}

/// A send whose records are on their way.
#[derive(Default)]
pub(super) struct Outstanding {
    state: Mutex<SendState>,
    done: Notify,
}

#[derive(Default)]
struct SendState {
    left: usize,
    places: Vec<RecordMetadata>,
    failed: Option<Code>,
}

/// Topics that were there when somebody first sent to them. Sending to another one would make librdkafka wait for it, and
/// some clusters create it.
pub(super) struct KnownTopics {
    client: Arc<BaseConsumer<Logging>>,
    admin: Arc<AdminClient<Logging>>,
    known: Mutex<HashSet<String>>,
}

impl Reports {
    /// Why a record failed: of those that wait for an id, or behind one that was refused, librdkafka says only that time was up.
    fn reason(&self, code: Code) -> Code {
        if code == Code::KafkaStorageError {
            self.has_no_disk.store(true, Ordering::Relaxed);
        }
        let has_no_disk = self.has_no_disk.load(Ordering::Relaxed);
        if code == Code::MessageTimedOut && has_no_disk { Code::KafkaStorageError } else { code }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == client::NO_PRODUCER_ID {
            let has_no_disk = message.contains(&librdkafka_says(Code::KafkaStorageError));
            self.has_no_disk.store(has_no_disk, Ordering::Relaxed);
        }
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka producer");
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let outcome = match result {
            Ok(message) => {
                self.has_no_disk.store(false, Ordering::Relaxed);
                Ok(RecordMetadata { partition: message.partition(), offset: message.offset() })
            }
            Err((error, _)) => Err(self.reason(error.rdkafka_error_code().unwrap_or(Code::Fail))),
        };
        delivery.send.settle(delivery.index, outcome);
    }
}

impl Outstanding {
    pub(super) fn of(records: usize) -> Arc<Self> {
        let nowhere = RecordMetadata { partition: -1, offset: -1 };
        let state = SendState { left: records, places: vec![nowhere; records], failed: None };
        Arc::new(Self { state: Mutex::new(state), done: Notify::new() })
    }

    fn settle(&self, index: usize, outcome: Result<RecordMetadata, Code>) {
        let mut state = self.state.lock();
        match outcome {
            Ok(place) => state.places.get_mut(index).into_iter().for_each(|slot| *slot = place),
            Err(code) => state.failed = state.failed.or(Some(code)),
        }
        state.left = state.left.saturating_sub(1);
        if state.left == 0 {
            self.done.notify_one();
        }
    }

    /// Gives up on records that were never handed over.
    fn abandon(&self, records: usize) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_sub(records);
        if state.left == 0 {
            self.done.notify_one();
        }
    }

    /// Waits until every record is durable or lost. Every record is one or the other within its time limit.
    async fn settled(&self) -> Result<Vec<RecordMetadata>, Code> {
        loop {
            {
                let mut state = self.state.lock();
                if state.left == 0 {
                    return state.failed.map_or_else(|| Ok(std::mem::take(&mut state.places)), Err);
                }
            }
            self.done.notified().await;
        }
    }

    /// What went wrong so far.
    pub(super) fn failure(&self) -> Option<Code> {
        self.state.lock().failed
    }

    /// Hands records to librdkafka, waiting for room where there is none.
    pub(super) async fn enqueue(
        self: &Arc<Self>,
        native: &NativeProducer,
        topic: &str,
        records: &[ProducerRecord],
    ) -> Result<(), Code> {
        for (index, record) in records.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            while let Err(code) = self.hand_over(native, topic, record, index) {
                if code == Code::QueueFull {
                    tokio::time::sleep(QUEUE_PAUSE).await;
                    continue;
                }
                self.abandon(records.len().saturating_sub(index));
                return Err(code);
            }
        }
        Ok(())
    }

    fn hand_over(
        self: &Arc<Self>,
        native: &NativeProducer,
        topic: &str,
        record: &ProducerRecord,
        index: usize,
    ) -> Result<(), Code> {
        let delivery = Box::new(Delivery { send: Arc::clone(self), index });
        let mut native_record: BaseRecord<'_, [u8], [u8], Box<Delivery>> =
            BaseRecord::with_opaque_to(topic, delivery).timestamp(record.timestamp_ms);
        if let Partitioning::Explicit(partition) = record.partitioning {
            // librdkafka takes a negative one for "choose".
            if partition < 0 {
                return Err(Code::UnknownPartition);
            }
            native_record = native_record.partition(partition);
        }
        native_record.key = record.key.as_deref();
        native_record.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            native_record.headers = Some(record.headers.iter().fold(headers, |headers, (name, value)| {
                headers.insert(Header { key: name, value: Some(value.as_ref()) })
            }));
        }
        native.send(native_record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail))
    }
}

impl KnownTopics {
    pub(super) fn new(client: Arc<BaseConsumer<Logging>>, admin: Arc<AdminClient<Logging>>) -> Self {
        Self { client, admin, known: Mutex::default() }
    }

    pub(super) async fn check(&self, topic: &str) -> Result<(), BusError> {
        if self.known.lock().contains(topic) {
            return Ok(());
        }
        let (client, name) = (Arc::clone(&self.client), topic.to_owned());
        blocking(move || admin::check_topic(&client, &name)).await?;
        self.known.lock().insert(topic.to_owned());
        Ok(())
    }

    /// Why records were not stored, in words that help.
    pub(super) async fn explain(&self, code: Code, topic: &str, largest: usize) -> BusError {
        if matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic) {
            // The next send looks again.
            self.known.lock().remove(topic);
        }
        if code == Code::InvalidRecord && admin::is_compacted(&self.admin, topic).await {
            let problem = "a record was refused; the topic is compacted, so each record must have a key";
            return BusError::InvalidState(format!("{topic}: {problem}"));
        }
        if !matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize)
        {
            return code_error(code, topic);
        }
        let limit = admin::max_record_bytes(&self.admin, topic).await.unwrap_or(MAX_RECORD_BYTES);
        // librdkafka doesn't split a batch that is refused, so many small records can be too large together.
        let what = if largest > limit { "record" } else { "batch" };
        BusError::TooLarge { what, bytes: largest, limit }
    }
}

impl KafkaProducer {
    pub(super) fn new(
        options: &KafkaOptions,
        client_id: &str,
        patience: Patience,
        topics: KnownTopics,
    ) -> Result<Self, BusError> {
        let native = Mutex::new(open(options, client_id, patience)?);
        Ok(Self { options: options.clone(), client_id: client_id.to_owned(), patience, native, topics })
    }

    /// The producer, or a new one where the last one has failed for good.
    fn native(&self) -> Result<Arc<NativeProducer>, BusError> {
        let mut native = self.native.lock();
        if let Some((code, reason)) = native.client().fatal_error() {
            tracing::warn!(client_id = self.client_id, ?code, reason, "producer failed and is replaced");
            *native = open(&self.options, &self.client_id, self.patience)?;
        }
        Ok(Arc::clone(&native))
    }
}

fn open(
    options: &KafkaOptions,
    client_id: &str,
    patience: Patience,
) -> Result<Arc<NativeProducer>, BusError> {
    let mut config = client::producer_config(options, client_id);
    if patience == Patience::Short {
        config.set("retries", FEW_RETRIES.to_string());
    }
    Ok(Arc::new(client::create(&config, Reports::default())?))
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&self, topic: &str, records: Vec<ProducerRecord>) -> Result<Vec<RecordMetadata>, BusError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.topics.check(topic).await?;
        let native = self.native()?;
        let send = Outstanding::of(records.len());
        let handed_over = send.enqueue(&native, topic, &records).await;
        // Also after a failure: whoever sends again must not overtake what is still on its way.
        let settled = send.settled().await;
        match handed_over.and(settled) {
            Ok(places) => Ok(places),
            Err(_) if let Some((fatal, reason)) = native.client().fatal_error() => {
                Err(code_error(fatal, &format!("{topic}: {reason}")))
            }
            Err(code) => Err(self.topics.explain(code, topic, largest(&records)).await),
        }
    }
}

/// The bytes of the largest record, about, as a batch of its own: a topic's limit is one for batches.
pub(super) fn largest(records: &[ProducerRecord]) -> usize {
    let bytes = |record: &ProducerRecord| {
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let value = record.value.as_ref().map_or(0, bytes::Bytes::len);
        record.key.as_ref().map_or(0, bytes::Bytes::len) + value + headers + BYTES_AROUND_A_RECORD
    };
    records.iter().map(bytes).max().unwrap_or(0)
}
