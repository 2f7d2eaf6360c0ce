//! DescribeCluster, DescribeLogDirs, and DescribeAcls, which nobody has.

use hashbrown::{HashMap, HashSet};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeAclsRequest, DescribeAclsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::NODE_ID;
use super::api::{Answer, Call};
use super::metadata::{CLUSTER_OPERATIONS, advertised, cluster_id, topic_name};
use crate::topic::Topic;

/// A client asks for the brokers, not for the controllers.
const BROKERS: i8 = 1;

/// The one broker.
pub(super) async fn describe_cluster(
    call: Call,
    request: DescribeClusterRequest,
) -> Answer<DescribeClusterResponse> {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str("only brokers can be asked for")))
            .into();
    }
    let (host, port) = advertised(&call);
    let broker =
        DescribeClusterBroker::default().with_broker_id(BrokerId(NODE_ID)).with_host(host).with_port(port);
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(cluster_id(&call.server)))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![broker]);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response.into()
}

/// The one log folder, with the bytes of each partition.
pub(super) async fn describe_log_dirs(
    call: Call,
    request: DescribeLogDirsRequest,
) -> Answer<DescribeLogDirsResponse> {
    let wanted: Option<HashMap<String, HashSet<i32>>> = request.topics.map(|topics| {
        let partitions = |topic: DescribableLogDirTopic| topic.partitions.into_iter().collect();
        topics.into_iter().map(|topic| (topic.topic.to_string(), partitions(topic))).collect()
    });
    Answer::work(move || {
        let topics = call.broker().topics();
        let described = topics.iter().filter_map(|topic| match &wanted {
            None => Some(sizes(topic, None)),
            Some(wanted) => wanted.get(&**topic.name()).map(|partitions| sizes(topic, Some(partitions))),
        });
        let result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(call.broker().dir().display().to_string()))
            .with_topics(described.collect());
        DescribeLogDirsResponse::default().with_results(vec![result])
    })
}

fn sizes(topic: &Topic, wanted: Option<&HashSet<i32>>) -> DescribeLogDirsTopic {
    let partitions = (0..).zip(topic.partitions());
    let partitions = partitions.filter(|(index, _)| wanted.is_none_or(|wanted| wanted.contains(index)));
    let partitions = partitions.map(|(index, partition)| {
        DescribeLogDirsPartition::default()
            .with_partition_index(index)
            .with_partition_size(i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX))
    });
    DescribeLogDirsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
}

/// There are no access control lists: whoever may connect may do everything.
pub(super) async fn describe_acls(
    _call: Call,
    _request: DescribeAclsRequest,
) -> Answer<DescribeAclsResponse> {
    DescribeAclsResponse::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(StrBytes::from_static_str("there are no access control lists")))
        .into()
}
