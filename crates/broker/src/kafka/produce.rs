//! Produce: batches into partitions, as they came.
//!
//! Whatever `acks` says, an append is acknowledged when it is as durable as its topic's `farol.sync` asks; with `acks=0` the
//! client just isn't told. Each partition succeeds or fails by itself. The batches of a request have their place in the
//! order of their partitions before the connection's next request is read, so a client may send on without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use farol_log::{Batch, BatchError, BatchHeader, BatchLimits, Compression, Partition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::api::{Answer, Call};
use super::error_code::{Failure, of_batch};
use crate::batches::now_ms;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::partition::TopicPartition;
use crate::produce::Producing;
use crate::topic::{Topic, TopicConfig};

/// Validating so many bytes of records takes less than half a millisecond.
const INLINE_BYTES: usize = 256 * 1024;
/// The same if they are compressed.
const INLINE_COMPRESSED_BYTES: usize = 16 * 1024;

/// From this version on, the records that are to blame are named.
const RECORD_ERRORS_FROM: i16 = 8;
/// What is wrong with a record for a compacted topic.
const NO_KEY: &str = "the topic is compacted, and a record has no key";

/// What a client sent for one partition.
struct Part {
    index: i32,
    records: Option<Bytes>,
}

/// What a client sent for one topic.
struct TopicParts {
    /// The answer, without its partitions.
    answer: TopicProduceResponse,
    topic: Result<Arc<Topic>, Failure>,
    parts: Vec<Part>,
}

/// Batches that may be appended.
struct Checked {
    name: TopicPartition,
    partition: Partition,
    batches: Vec<Batch>,
    /// The timestamp of the records if the topic sets it.
    append_time_ms: Option<i64>,
}

/// A partition's append, on its way or failed.
struct Started {
    index: i32,
    append: Result<(Producing, Partition, Option<i64>), Refused>,
}

/// Why nothing of a partition's batches is appended.
struct Refused {
    failure: Failure,
    /// The records that are to blame, by their places in the batch; a client may then send the others again.
    records: Vec<i32>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, records: Vec::new() }
    }
}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Self {
        Failure::from(error).into()
    }
}

/// Checks and begins the appends, and answers when they are decided.
pub(super) async fn produce(call: Call, request: ProduceRequest) -> Answer<ProduceResponse> {
    let acks = request.acks;
    let allowed = matches!(acks, -1..=1);
    let mut started = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let TopicParts { answer, topic, parts } = TopicParts::new(call.broker(), topic);
        let topic = topic.and_then(|topic| if allowed { Ok(topic) } else { Err(invalid_acks(acks)) });
        let checked = match topic {
            Ok(topic) => check(topic, parts).await,
            Err(failure) => parts.into_iter().map(|part| (part.index, Err(failure.clone().into()))).collect(),
        };
        let mut appends = Vec::with_capacity(checked.len());
        for (index, checked) in checked {
            appends.push(Started { index, append: begin(call.broker(), checked).await });
        }
        started.push((answer, appends));
    }
    if acks == 0 {
        return silent(call, started);
    }
    let version = call.version;
    Answer::later(async move {
        let mut responses = Vec::with_capacity(started.len());
        for (answer, appends) in started {
            let mut partitions = Vec::with_capacity(appends.len());
            for append in appends {
                partitions.push(append.response(version).await);
            }
            responses.push(answer.with_partition_responses(partitions));
        }
        ProduceResponse::default().with_responses(responses)
    })
}

/// Nothing is answered. A client that must learn of a failure learns it by the end of the connection, as from Kafka.
fn silent(call: Call, started: Vec<(TopicProduceResponse, Vec<Started>)>) -> Answer<ProduceResponse> {
    let mut appends: VecDeque<Started> = started.into_iter().flat_map(|(_, appends)| appends).collect();
    let refused: Vec<i16> = appends.iter().filter_map(Started::refusal).collect();
    if !refused.is_empty() {
        refused.into_iter().for_each(|code| call.count_failure(code));
        return Answer::Close("a batch with acks=0 was refused");
    }
    Answer::Silent(Box::pin(async move {
        while let Some(append) = appends.pop_front() {
            call.count_failure(append.response(call.version).await.error_code);
        }
    }))
}

impl TopicParts {
    /// By name, or by id from version 13 on.
    fn new(broker: &Broker, sent: TopicProduceData) -> Self {
        let topic =
            if sent.topic_id.is_nil() { broker.topic(&sent.name) } else { broker.topic_by_id(sent.topic_id) };
        let topic = topic.map_err(Failure::from).and_then(|topic| {
            if topic.is_internal() {
                let message = format!("topic `{}` is the broker's own", topic.name());
                return Err(Failure::new(ResponseError::InvalidTopicException, message));
            }
            Ok(topic)
        });
        let parts = sent.partition_data.into_iter();
        let parts = parts.map(|part| Part { index: part.index, records: part.records }).collect();
        let answer = TopicProduceResponse::default().with_name(sent.name).with_topic_id(sent.topic_id);
        Self { answer, topic, parts }
    }
}

type CheckedPart = (i32, Result<Checked, Refused>);

/// Validates what came for a topic, off the async threads if it is much.
async fn check(topic: Arc<Topic>, parts: Vec<Part>) -> Vec<CheckedPart> {
    let check_all = move |parts: Vec<Part>| -> Vec<CheckedPart> {
        parts.into_iter().map(|part| (part.index, check_part(&topic, part))).collect()
    };
    if parts.iter().map(Part::effort).fold(0, usize::saturating_add) <= INLINE_BYTES {
        return check_all(parts);
    }
    let indexes: Vec<i32> = parts.iter().map(|part| part.index).collect();
    let checked = tokio::task::spawn_blocking(move || check_all(parts)).await;
    checked.unwrap_or_else(|_| {
        let failure = Failure::new(ResponseError::UnknownServerError, "validating the batch failed");
        indexes.into_iter().map(|index| (index, Err(failure.clone().into()))).collect()
    })
}

impl Part {
    /// About how much work validating it is, in bytes of plain records.
    fn effort(&self) -> usize {
        let Some(records) = &self.records else { return 0 };
        let plain = BatchHeader::parse(records)
            .is_ok_and(|header| header.compression().is_ok_and(|c| c == Compression::None));
        if plain { records.len() } else { records.len() * (INLINE_BYTES / INLINE_COMPRESSED_BYTES) }
    }
}

fn check_part(topic: &Topic, part: Part) -> Result<Checked, Refused> {
    let partition = topic.partition(part.index)?.clone();
    let name = TopicPartition::new(Arc::clone(topic.name()), part.index);
    let config = topic.config();
    let limits = BatchLimits { max_batch_bytes: config.max_message_bytes, ..BatchLimits::default() };
    let batches = Batch::validate_all(part.records.unwrap_or_default(), &limits)
        .map_err(|error| invalid_batch(&error))?;
    for batch in &batches {
        check_batch(batch, config)?;
    }
    if !config.log_append_time {
        return Ok(Checked { name, partition, batches, append_time_ms: None });
    }
    let now_ms = now_ms();
    let batches = batches.iter().map(|batch| batch.with_append_time(now_ms)).collect();
    Ok(Checked { name, partition, batches, append_time_ms: Some(now_ms) })
}

/// What a client may not do, though the batch is a good one.
fn check_batch(batch: &Batch, config: &TopicConfig) -> Result<(), Refused> {
    let header = batch.header();
    let invalid = |message: &str| Err(Failure::new(ResponseError::InvalidRecord, message).into());
    if header.is_control() {
        return invalid("clients may not write control batches");
    }
    // Gaps come of compaction, and only of that.
    if i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        return invalid("the batch counts other records than its offsets say");
    }
    // What is older than other records is a late record; what claims to be of the future would be the newest for as long.
    let ahead_ms = header.base_timestamp_ms.max(header.max_timestamp_ms).saturating_sub(now_ms());
    if !config.log_append_time && ahead_ms > config.timestamp_ahead_ms {
        let message = format!(
            "the timestamp is {ahead_ms} ms ahead of the broker's clock; message.timestamp.after.max.ms is {}",
            config.timestamp_ahead_ms
        );
        return Err(Failure::new(ResponseError::InvalidTimestamp, message).into());
    }
    if config.is_compacted() {
        let records = batch.records_without_key().map_err(|error| invalid_batch(&error))?;
        if !records.is_empty() {
            let failure = Failure::new(ResponseError::InvalidRecord, NO_KEY);
            return Err(Refused { failure, records });
        }
    }
    Ok(())
}

fn invalid_batch(error: &BatchError) -> Failure {
    Failure::new(of_batch(error), error.to_string())
}

fn invalid_acks(acks: i16) -> Failure {
    Failure::new(ResponseError::InvalidRequiredAcks, format!("acks is {acks}; -1, 0 or 1 would do"))
}

async fn begin(
    broker: &Broker,
    checked: Result<Checked, Refused>,
) -> Result<(Producing, Partition, Option<i64>), Refused> {
    let Checked { name, partition, batches, append_time_ms } = checked?;
    let append = broker.begin_produce(&name, batches).await?;
    Ok((append, partition, append_time_ms))
}

impl Started {
    /// The code of what was refused at once.
    fn refusal(&self) -> Option<i16> {
        self.append.as_ref().err().map(|refused| refused.failure.code())
    }

    async fn response(self, version: i16) -> PartitionProduceResponse {
        let response = PartitionProduceResponse::default().with_index(self.index);
        let decided = match self.append {
            Ok((append, partition, append_time_ms)) => match append.wait().await {
                Ok(base_offset) => Ok((base_offset, partition, append_time_ms)),
                Err(error) => Err(Refused::from(error)),
            },
            Err(refused) => Err(refused),
        };
        match decided {
            Ok((base_offset, partition, append_time_ms)) => response
                .with_base_offset(base_offset)
                .with_log_append_time_ms(append_time_ms.unwrap_or(-1))
                .with_log_start_offset(partition.start_offset()),
            Err(Refused { failure, records }) => {
                let named = records.into_iter().filter(|_| version >= RECORD_ERRORS_FROM).map(|place| {
                    BatchIndexAndErrorMessage::default()
                        .with_batch_index(place)
                        .with_batch_index_error_message(failure.text())
                });
                response
                    .with_record_errors(named.collect())
                    .with_error_code(failure.code())
                    .with_error_message(failure.text())
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1)
            }
        }
    }
}
