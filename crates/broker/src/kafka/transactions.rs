//! The APIs of idempotent and transactional producers: who they are, what their transactions hold, how they end.
//!
//! Versions that only brokers send to brokers (AddPartitionsToTxn from 4 on) and those of transactions version 2 (EndTxn 5) are
//! not served: clients use them only if the feature `transaction.version` is announced, and it isn't.
//!
//! Every change is durable when it is answered. A connection's next request waits for it, so what a client sends behind it
//! finds it done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farol_log::Marker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TopicName,
    TransactionalId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::api::{Answer, Call};
use super::distinct::{distinct, distinct_partitions};
use super::error_code::{Failure, code};
use super::membership::{member, owned};
use super::offsets::{check, commit_code};
use crate::broker::Broker;
use crate::coordinator::{CommitCheck, Committer};
use crate::error::BrokerError;
use crate::groups::{CommittedOffset, OffsetCommit};
use crate::partition::TopicPartition;
use crate::transactions::{ProducerIdentity, Status, TransactionError, Transactional};

/// The lowest version of each API whose clients know PRODUCER_FENCED; older ones know INVALID_PRODUCER_EPOCH.
const INIT_FENCED_FROM: i16 = 4;
const FENCED_FROM: i16 = 2;
/// From this version on: InitProducerId says which producer it was.
const EXPECTED_FROM: i16 = 3;
/// No filter by duration.
const ANY_DURATION: i64 = -1;

/// Gives a producer its id and epoch.
pub(super) async fn init_producer_id(
    call: Call,
    request: InitProducerIdRequest,
) -> Answer<InitProducerIdResponse> {
    let failed = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    let transactional_id = request.transactional_id.as_ref().map(|id| id.as_str());
    if transactional_id == Some("") {
        return failed(ResponseError::InvalidRequest).into();
    }
    let said = ProducerIdentity { producer_id: *request.producer_id, epoch: request.producer_epoch };
    let expected = (call.version >= EXPECTED_FROM && said.producer_id >= 0).then_some(said);
    if expected.is_some_and(|expected| expected.epoch < 0) {
        return failed(ResponseError::InvalidRequest).into();
    }
    let initialised =
        call.broker().init_producer(transactional_id, request.transaction_timeout_ms, expected).await;
    match initialised {
        Ok(identity) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .into(),
        // One without transactions has no coordinator to look for, and is told what is wrong.
        Err(error) if transactional_id.is_none() => failed(code(&error)).into(),
        Err(error) => failed(known_since(INIT_FENCED_FROM, &call, &error)).into(),
    }
}

/// Adds partitions to a transaction, all or none.
pub(super) async fn add_partitions_to_txn(
    call: Call,
    request: AddPartitionsToTxnRequest,
) -> Answer<AddPartitionsToTxnResponse> {
    let producer = ProducerIdentity {
        producer_id: *request.v3_and_below_producer_id,
        epoch: request.v3_and_below_producer_epoch,
    };
    let topics = request.v3_and_below_topics;
    let mut unknown = BTreeSet::new();
    let mut partitions = BTreeSet::new();
    for topic in &topics {
        for index in &topic.partitions {
            match writable(call.broker(), &topic.name, *index) {
                Some(partition) => partitions.insert(partition),
                None => unknown.insert((topic.name.clone(), *index)),
            };
        }
    }
    let error = if unknown.is_empty() {
        let id = request.v3_and_below_transactional_id.as_str();
        let added = call.broker().add_to_transaction(id, producer, &partitions).await;
        added.err().map_or(0, |error| known_since(FENCED_FROM, &call, &error).code())
    } else {
        // What isn't there keeps the others out, too: nothing is added.
        ResponseError::OperationNotAttempted.code()
    };
    let error_of = |topic: &TopicName, index: i32| {
        let is_unknown = unknown.contains(&(topic.clone(), index));
        if is_unknown { ResponseError::UnknownTopicOrPartition.code() } else { error }
    };
    let results = topics.into_iter().map(|topic| added(topic, error_of)).collect();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results).into()
}

fn added(
    topic: AddPartitionsToTxnTopic,
    error_of: impl Fn(&TopicName, i32) -> i16,
) -> AddPartitionsToTxnTopicResult {
    let results = topic.partitions.iter().map(|index| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(*index)
            .with_partition_error_code(error_of(&topic.name, *index))
    });
    let results = results.collect();
    AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(results)
}

/// A partition that clients may write to.
fn writable(broker: &Broker, topic: &TopicName, index: i32) -> Option<TopicPartition> {
    let topic = broker.topic(topic).ok().filter(|topic| !topic.is_internal())?;
    topic.partition(index).ok()?;
    Some(TopicPartition::new(Arc::clone(topic.name()), index))
}

/// Says that a transaction will commit offsets of a group.
pub(super) async fn add_offsets_to_txn(
    call: Call,
    request: AddOffsetsToTxnRequest,
) -> Answer<AddOffsetsToTxnResponse> {
    let producer = ProducerIdentity { producer_id: *request.producer_id, epoch: request.producer_epoch };
    let added = call
        .broker()
        .add_offsets_to_transaction(&request.transactional_id, producer, &request.group_id)
        .await;
    let error = added.err().map_or(0, |error| known_since(FENCED_FROM, &call, &error).code());
    AddOffsetsToTxnResponse::default().with_error_code(error).into()
}

/// Commits offsets with a transaction.
pub(super) async fn txn_offset_commit(
    call: Call,
    request: TxnOffsetCommitRequest,
) -> Answer<TxnOffsetCommitResponse> {
    let producer = ProducerIdentity { producer_id: *request.producer_id, epoch: request.producer_epoch };
    let mut offsets = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let name = TopicPartition::new(owned(&topic.name), partition.partition_index);
            let metadata = partition.committed_metadata.as_ref().map(owned).unwrap_or_default();
            if let Err(error) = check(call.broker(), &name, partition.committed_offset, &metadata) {
                refused.insert(name, error.code());
                continue;
            }
            let committed = CommittedOffset {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata,
                committed_at_ms: 0,
            };
            offsets.insert(name, committed);
        }
    }
    let commit = OffsetCommit {
        group: owned(&request.group_id),
        committer: Some(Committer {
            member: member(&request.member_id, request.group_instance_id.as_ref()),
            generation: request.generation_id,
            check: CommitCheck::Transaction,
        }),
        offsets,
    };
    let id = request.transactional_id.as_str();
    let committed = call.broker().commit_offsets_in_transaction(id, producer, commit).await;
    let all = committed.err().map_or(0, |error| match error {
        // To a group's coordinator, a fenced producer is one with an old epoch.
        BrokerError::Transaction(TransactionError::Fenced) => ResponseError::InvalidProducerEpoch.code(),
        error => commit_code(&error),
    });
    let topics = request.topics.into_iter().map(|topic| {
        let name: Arc<str> = topic.name.as_str().into();
        let partitions = topic.partitions.iter().map(|partition| {
            let key = TopicPartition::new(Arc::clone(&name), partition.partition_index);
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(refused.get(&key).copied().unwrap_or(all))
        });
        TxnOffsetCommitResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect()).into()
}

/// Commits or aborts a transaction.
pub(super) async fn end_txn(call: Call, request: EndTxnRequest) -> Answer<EndTxnResponse> {
    let producer = ProducerIdentity { producer_id: *request.producer_id, epoch: request.producer_epoch };
    let marker = if request.committed { Marker::Commit } else { Marker::Abort };
    let ended = call.broker().end_transaction(&request.transactional_id, producer, marker).await;
    let error = ended.err().map_or(0, |error| known_since(FENCED_FROM, &call, &error).code());
    EndTxnResponse::default().with_error_code(error).into()
}

/// What partitions remember of their producers.
pub(super) async fn describe_producers(
    call: Call,
    request: DescribeProducersRequest,
) -> Answer<DescribeProducersResponse> {
    let topics = request.topics.into_iter().map(|topic| (topic.name, topic.partition_indexes));
    let topics = distinct_partitions(topics);
    Answer::work(move || {
        let topics = topics.into_iter().map(|(name, indexes)| {
            let partitions = indexes.iter().map(|index| producers_of(call.broker(), &name, *index)).collect();
            TopicResponse::default().with_name(name).with_partitions(partitions)
        });
        DescribeProducersResponse::default().with_topics(topics.collect())
    })
}

fn producers_of(broker: &Broker, topic: &TopicName, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    let name: Arc<str> = topic.as_str().into();
    match broker.partition_producers(&TopicPartition::new(name, index)) {
        Ok(producers) => {
            let producers = producers.iter().map(|producer| {
                ProducerState::default()
                    .with_producer_id(ProducerId(producer.producer_id))
                    .with_producer_epoch(i32::from(producer.epoch))
                    .with_last_sequence(producer.last_sequence)
                    .with_last_timestamp(producer.last_seen.as_millis())
                    .with_coordinator_epoch(0)
                    .with_current_txn_start_offset(producer.open_from)
            });
            response.with_active_producers(producers.collect())
        }
        Err(error) => {
            let failure = Failure::from(&error);
            response.with_error_code(failure.code()).with_error_message(failure.text())
        }
    }
}

/// Transactional ids in detail.
pub(super) async fn describe_transactions(
    call: Call,
    request: DescribeTransactionsRequest,
) -> Answer<DescribeTransactionsResponse> {
    let ids = distinct(request.transactional_ids, TransactionalId::clone);
    Answer::work(move || {
        let describe = |id: TransactionalId| match call.broker().transaction(&id) {
            Some(found) => described(id, &found),
            None => TransactionState::default()
                .with_transactional_id(id)
                .with_error_code(ResponseError::TransactionalIdNotFound.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
                .with_transaction_start_time_ms(-1),
        };
        DescribeTransactionsResponse::default().with_transaction_states(ids.map(describe).collect())
    })
}

fn described(id: TransactionalId, found: &Transactional) -> TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in &found.partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let topic = StrBytes::from_string(topic.to_owned());
        TopicData::default().with_topic(TopicName(topic)).with_partitions(partitions)
    });
    TransactionState::default()
        .with_transactional_id(id)
        .with_transaction_state(StrBytes::from_static_str(found.status.as_str()))
        .with_transaction_timeout_ms(found.timeout_ms)
        .with_transaction_start_time_ms(found.started_at_ms)
        .with_producer_id(ProducerId(found.producer_id))
        .with_producer_epoch(found.epoch)
        .with_topics(topics.collect())
}

/// Transactional ids, filtered.
pub(super) async fn list_transactions(
    call: Call,
    request: ListTransactionsRequest,
) -> Answer<ListTransactionsResponse> {
    let known = [Status::Empty, Status::Ongoing, Status::CompleteCommit, Status::CompleteAbort];
    let is_known = |name: &StrBytes| known.iter().any(|status| status.as_str() == name.as_str());
    let (wanted, unknown): (Vec<StrBytes>, Vec<StrBytes>) =
        request.state_filters.into_iter().partition(is_known);
    let any_state = wanted.is_empty() && unknown.is_empty();
    let now_ms = call.broker().clock().now().as_millis();
    let matches = move |found: &Transactional| {
        let state = any_state || wanted.iter().any(|name| name.as_str() == found.status.as_str());
        let producers = &request.producer_id_filters;
        let producer = producers.is_empty() || producers.contains(&ProducerId(found.producer_id));
        let duration = request.duration_filter == ANY_DURATION
            || (found.started_at_ms >= 0
                && now_ms.saturating_sub(found.started_at_ms) >= request.duration_filter);
        state && producer && duration
    };
    Answer::work(move || {
        let look = |found: &Transactional| matches(found).then_some((found.producer_id, found.status));
        let listed = call.broker().transactional_ids(look).into_iter();
        let listed = listed.map(|(id, (producer_id, status))| {
            ListedTransaction::default()
                .with_transactional_id(TransactionalId(StrBytes::from_string(id)))
                .with_producer_id(ProducerId(producer_id))
                .with_transaction_state(StrBytes::from_static_str(status.as_str()))
        });
        ListTransactionsResponse::default()
            .with_transaction_states(listed.collect())
            .with_unknown_state_filters(unknown)
    })
}

/// The code of an error, in the words that the client's version knows. What is about the disk or the stop passes: the client looks
/// for its coordinator again and asks once more, where it would give its transaction up for a storage error.
fn known_since(version: i16, call: &Call, error: &BrokerError) -> ResponseError {
    if let BrokerError::Closed | BrokerError::Poisoned { .. } | BrokerError::Snapshot { .. } = error {
        return ResponseError::CoordinatorNotAvailable;
    }
    match code(error) {
        ResponseError::ProducerFenced if call.version < version => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}
