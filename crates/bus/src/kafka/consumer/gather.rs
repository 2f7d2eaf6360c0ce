//! Taking what librdkafka has fetched.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Message as _, TopicPartitionList};

use super::context::Told;
use super::headers;
use crate::engine::BusError;
use crate::kafka::error::bus_error;
use crate::record::{ConsumedRecord, TopicPartition};

/// How much one call takes at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// What was there.
#[derive(Default)]
pub(super) struct Gathered {
    /// By partition, in the order of their first record.
    pub(super) batches: Vec<(TopicPartition, Vec<ConsumedRecord>)>,
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Nothing was left.
    pub(super) drained: bool,
    /// What stopped it.
    pub(super) problem: Option<BusError>,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0 && self.problem.is_none()
    }

    fn push(&mut self, message: &BorrowedMessage<'_>, memory: &mut BytesMut) {
        let record = record(message, memory);
        self.records += 1;
        self.bytes += record.key.as_ref().map_or(0, Bytes::len)
            + record.value.as_ref().map_or(0, Bytes::len)
            + record.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let (topic, partition) = (message.topic(), message.partition());
        let is_this = |(held, _): &(TopicPartition, _)| held.partition == partition && &*held.topic == topic;
        // Records of one partition mostly come one after the other.
        let place = match self.batches.last() {
            Some(last) if is_this(last) => Some(self.batches.len() - 1),
            _ => self.batches.iter().position(is_this),
        };
        match place.and_then(|place| self.batches.get_mut(place)) {
            Some((_, records)) => records.push(record),
            None => {
                let topic: Arc<str> = topic.into();
                self.batches.push((TopicPartition::new(topic, partition), vec![record]));
            }
        }
    }
}

/// Takes what is there without waiting, in addition to what was taken before, up to the budget in all. Stops at news of the group.
pub(super) fn gather(consumer: &BaseConsumer<Told>, told: &Told, budget: Budget, into: &mut Gathered) {
    let mut memory = BytesMut::new();
    while into.records < budget.records && into.bytes < budget.bytes {
        let before = told.callbacks();
        match consumer.poll(std::time::Duration::ZERO) {
            Some(Ok(message)) => into.push(&message, &mut memory),
            Some(Err(error)) => {
                if let Some(problem) = problem(&error, consumer) {
                    into.problem = Some(problem);
                    return;
                }
            }
            None if told.callbacks() == before => {
                into.drained = true;
                return;
            }
            None => {}
        }
        if told.has_event() {
            return;
        }
    }
}

/// Copies a record into memory that it shares with its neighbours.
fn record(message: &BorrowedMessage<'_>, memory: &mut BytesMut) -> ConsumedRecord {
    let mut copy = |bytes: &[u8]| {
        memory.extend_from_slice(bytes);
        memory.split().freeze()
    };
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers::each(headers).map(|(name, value)| (name.into_owned(), copy(value))).collect()
    });
    ConsumedRecord {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(&mut copy),
        value: message.payload().map(&mut copy),
        headers,
    }
}

/// What the consumer's user must know. The rest passes by itself or is told in another way.
fn problem(error: &KafkaError, consumer: &BaseConsumer<Told>) -> Option<BusError> {
    let trouble = &consumer.context().trouble;
    match error {
        KafkaError::PartitionEOF(_) => None,
        KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code) => match code {
            Code::AllBrokersDown => Some(trouble.error().unwrap_or(BusError::Unreachable)),
            Code::Authentication => Some(trouble.error().unwrap_or_else(|| bus_error(error, "reading"))),
            // The group tells of it by taking the partitions away.
            Code::PollExceeded => None,
            _ => match bus_error(error, "reading") {
                BusError::Unavailable(reason) => {
                    tracing::debug!(reason, "librdkafka tries again");
                    None
                }
                // librdkafka's binding for Rust keeps to itself which one it is.
                BusError::UnknownTopicOrPartition(_) => {
                    Some(BusError::UnknownTopicOrPartition(gone(&topics(consumer))))
                }
                problem => Some(problem),
            },
        },
        other => Some(bus_error(other, "reading")),
    }
}

/// The topics that are read, or are to be once the group gives partitions of them.
fn topics(consumer: &BaseConsumer<Told>) -> BTreeSet<String> {
    let lists = [consumer.assignment(), consumer.subscription()];
    let elements = |list: &TopicPartitionList| {
        list.elements().iter().map(|element| element.topic().to_owned()).collect::<Vec<_>>()
    };
    lists.iter().flatten().flat_map(elements).collect()
}

/// That one of these topics isn't there, for [`BusError::UnknownTopicOrPartition`].
fn gone(topics: &BTreeSet<String>) -> String {
    let names = topics.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>().join(", ");
    match topics.len() {
        0 => "topic that was to be read, or not any more".to_owned(),
        1 => format!("topic {names}, or not any more"),
        _ => format!("topic of one of these names, or not any more: {names}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_gone_is_named() {
        let error = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            BusError::UnknownTopicOrPartition(gone(&names)).to_string()
        };
        assert_eq!(error(&["notes"]), "there is no topic `notes`, or not any more");
        assert_eq!(error(&["a", "b"]), "there is no topic of one of these names, or not any more: `a`, `b`");
        assert_eq!(error(&[]), "there is no topic that was to be read, or not any more");
    }
}
