//! Idempotent producers and transactions over the wire.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_log::fs::fault::FaultFileSystem;
use farol_log::{BatchBuilder, BatchProducer};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiKey, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest,
    ListTransactionsRequest, OffsetFetchRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, Server, fetch_request, name, values};

#[derive(Clone, Copy)]
struct Producer {
    id: i64,
    epoch: i16,
}

fn id() -> TransactionalId {
    TransactionalId(StrBytes::from_static_str("id"))
}

fn init() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

fn records(producer: Producer, sequence: i32, value: &str, is_transactional: bool) -> Bytes {
    let mut builder = BatchBuilder::default().written_by(BatchProducer {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: sequence,
        is_transactional,
    });
    builder.push(None, Some(value.as_bytes()), &[], 1).unwrap();
    builder.build().unwrap().bytes().clone()
}

fn add(producer: Producer, topics: &[(&str, i32)]) -> AddPartitionsToTxnRequest {
    let topics = topics.iter().map(|(topic, partition)| {
        AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![*partition])
    });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(topics.collect())
}

fn end(producer: Producer, committed: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(committed)
}

impl Client {
    async fn init(&mut self, version: i16) -> Producer {
        let response = self.call(version, &init()).await;
        assert_eq!(response.error_code, 0);
        Producer { id: *response.producer_id, epoch: response.producer_epoch }
    }

    async fn add(&mut self, version: i16, producer: Producer, topics: &[(&str, i32)]) -> Vec<i16> {
        let response = self.call(version, &add(producer, topics)).await;
        let results = response.results_by_topic_v3_and_below.iter();
        results.map(|topic| topic.results_by_partition[0].partition_error_code).collect()
    }

    async fn end(&mut self, version: i16, producer: Producer, committed: bool) -> i16 {
        self.call(version, &end(producer, committed)).await.error_code
    }

    /// Values, the last stable offset and the aborted transactions that a reader of committed records is given.
    async fn committed(&mut self) -> (Vec<String>, i64, Vec<(i64, i64)>) {
        let request = fetch_request("t", 0, 0).with_isolation_level(1);
        let response = self.call(11, &request).await;
        let partition = &response.responses[0].partitions[0];
        let aborted = partition.aborted_transactions.iter().flatten();
        (
            values(partition.records.as_ref()),
            partition.last_stable_offset,
            aborted.map(|aborted| (*aborted.producer_id, aborted.first_offset)).collect(),
        )
    }

    async fn latest(&mut self, isolation: i8) -> i64 {
        let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_isolation_level(isolation).with_topics(vec![topic]);
        self.call(7, &request).await.topics[0].partitions[0].offset
    }
}

#[tokio::test]
async fn an_idempotent_batch_is_written_once_and_gaps_and_old_epochs_are_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let response = client.call(4, &init().with_transactional_id(None)).await;
    let producer = Producer { id: *response.producer_id, epoch: response.producer_epoch };
    for _ in 0..3 {
        let response = client.produce("t", 0, records(producer, 0, "a", false)).await;
        assert_eq!((response.error_code, response.base_offset), (0, 0));
    }
    let gap = client.produce("t", 0, records(producer, 2, "c", false)).await;
    assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    let newer = Producer { epoch: 1, ..producer };
    assert_eq!(client.produce("t", 0, records(newer, 0, "b", false)).await.base_offset, 1);
    let old = client.produce("t", 0, records(producer, 1, "b", false)).await;
    assert_eq!(old.error_code, ResponseError::InvalidProducerEpoch.code());
    let two = [records(newer, 1, "x", false), records(newer, 2, "y", false)].concat();
    let two = client.produce("t", 0, two.into()).await;
    assert_eq!(two.error_code, ResponseError::InvalidRecord.code());
}

#[tokio::test]
async fn a_transaction_goes_through_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut offset = 0;
    for (init, add, end) in (0..=5).map(|version| (version, version.min(3), version.min(4))) {
        let producer = client.init(init).await;
        assert_eq!(client.add(add, producer, &[("t", 0), ("t", 1)]).await, [0, 0]);
        for (sequence, committed) in [(0, true), (1, false)] {
            client.add(add, producer, &[("t", 0)]).await;
            let text = format!("{init} {committed}");
            let response = client.produce("t", 0, records(producer, sequence, &text, true)).await;
            assert_eq!((response.error_code, response.base_offset), (0, offset));
            assert_eq!(client.latest(1).await, offset);
            assert_eq!(client.latest(0).await, offset + 1);
            assert_eq!(client.end(end, producer, committed).await, 0);
            offset += 2;
            assert_eq!(client.latest(1).await, offset);
        }
    }
    let (seen, stable, aborted) = client.committed().await;
    assert_eq!((seen.len(), stable, aborted.len()), (24, 24, 6), "records, markers and the list to tell by");
    assert_eq!(aborted[0].1, 2);
    let all = client.fetch("t", 0, 0).await;
    assert!(all.aborted_transactions.unwrap_or_default().is_empty(), "not for who reads all");
}

#[tokio::test]
async fn offsets_go_with_a_transaction_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let group = GroupId(StrBytes::from_static_str("g"));
    let stable = async |client: &mut Client| {
        let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_topics(Some(vec![topic]))
            .with_require_stable(true);
        let partition = client.call(7, &request).await.topics[0].partitions[0].clone();
        (partition.error_code, partition.committed_offset)
    };
    let producer = client.init(4).await;
    for version in 0..=4i16 {
        let add = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id())
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(group.clone());
        assert_eq!(client.call(version, &add).await.error_code, 0);
        let offsets = |index, offset| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
        };
        let topic = |topic, offset| {
            TxnOffsetCommitRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![offsets(0, offset)])
        };
        let offset = i64::from(version) + 1;
        let mut commit = TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(group.clone())
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_topics(vec![topic("t", offset), topic("missing", 1)]);
        if version >= 3 {
            commit = commit.with_generation_id(-1);
        }
        let codes = |response: &TxnOffsetCommitResponse| {
            response.topics.iter().map(|topic| topic.partitions[0].error_code).collect::<Vec<_>>()
        };
        let answer = client.call(version, &commit).await;
        assert_eq!(codes(&answer), [0, ResponseError::UnknownTopicOrPartition.code()], "{version}");
        assert_eq!(stable(&mut client).await.0, ResponseError::UnstableOffsetCommit.code());
        if version >= 3 {
            let stranger =
                commit.clone().with_generation_id(5).with_member_id(StrBytes::from_static_str("x"));
            let refused = client.call(version, &stranger).await;
            assert_eq!(codes(&refused)[0], ResponseError::UnknownMemberId.code());
        }
        let old = commit.clone().with_producer_epoch(producer.epoch - 1);
        let refused = client.call(version, &old).await;
        assert_eq!(codes(&refused)[0], ResponseError::InvalidProducerEpoch.code());
        let is_committed = version % 2 == 0;
        assert_eq!(client.end(4, producer, is_committed).await, 0);
        let expected = if is_committed { offset } else { offset - 1 };
        assert_eq!(stable(&mut client).await, (0, expected));
    }
}

#[tokio::test]
async fn a_transaction_ends_for_its_own_producer_only() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = client.init(4).await;
    let outside = client.produce("t", 0, records(first, 0, "a", true)).await;
    assert_eq!(outside.error_code, ResponseError::InvalidTxnState.code());
    let unknown = client.add(3, first, &[("t", 0), ("missing", 0), ("__consumer_offsets", 0)]).await;
    let missing = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(unknown, [ResponseError::OperationNotAttempted.code(), missing, missing]);
    assert_eq!(client.end(3, first, true).await, ResponseError::InvalidTxnState.code());
    client.add(3, first, &[("t", 0)]).await;
    client.produce("t", 0, records(first, 0, "a", true)).await;

    let second = client.init(4).await;
    assert_eq!((second.id, second.epoch), (first.id, first.epoch + 1));
    assert_eq!(client.end(4, first, true).await, ResponseError::ProducerFenced.code());
    assert_eq!(client.end(1, first, true).await, ResponseError::InvalidProducerEpoch.code());
    let zombie = client.produce("t", 0, records(first, 1, "b", true)).await;
    assert_eq!(zombie.error_code, ResponseError::InvalidProducerEpoch.code());
    let stranger = Producer { id: 999, epoch: 0 };
    assert_eq!(client.end(4, stranger, true).await, ResponseError::InvalidProducerIdMapping.code());
    // Who says which producer it was goes on, unless it was fenced.
    let again = |producer: Producer| {
        init().with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch)
    };
    let fenced = client.call(4, &again(first)).await;
    assert_eq!(fenced.error_code, ResponseError::ProducerFenced.code());
    let third = client.call(4, &again(second)).await;
    assert_eq!((third.error_code, third.producer_epoch), (0, second.epoch + 1));
    let lost_answer = client.call(4, &again(second)).await;
    assert_eq!((lost_answer.error_code, lost_answer.producer_epoch), (0, second.epoch + 1));
    let (_, stable, aborted) = client.committed().await;
    assert_eq!((stable, aborted), (2, vec![(first.id, 0)]));
}

#[tokio::test]
async fn timeouts_and_names_have_their_bounds() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for timeout in [0, -1, 15 * 60 * 1000 + 1] {
        let response = client.call(4, &init().with_transaction_timeout_ms(timeout)).await;
        assert_eq!(response.error_code, ResponseError::InvalidTransactionTimeout.code(), "{timeout}");
    }
    let empty = client.call(4, &init().with_transactional_id(Some(TransactionalId::default()))).await;
    assert_eq!(empty.error_code, ResponseError::InvalidRequest.code());
    let long = TransactionalId(StrBytes::from_string("x".repeat(300)));
    let long = client.call(4, &init().with_transactional_id(Some(long))).await;
    assert_ne!(long.error_code, 0);
}

#[tokio::test]
async fn transactions_and_producers_are_described() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let producer = client.init(4).await;
    client.add(3, producer, &[("t", 0)]).await;
    client.produce("t", 0, records(producer, 0, "a", true)).await;

    let other = TransactionalId(StrBytes::from_static_str("other"));
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id(), other]);
    let described = client.call(0, &request).await.transaction_states;
    assert_eq!(described[0].transaction_state.as_str(), "Ongoing");
    assert_eq!((*described[0].producer_id, described[0].producer_epoch), (producer.id, producer.epoch));
    assert_eq!((described[0].topics[0].topic.clone(), described[0].topics[0].partitions[0]), (name("t"), 0));
    assert!(described[0].transaction_start_time_ms > 0);
    assert_eq!(described[1].error_code, ResponseError::TransactionalIdNotFound.code());

    let listed = async |client: &mut Client, version, request: ListTransactionsRequest| {
        let response = client.call(version, &request).await;
        (response.transaction_states.len(), response.unknown_state_filters.len())
    };
    let any = || ListTransactionsRequest::default().with_duration_filter(-1);
    let state = |state| any().with_state_filters(vec![StrBytes::from_static_str(state)]);
    for version in 0..=1 {
        assert_eq!(listed(&mut client, version, any()).await, (1, 0));
        assert_eq!(listed(&mut client, version, state("Ongoing")).await, (1, 0));
        assert_eq!(listed(&mut client, version, state("Empty")).await, (0, 0));
        assert_eq!(listed(&mut client, version, state("Odd")).await, (0, 1));
        let wanted = any().with_producer_id_filters(vec![ProducerId(producer.id + 1)]);
        assert_eq!(listed(&mut client, version, wanted).await, (0, 0));
    }
    assert_eq!(listed(&mut client, 1, any().with_duration_filter(1_000_000)).await, (0, 0));

    let topic = |topic: &str| TopicRequest::default().with_name(name(topic)).with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic("t"), topic("missing")]);
    let topics = client.call(0, &request).await.topics;
    let active = &topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (*active.producer_id, active.last_sequence, active.current_txn_start_offset),
        (producer.id, 0, 0)
    );
    assert_eq!(topics[1].partitions[0].error_code, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test]
async fn what_only_brokers_and_newer_transactions_send_is_not_announced() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = kafka_protocol::messages::ApiVersionsRequest::default();
    let served = client.call(0, &request).await.api_keys;
    let max = |key: ApiKey| served.iter().find(|api| api.api_key == key as i16).unwrap().max_version;
    assert_eq!((max(ApiKey::AddPartitionsToTxn), max(ApiKey::EndTxn)), (3, 4));
}

#[tokio::test]
async fn a_transaction_that_a_full_disk_holds_up_is_to_be_ended_once_more() {
    let disk = FaultFileSystem::new(1);
    let server = Server::start_on_disk(&disk).await;
    let mut client = server.client().await;
    let producer = client.init(4).await;
    assert_eq!(client.add(3, producer, &[("t", 0)]).await, [0]);
    client.produce("t", 0, records(producer, 0, "kept", true)).await;
    let add_offsets = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(GroupId(StrBytes::from_static_str("g")));
    let another = init().with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("another"))));

    disk.set_capacity(disk.used_bytes());
    // The first is refused by the disk itself, the others by the log, which waits for space.
    let later = ResponseError::CoordinatorNotAvailable.code();
    for _ in 0..2 {
        assert_eq!(client.end(3, producer, true).await, later);
        assert_eq!(client.add(3, producer, &[("t", 1)]).await, [later]);
        assert_eq!(client.call(3, &add_offsets).await.error_code, later);
        assert_eq!(client.call(4, &another).await.error_code, later);
    }
    disk.set_capacity(u64::MAX);
    // As clients do, because this code says that it passes.
    let started = Instant::now();
    while client.end(3, producer, true).await == later {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (values, stable_offset, aborted) = client.committed().await;
    assert_eq!(
        (values[0].as_str(), stable_offset, aborted),
        ("kept", 2, vec![]),
        "the record and its marker"
    );
}
