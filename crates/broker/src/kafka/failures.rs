//! Which failures an answer tells, so that all are counted: of the whole request, of a topic, of a partition and so on.

use kafka_protocol::messages::*;

/// An answer that can tell failures.
pub(super) trait Failures {
    /// Hands every error code of the answer to `tell`, 0 for what has succeeded included.
    fn each_code(&self, tell: &mut dyn FnMut(i16));
}

/// `a > b > code`: the code of every entry `b` of every entry `a`.
macro_rules! each_code {
    ($value:expr, $tell:ident, $code:ident) => {
        $tell($value.$code)
    };
    ($value:expr, $tell:ident, $entries:ident > $($rest:tt)+) => {
        for entry in &$value.$entries {
            each_code!(entry, $tell, $($rest)+);
        }
    };
}

/// Where the error codes of each answer are.
macro_rules! failures {
    ($($response:ident: $($first:ident $(> $rest:ident)*),+;)*) => {$(
        impl Failures for $response {
            fn each_code(&self, tell: &mut dyn FnMut(i16)) {
                $(each_code!(self, tell, $first $(> $rest)*);)+
            }
        }
    )*};
}

failures! {
    ProduceResponse: responses > partition_responses > error_code;
    ListOffsetsResponse: topics > partitions > error_code;
    MetadataResponse: error_code, topics > error_code, topics > partitions > error_code;
    OffsetCommitResponse: topics > partitions > error_code;
    OffsetFetchResponse: error_code, topics > partitions > error_code, groups > error_code,
        groups > topics > partitions > error_code;
    FindCoordinatorResponse: error_code, coordinators > error_code;
    JoinGroupResponse: error_code;
    HeartbeatResponse: error_code;
    LeaveGroupResponse: error_code, members > error_code;
    SyncGroupResponse: error_code;
    DescribeGroupsResponse: groups > error_code;
    ListGroupsResponse: error_code;
    ApiVersionsResponse: error_code;
    SaslHandshakeResponse: error_code;
    SaslAuthenticateResponse: error_code;
    CreateTopicsResponse: topics > error_code;
    DeleteTopicsResponse: responses > error_code;
    CreatePartitionsResponse: results > error_code;
    DescribeTopicPartitionsResponse: topics > error_code, topics > partitions > error_code;
    DeleteRecordsResponse: topics > partitions > error_code;
    OffsetForLeaderEpochResponse: topics > partitions > error_code;
    DescribeConfigsResponse: results > error_code;
    AlterConfigsResponse: responses > error_code;
    IncrementalAlterConfigsResponse: responses > error_code;
    DescribeClusterResponse: error_code;
    DescribeLogDirsResponse: error_code, results > error_code;
    DescribeAclsResponse: error_code;
    InitProducerIdResponse: error_code;
    AddPartitionsToTxnResponse: error_code,
        results_by_topic_v3_and_below > results_by_partition > partition_error_code,
        results_by_transaction > topic_results > results_by_partition > partition_error_code;
    AddOffsetsToTxnResponse: error_code;
    EndTxnResponse: error_code;
    TxnOffsetCommitResponse: topics > partitions > error_code;
    DescribeProducersResponse: topics > partitions > error_code;
    DescribeTransactionsResponse: transaction_states > error_code;
    ListTransactionsResponse: error_code;
    DeleteGroupsResponse: results > error_code;
    OffsetDeleteResponse: error_code, topics > partitions > error_code;
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::add_partitions_to_txn_response::{
        AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    };
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };

    use super::*;

    fn codes(answer: &dyn Failures) -> Vec<i16> {
        let mut codes = Vec::new();
        answer.each_code(&mut |code| codes.push(code));
        codes.retain(|code| *code != 0);
        codes
    }

    #[test]
    fn codes_are_found_at_every_depth() {
        let partition = |code| OffsetFetchResponsePartitions::default().with_error_code(code);
        let topic = OffsetFetchResponseTopics::default().with_partitions(vec![
            partition(3),
            partition(0),
            partition(4),
        ]);
        let group = OffsetFetchResponseGroup::default().with_error_code(2).with_topics(vec![topic]);
        let answer = OffsetFetchResponse::default().with_error_code(1).with_groups(vec![group]);
        assert_eq!(codes(&answer), [1, 2, 3, 4]);

        let partition = AddPartitionsToTxnPartitionResult::default().with_partition_error_code(5);
        let topic = AddPartitionsToTxnTopicResult::default().with_results_by_partition(vec![partition]);
        let transaction = AddPartitionsToTxnResult::default().with_topic_results(vec![topic.clone()]);
        let answer = AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(vec![topic])
            .with_results_by_transaction(vec![transaction]);
        assert_eq!(codes(&answer), [5, 5]);
    }
}
