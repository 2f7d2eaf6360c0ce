//! The layout of every request that may be served, from the protocol's schema: fields in order, with the versions that have
//! them. One that is missing here is refused.

use kafka_protocol::messages::ApiKey;

use super::Field;
use super::Kind::{Blob, Each, EachFixed, EachText, Fixed, Maybe, One, Text};

/// Of requests that have no version with compact lengths and tagged fields.
const NEVER: i16 = i16::MAX;

/// The fields of a request, and the first version with compact lengths and tagged fields.
pub(super) fn layout(key: ApiKey) -> Option<(&'static [Field], i16)> {
    let (fields, flexible_from): (&'static [Field], i16) = match key {
        ApiKey::Produce => (&PRODUCE, 9),
        ApiKey::Fetch => (&FETCH, 12),
        ApiKey::ListOffsets => (&LIST_OFFSETS, 6),
        ApiKey::Metadata => (&METADATA, 9),
        ApiKey::OffsetCommit => (&OFFSET_COMMIT, 8),
        ApiKey::OffsetFetch => (&OFFSET_FETCH, 6),
        ApiKey::FindCoordinator => (&FIND_COORDINATOR, 3),
        ApiKey::JoinGroup => (&JOIN_GROUP, 6),
        ApiKey::Heartbeat => (&HEARTBEAT, 4),
        ApiKey::LeaveGroup => (&LEAVE_GROUP, 4),
        ApiKey::SyncGroup => (&SYNC_GROUP, 4),
        ApiKey::DescribeGroups => (&DESCRIBE_GROUPS, 5),
        ApiKey::ListGroups => (&LIST_GROUPS, 3),
        ApiKey::SaslHandshake => (&SASL_HANDSHAKE, NEVER),
        ApiKey::ApiVersions => (&API_VERSIONS, 3),
        ApiKey::CreateTopics => (&CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (&DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (&DELETE_RECORDS, 2),
        ApiKey::InitProducerId => (&INIT_PRODUCER_ID, 2),
        ApiKey::OffsetForLeaderEpoch => (&OFFSET_FOR_LEADER_EPOCH, 4),
        ApiKey::AddPartitionsToTxn => (&ADD_PARTITIONS_TO_TXN, 3),
        ApiKey::AddOffsetsToTxn => (&ADD_OFFSETS_TO_TXN, 3),
        ApiKey::EndTxn => (&END_TXN, 3),
        ApiKey::TxnOffsetCommit => (&TXN_OFFSET_COMMIT, 3),
        ApiKey::DescribeAcls => (&DESCRIBE_ACLS, 2),
        ApiKey::CreateAcls => (&CREATE_ACLS, 2),
        ApiKey::DeleteAcls => (&DELETE_ACLS, 2),
        ApiKey::DescribeConfigs => (&DESCRIBE_CONFIGS, 4),
        ApiKey::AlterConfigs => (&ALTER_CONFIGS, 2),
        ApiKey::DescribeLogDirs => (&DESCRIBE_LOG_DIRS, 2),
        ApiKey::SaslAuthenticate => (&SASL_AUTHENTICATE, 2),
        ApiKey::CreatePartitions => (&CREATE_PARTITIONS, 2),
        ApiKey::DeleteGroups => (&DELETE_GROUPS, 2),
        ApiKey::ElectLeaders => (&ELECT_LEADERS, 2),
        ApiKey::IncrementalAlterConfigs => (&INCREMENTAL_ALTER_CONFIGS, 1),
        ApiKey::AlterPartitionReassignments => (&ALTER_PARTITION_REASSIGNMENTS, 0),
        ApiKey::ListPartitionReassignments => (&LIST_PARTITION_REASSIGNMENTS, 0),
        ApiKey::OffsetDelete => (&OFFSET_DELETE, NEVER),
        ApiKey::DescribeCluster => (&DESCRIBE_CLUSTER, 0),
        ApiKey::DescribeProducers => (&DESCRIBE_PRODUCERS, 0),
        ApiKey::DescribeTransactions => (&DESCRIBE_TRANSACTIONS, 0),
        ApiKey::ListTransactions => (&LIST_TRANSACTIONS, 0),
        ApiKey::DescribeTopicPartitions => (&DESCRIBE_TOPIC_PARTITIONS, 0),
        ApiKey::GetTelemetrySubscriptions => (&GET_TELEMETRY_SUBSCRIPTIONS, 0),
        ApiKey::ListConfigResources => (&LIST_CONFIG_RESOURCES, 0),
        ApiKey::ConsumerGroupDescribe => (&CONSUMER_GROUP_DESCRIBE, 0),
        ApiKey::DescribeUserScramCredentials => (&DESCRIBE_USER_SCRAM_CREDENTIALS, 0),
        ApiKey::DescribeClientQuotas => (&DESCRIBE_CLIENT_QUOTAS, 1),
        _ => return None,
    };
    Some((fields, flexible_from))
}

const fn field(from: i16, to: i16, kind: super::Kind) -> Field {
    Field { tag: None, from, to, kind }
}

const fn tagged(tag: u32, from: i16, to: i16, kind: super::Kind) -> Field {
    Field { tag: Some(tag), from, to, kind }
}

const PRODUCE_PARTITION_PRODUCE_DATA: [Field; 2] = [field(3, 13, Fixed(4)), field(3, 13, Blob)];

const PRODUCE_TOPIC_PRODUCE_DATA: [Field; 3] =
    [field(3, 12, Text), field(13, 13, Fixed(16)), field(3, 13, Each(&PRODUCE_PARTITION_PRODUCE_DATA))];

const PRODUCE: [Field; 4] = [
    field(3, 13, Text),
    field(3, 13, Fixed(2)),
    field(3, 13, Fixed(4)),
    field(3, 13, Each(&PRODUCE_TOPIC_PRODUCE_DATA)),
];

const FETCH_FETCH_PARTITION: [Field; 8] = [
    field(4, 18, Fixed(4)),
    field(9, 18, Fixed(4)),
    field(4, 18, Fixed(8)),
    field(12, 18, Fixed(4)),
    field(5, 18, Fixed(8)),
    field(4, 18, Fixed(4)),
    tagged(0, 17, 18, Fixed(16)),
    tagged(1, 18, 18, Fixed(8)),
];

const FETCH_FETCH_TOPIC: [Field; 3] =
    [field(4, 12, Text), field(13, 18, Fixed(16)), field(4, 18, Each(&FETCH_FETCH_PARTITION))];

const FETCH_FORGOTTEN_TOPIC: [Field; 3] =
    [field(7, 12, Text), field(13, 18, Fixed(16)), field(7, 18, EachFixed(4))];

const FETCH_REPLICA_STATE: [Field; 2] = [field(15, 18, Fixed(4)), field(15, 18, Fixed(8))];

const FETCH: [Field; 12] = [
    field(4, 14, Fixed(4)),
    field(4, 18, Fixed(4)),
    field(4, 18, Fixed(4)),
    field(4, 18, Fixed(4)),
    field(4, 18, Fixed(1)),
    field(7, 18, Fixed(4)),
    field(7, 18, Fixed(4)),
    field(4, 18, Each(&FETCH_FETCH_TOPIC)),
    field(7, 18, Each(&FETCH_FORGOTTEN_TOPIC)),
    field(11, 18, Text),
    tagged(0, 12, 18, Text),
    tagged(1, 15, 18, One(&FETCH_REPLICA_STATE)),
];

const LIST_OFFSETS_LIST_OFFSETS_PARTITION: [Field; 3] =
    [field(1, 10, Fixed(4)), field(4, 10, Fixed(4)), field(1, 10, Fixed(8))];

const LIST_OFFSETS_LIST_OFFSETS_TOPIC: [Field; 2] =
    [field(1, 10, Text), field(1, 10, Each(&LIST_OFFSETS_LIST_OFFSETS_PARTITION))];

const LIST_OFFSETS: [Field; 4] = [
    field(1, 10, Fixed(4)),
    field(2, 10, Fixed(1)),
    field(1, 10, Each(&LIST_OFFSETS_LIST_OFFSETS_TOPIC)),
    field(10, 10, Fixed(4)),
];

const METADATA_METADATA_REQUEST_TOPIC: [Field; 2] = [field(10, 13, Fixed(16)), field(0, 13, Text)];

const METADATA: [Field; 4] = [
    field(0, 13, Each(&METADATA_METADATA_REQUEST_TOPIC)),
    field(4, 13, Fixed(1)),
    field(8, 10, Fixed(1)),
    field(8, 13, Fixed(1)),
];

const OFFSET_COMMIT_OFFSET_COMMIT_REQUEST_PARTITION: [Field; 4] =
    [field(2, 9, Fixed(4)), field(2, 9, Fixed(8)), field(6, 9, Fixed(4)), field(2, 9, Text)];

const OFFSET_COMMIT_OFFSET_COMMIT_REQUEST_TOPIC: [Field; 2] =
    [field(2, 9, Text), field(2, 9, Each(&OFFSET_COMMIT_OFFSET_COMMIT_REQUEST_PARTITION))];

const OFFSET_COMMIT: [Field; 6] = [
    field(2, 9, Text),
    field(2, 9, Fixed(4)),
    field(2, 9, Text),
    field(7, 9, Text),
    field(2, 4, Fixed(8)),
    field(2, 9, Each(&OFFSET_COMMIT_OFFSET_COMMIT_REQUEST_TOPIC)),
];

const OFFSET_FETCH_OFFSET_FETCH_REQUEST_TOPIC: [Field; 2] = [field(1, 7, Text), field(1, 7, EachFixed(4))];

const OFFSET_FETCH_OFFSET_FETCH_REQUEST_TOPICS: [Field; 2] = [field(8, 9, Text), field(8, 9, EachFixed(4))];

const OFFSET_FETCH_OFFSET_FETCH_REQUEST_GROUP: [Field; 4] = [
    field(8, 9, Text),
    field(9, 9, Text),
    field(9, 9, Fixed(4)),
    field(8, 9, Each(&OFFSET_FETCH_OFFSET_FETCH_REQUEST_TOPICS)),
];

const OFFSET_FETCH: [Field; 4] = [
    field(1, 7, Text),
    field(1, 7, Each(&OFFSET_FETCH_OFFSET_FETCH_REQUEST_TOPIC)),
    field(8, 9, Each(&OFFSET_FETCH_OFFSET_FETCH_REQUEST_GROUP)),
    field(7, 9, Fixed(1)),
];

const FIND_COORDINATOR: [Field; 3] = [field(0, 3, Text), field(1, 6, Fixed(1)), field(4, 6, EachText)];

const JOIN_GROUP_JOIN_GROUP_REQUEST_PROTOCOL: [Field; 2] = [field(0, 9, Text), field(0, 9, Blob)];

const JOIN_GROUP: [Field; 8] = [
    field(0, 9, Text),
    field(0, 9, Fixed(4)),
    field(1, 9, Fixed(4)),
    field(0, 9, Text),
    field(5, 9, Text),
    field(0, 9, Text),
    field(0, 9, Each(&JOIN_GROUP_JOIN_GROUP_REQUEST_PROTOCOL)),
    field(8, 9, Text),
];

const HEARTBEAT: [Field; 4] =
    [field(0, 4, Text), field(0, 4, Fixed(4)), field(0, 4, Text), field(3, 4, Text)];

const LEAVE_GROUP_MEMBER_IDENTITY: [Field; 3] = [field(3, 5, Text), field(3, 5, Text), field(5, 5, Text)];

const LEAVE_GROUP: [Field; 3] =
    [field(0, 5, Text), field(0, 2, Text), field(3, 5, Each(&LEAVE_GROUP_MEMBER_IDENTITY))];

const SYNC_GROUP_SYNC_GROUP_REQUEST_ASSIGNMENT: [Field; 2] = [field(0, 5, Text), field(0, 5, Blob)];

const SYNC_GROUP: [Field; 7] = [
    field(0, 5, Text),
    field(0, 5, Fixed(4)),
    field(0, 5, Text),
    field(3, 5, Text),
    field(5, 5, Text),
    field(5, 5, Text),
    field(0, 5, Each(&SYNC_GROUP_SYNC_GROUP_REQUEST_ASSIGNMENT)),
];

const DESCRIBE_GROUPS: [Field; 2] = [field(0, 6, EachText), field(3, 6, Fixed(1))];

const LIST_GROUPS: [Field; 2] = [field(4, 5, EachText), field(5, 5, EachText)];

const SASL_HANDSHAKE: [Field; 1] = [field(0, 1, Text)];

const API_VERSIONS: [Field; 2] = [field(3, 4, Text), field(3, 4, Text)];

const CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT: [Field; 2] =
    [field(2, 7, Fixed(4)), field(2, 7, EachFixed(4))];

const CREATE_TOPICS_CREATABLE_TOPIC_CONFIG: [Field; 2] = [field(2, 7, Text), field(2, 7, Text)];

const CREATE_TOPICS_CREATABLE_TOPIC: [Field; 5] = [
    field(2, 7, Text),
    field(2, 7, Fixed(4)),
    field(2, 7, Fixed(2)),
    field(2, 7, Each(&CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT)),
    field(2, 7, Each(&CREATE_TOPICS_CREATABLE_TOPIC_CONFIG)),
];

const CREATE_TOPICS: [Field; 3] =
    [field(2, 7, Each(&CREATE_TOPICS_CREATABLE_TOPIC)), field(2, 7, Fixed(4)), field(2, 7, Fixed(1))];

const DELETE_TOPICS_DELETE_TOPIC_STATE: [Field; 2] = [field(6, 6, Text), field(6, 6, Fixed(16))];

const DELETE_TOPICS: [Field; 3] =
    [field(6, 6, Each(&DELETE_TOPICS_DELETE_TOPIC_STATE)), field(1, 5, EachText), field(1, 6, Fixed(4))];

const DELETE_RECORDS_DELETE_RECORDS_PARTITION: [Field; 2] = [field(0, 2, Fixed(4)), field(0, 2, Fixed(8))];

const DELETE_RECORDS_DELETE_RECORDS_TOPIC: [Field; 2] =
    [field(0, 2, Text), field(0, 2, Each(&DELETE_RECORDS_DELETE_RECORDS_PARTITION))];

const DELETE_RECORDS: [Field; 2] =
    [field(0, 2, Each(&DELETE_RECORDS_DELETE_RECORDS_TOPIC)), field(0, 2, Fixed(4))];

const INIT_PRODUCER_ID: [Field; 4] =
    [field(0, 5, Text), field(0, 5, Fixed(4)), field(3, 5, Fixed(8)), field(3, 5, Fixed(2))];

const OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION: [Field; 3] =
    [field(2, 4, Fixed(4)), field(2, 4, Fixed(4)), field(2, 4, Fixed(4))];

const OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC: [Field; 2] =
    [field(2, 4, Text), field(2, 4, Each(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION))];

const OFFSET_FOR_LEADER_EPOCH: [Field; 2] =
    [field(3, 4, Fixed(4)), field(2, 4, Each(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC))];

const ADD_PARTITIONS_TO_TXN_ADD_PARTITIONS_TO_TXN_TOPIC: [Field; 2] =
    [field(0, 5, Text), field(0, 5, EachFixed(4))];

const ADD_PARTITIONS_TO_TXN_ADD_PARTITIONS_TO_TXN_TRANSACTION: [Field; 5] = [
    field(4, 5, Text),
    field(4, 5, Fixed(8)),
    field(4, 5, Fixed(2)),
    field(4, 5, Fixed(1)),
    field(4, 5, Each(&ADD_PARTITIONS_TO_TXN_ADD_PARTITIONS_TO_TXN_TOPIC)),
];

const ADD_PARTITIONS_TO_TXN: [Field; 5] = [
    field(4, 5, Each(&ADD_PARTITIONS_TO_TXN_ADD_PARTITIONS_TO_TXN_TRANSACTION)),
    field(0, 3, Text),
    field(0, 3, Fixed(8)),
    field(0, 3, Fixed(2)),
    field(0, 3, Each(&ADD_PARTITIONS_TO_TXN_ADD_PARTITIONS_TO_TXN_TOPIC)),
];

const ADD_OFFSETS_TO_TXN: [Field; 4] =
    [field(0, 4, Text), field(0, 4, Fixed(8)), field(0, 4, Fixed(2)), field(0, 4, Text)];

const END_TXN: [Field; 4] =
    [field(0, 5, Text), field(0, 5, Fixed(8)), field(0, 5, Fixed(2)), field(0, 5, Fixed(1))];

const TXN_OFFSET_COMMIT_TXN_OFFSET_COMMIT_REQUEST_PARTITION: [Field; 4] =
    [field(0, 5, Fixed(4)), field(0, 5, Fixed(8)), field(2, 5, Fixed(4)), field(0, 5, Text)];

const TXN_OFFSET_COMMIT_TXN_OFFSET_COMMIT_REQUEST_TOPIC: [Field; 2] =
    [field(0, 5, Text), field(0, 5, Each(&TXN_OFFSET_COMMIT_TXN_OFFSET_COMMIT_REQUEST_PARTITION))];

const TXN_OFFSET_COMMIT: [Field; 8] = [
    field(0, 5, Text),
    field(0, 5, Text),
    field(0, 5, Fixed(8)),
    field(0, 5, Fixed(2)),
    field(3, 5, Fixed(4)),
    field(3, 5, Text),
    field(3, 5, Text),
    field(0, 5, Each(&TXN_OFFSET_COMMIT_TXN_OFFSET_COMMIT_REQUEST_TOPIC)),
];

const DESCRIBE_ACLS: [Field; 7] = [
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Fixed(1)),
];

const CREATE_ACLS_ACL_CREATION: [Field; 7] = [
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Fixed(1)),
];

const CREATE_ACLS: [Field; 1] = [field(1, 3, Each(&CREATE_ACLS_ACL_CREATION))];

const DELETE_ACLS_DELETE_ACLS_FILTER: [Field; 7] = [
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Text),
    field(1, 3, Text),
    field(1, 3, Fixed(1)),
    field(1, 3, Fixed(1)),
];

const DELETE_ACLS: [Field; 1] = [field(1, 3, Each(&DELETE_ACLS_DELETE_ACLS_FILTER))];

const DESCRIBE_CONFIGS_DESCRIBE_CONFIGS_RESOURCE: [Field; 3] =
    [field(1, 4, Fixed(1)), field(1, 4, Text), field(1, 4, EachText)];

const DESCRIBE_CONFIGS: [Field; 3] = [
    field(1, 4, Each(&DESCRIBE_CONFIGS_DESCRIBE_CONFIGS_RESOURCE)),
    field(1, 4, Fixed(1)),
    field(3, 4, Fixed(1)),
];

const ALTER_CONFIGS_ALTERABLE_CONFIG: [Field; 2] = [field(0, 2, Text), field(0, 2, Text)];

const ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: [Field; 3] =
    [field(0, 2, Fixed(1)), field(0, 2, Text), field(0, 2, Each(&ALTER_CONFIGS_ALTERABLE_CONFIG))];

const ALTER_CONFIGS: [Field; 2] =
    [field(0, 2, Each(&ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE)), field(0, 2, Fixed(1))];

const DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC: [Field; 2] =
    [field(1, 4, Text), field(1, 4, EachFixed(4))];

const DESCRIBE_LOG_DIRS: [Field; 1] = [field(1, 4, Each(&DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC))];

const SASL_AUTHENTICATE: [Field; 1] = [field(0, 2, Blob)];

const CREATE_PARTITIONS_CREATE_PARTITIONS_ASSIGNMENT: [Field; 1] = [field(0, 3, EachFixed(4))];

const CREATE_PARTITIONS_CREATE_PARTITIONS_TOPIC: [Field; 3] = [
    field(0, 3, Text),
    field(0, 3, Fixed(4)),
    field(0, 3, Each(&CREATE_PARTITIONS_CREATE_PARTITIONS_ASSIGNMENT)),
];

const CREATE_PARTITIONS: [Field; 3] = [
    field(0, 3, Each(&CREATE_PARTITIONS_CREATE_PARTITIONS_TOPIC)),
    field(0, 3, Fixed(4)),
    field(0, 3, Fixed(1)),
];

const DELETE_GROUPS: [Field; 1] = [field(0, 2, EachText)];

const ELECT_LEADERS_TOPIC_PARTITIONS: [Field; 2] = [field(0, 2, Text), field(0, 2, EachFixed(4))];

const ELECT_LEADERS: [Field; 3] =
    [field(1, 2, Fixed(1)), field(0, 2, Each(&ELECT_LEADERS_TOPIC_PARTITIONS)), field(0, 2, Fixed(4))];

const INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG: [Field; 3] =
    [field(0, 1, Text), field(0, 1, Fixed(1)), field(0, 1, Text)];

const INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: [Field; 3] = [
    field(0, 1, Fixed(1)),
    field(0, 1, Text),
    field(0, 1, Each(&INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG)),
];

const INCREMENTAL_ALTER_CONFIGS: [Field; 2] =
    [field(0, 1, Each(&INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE)), field(0, 1, Fixed(1))];

const ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION: [Field; 2] =
    [field(0, 1, Fixed(4)), field(0, 1, EachFixed(4))];

const ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC: [Field; 2] =
    [field(0, 1, Text), field(0, 1, Each(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION))];

const ALTER_PARTITION_REASSIGNMENTS: [Field; 3] = [
    field(0, 1, Fixed(4)),
    field(1, 1, Fixed(1)),
    field(0, 1, Each(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC)),
];

const LIST_PARTITION_REASSIGNMENTS_LIST_PARTITION_REASSIGNMENTS_TOPICS: [Field; 2] =
    [field(0, 0, Text), field(0, 0, EachFixed(4))];

const LIST_PARTITION_REASSIGNMENTS: [Field; 2] = [
    field(0, 0, Fixed(4)),
    field(0, 0, Each(&LIST_PARTITION_REASSIGNMENTS_LIST_PARTITION_REASSIGNMENTS_TOPICS)),
];

const OFFSET_DELETE_OFFSET_DELETE_REQUEST_PARTITION: [Field; 1] = [field(0, 0, Fixed(4))];

const OFFSET_DELETE_OFFSET_DELETE_REQUEST_TOPIC: [Field; 2] =
    [field(0, 0, Text), field(0, 0, Each(&OFFSET_DELETE_OFFSET_DELETE_REQUEST_PARTITION))];

const OFFSET_DELETE: [Field; 2] =
    [field(0, 0, Text), field(0, 0, Each(&OFFSET_DELETE_OFFSET_DELETE_REQUEST_TOPIC))];

const DESCRIBE_CLUSTER: [Field; 3] = [field(0, 2, Fixed(1)), field(1, 2, Fixed(1)), field(2, 2, Fixed(1))];

const DESCRIBE_PRODUCERS_TOPIC_REQUEST: [Field; 2] = [field(0, 0, Text), field(0, 0, EachFixed(4))];

const DESCRIBE_PRODUCERS: [Field; 1] = [field(0, 0, Each(&DESCRIBE_PRODUCERS_TOPIC_REQUEST))];

const DESCRIBE_TRANSACTIONS: [Field; 1] = [field(0, 0, EachText)];

const LIST_TRANSACTIONS: [Field; 4] =
    [field(0, 2, EachText), field(0, 2, EachFixed(8)), field(1, 2, Fixed(8)), field(2, 2, Text)];

const DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST: [Field; 1] = [field(0, 0, Text)];

const DESCRIBE_TOPIC_PARTITIONS_CURSOR: [Field; 2] = [field(0, 0, Text), field(0, 0, Fixed(4))];

const DESCRIBE_TOPIC_PARTITIONS: [Field; 3] = [
    field(0, 0, Each(&DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST)),
    field(0, 0, Fixed(4)),
    field(0, 0, Maybe(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
];

const GET_TELEMETRY_SUBSCRIPTIONS: [Field; 1] = [field(0, 0, Fixed(16))];

const LIST_CONFIG_RESOURCES: [Field; 1] = [field(1, 1, EachFixed(1))];

const CONSUMER_GROUP_DESCRIBE: [Field; 2] = [field(0, 1, EachText), field(0, 1, Fixed(1))];

const DESCRIBE_USER_SCRAM_CREDENTIALS_USER_NAME: [Field; 1] = [field(0, 0, Text)];

const DESCRIBE_USER_SCRAM_CREDENTIALS: [Field; 1] =
    [field(0, 0, Each(&DESCRIBE_USER_SCRAM_CREDENTIALS_USER_NAME))];

const DESCRIBE_CLIENT_QUOTAS_COMPONENT_DATA: [Field; 3] =
    [field(0, 1, Text), field(0, 1, Fixed(1)), field(0, 1, Text)];

const DESCRIBE_CLIENT_QUOTAS: [Field; 2] =
    [field(0, 1, Each(&DESCRIBE_CLIENT_QUOTAS_COMPONENT_DATA)), field(0, 1, Fixed(1))];
