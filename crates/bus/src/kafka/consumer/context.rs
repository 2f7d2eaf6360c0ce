//! What librdkafka tells a consumer while it is polled: rebalances, errors, where partitions end.
//!
//! librdkafka waits for an answer to each rebalance. It isn't given here, in the callback, but by the consumer, when its user has
//! been told and polls again; only while it closes, at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Statistics, TopicPartitionList};

use crate::kafka::access::Trouble;
use crate::kafka::client;
use crate::record::TopicPartition;

/// How many reports after a break one is believed: some seconds, while librdkafka looks at a partition many times a second.
const REPORTS_UNTIL_TRUE: u64 = 4;

/// What the group has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupEvent {
    /// These come; none, if a rebalance has given this member nothing new.
    Assigned(Vec<TopicPartition>),
    /// These go.
    Revoked(Vec<TopicPartition>),
}

/// Where a partition ends, and how far everything in it has been fetched, markers included.
///
/// What was fetched and not polled yet is thrown away and fetched again after a seek and after each rebalance, and librdkafka
/// notices that it has not reached that far only when it fetches again. So a report counts only when several before it,
/// all from connected brokers, came after such a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionEnd {
    /// One after the last committed record; negative if it isn't known yet.
    pub(super) stable: i64,
    /// The end that the fetcher last reached; negative if it hasn't reached one.
    pub(super) reached: i64,
}

/// Shared by a consumer and librdkafka's callbacks, which run where the consumer is polled.
#[derive(Default)]
pub(super) struct Told {
    events: Mutex<VecDeque<GroupEvent>>,
    ends: Mutex<HashMap<(String, i32), PartitionEnd>>,
    /// Rises with every callback, because a poll that only served callbacks looks like one that found nothing.
    callbacks: AtomicU64,
    /// How many reports of ends there were since a broker was last seen disconnected, or since [`Told::distrust`].
    reports: AtomicU64,
    closing: AtomicBool,
    /// Why connections fail.
    pub(super) trouble: Trouble,
}

impl Told {
    pub(super) fn next_event(&self) -> Option<GroupEvent> {
        self.events.lock().pop_front()
    }

    pub(super) fn has_event(&self) -> bool {
        !self.events.lock().is_empty()
    }

    /// An event whose handling failed comes again.
    pub(super) fn put_back(&self, event: GroupEvent) {
        self.events.lock().push_front(event);
    }

    pub(super) fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Reports of before a break say nothing about what came after.
    pub(super) fn distrust(&self) {
        self.reports.store(0, Ordering::Relaxed);
    }

    /// Whether what is reported as reached has been fetched and not been thrown away.
    pub(super) fn trusted(&self) -> bool {
        self.reports.load(Ordering::Relaxed) >= REPORTS_UNTIL_TRUE
    }

    pub(super) fn end(&self, partition: &TopicPartition) -> Option<PartitionEnd> {
        self.ends.lock().get(&(partition.topic.to_string(), partition.partition)).copied()
    }

    /// From now on rebalances are answered at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn called(&self) {
        self.callbacks.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
        self.called();
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka consumer");
        self.trouble.note(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let connected = statistics.brokers.values().all(|broker| broker.nodeid < 0 || broker.state == "UP");
        let mut ends = self.ends.lock();
        ends.clear();
        for (topic, state) in statistics.topics {
            for (partition, state) in state.partitions {
                let end = PartitionEnd { stable: state.ls_offset, reached: state.eof_offset };
                ends.insert((topic.clone(), partition), end);
            }
        }
        drop(ends);
        if connected {
            self.reports.fetch_add(1, Ordering::Relaxed);
        } else {
            self.distrust();
        }
        self.called();
    }
}

impl ConsumerContext for Told {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.called();
        if self.closing.load(Ordering::Relaxed) {
            answer_at_once(consumer, kind, list);
            return;
        }
        let partitions: Vec<_> = list
            .elements()
            .iter()
            .map(|element| TopicPartition::new(element.topic(), element.partition()))
            .collect();
        self.events.lock().push_back(match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => GroupEvent::Assigned(partitions),
            _ => GroupEvent::Revoked(partitions),
        });
    }

    fn commit_callback(&self, _: Result<(), KafkaError>, _: &TopicPartitionList) {
        self.called();
    }
}

fn answer_at_once(consumer: &BaseConsumer<Told>, kind: RDKafkaRespErr, list: &TopicPartitionList) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let answered = match kind {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if cooperative => {
            consumer.incremental_assign(&TopicPartitionList::new())
        }
        _ if cooperative => consumer.incremental_unassign(list),
        _ => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "leaving a group");
    }
}
