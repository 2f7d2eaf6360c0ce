//! Groups and offsets, in every version that has them.

use std::collections::BTreeSet;

use bytes::Bytes;
use farol_broker::coordinator::subscription::{Subscription, decode_assignment, encode_assignment};
use farol_broker::{GroupState, TopicPartition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, Server, eventually, fetch_request, name};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn partitions(indexes: &[i32]) -> BTreeSet<TopicPartition> {
    indexes.iter().map(|index| TopicPartition::new("t", *index)).collect()
}

fn join(group_name: &str, member_id: &str, version: i16) -> JoinGroupRequest {
    let subscription = Subscription { topics: BTreeSet::from(["t".into()]), ..Subscription::default() };
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription.encode());
    JoinGroupRequest::default()
        .with_group_id(group(group_name))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(if version >= 1 { 10_000 } else { -1 })
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins a group of its own kind, with the id that it is told to come back with.
async fn joined(client: &mut Client, version: i16, group_name: &str) -> JoinGroupResponse {
    let response = client.call(version, &join(group_name, "", version)).await;
    if response.error_code != ResponseError::MemberIdRequired.code() {
        return response;
    }
    assert!(version >= 4 && !response.member_id.is_empty());
    client.call(version, &join(group_name, response.member_id.as_str(), version)).await
}

fn sync(group_name: &str, joined: &JoinGroupResponse, shares: &[(&str, &[i32])]) -> SyncGroupRequest {
    let assignments = shares.iter().map(|(member_id, indexes)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member_id))
            .with_assignment(encode_assignment(&partitions(indexes)))
    });
    SyncGroupRequest::default()
        .with_group_id(group(group_name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(assignments.collect())
}

async fn synced(
    client: &mut Client,
    version: i16,
    group_name: &str,
    joined: &JoinGroupResponse,
) -> SyncGroupResponse {
    let shares: [(&str, &[i32]); 1] = [(joined.member_id.as_str(), &[0, 1, 2])];
    let mut request = sync(group_name, joined, &shares);
    if version >= 5 {
        request = request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    }
    client.call(version, &request).await
}

#[tokio::test]
async fn every_kind_of_key_is_coordinated_here_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 0..=6 {
        let request = FindCoordinatorRequest::default();
        let (host, port) = if version >= 4 {
            let request = request.with_key_type(1).with_coordinator_keys(vec![text("a"), text("b")]);
            let response = client.call(version, &request).await;
            assert_eq!(response.coordinators.len(), 2);
            let found = response.coordinators[1].clone();
            assert_eq!((found.error_code, found.key.as_str(), found.node_id.0), (0, "b", 1));
            (found.host, found.port)
        } else {
            let response = client.call(version, &request.with_key(text("a"))).await;
            assert_eq!((response.error_code, response.node_id.0), (0, 1));
            (response.host, response.port)
        };
        assert_eq!((host.as_str(), port), ("127.0.0.1", i32::from(server.address.port())));
    }
    let unknown = FindCoordinatorRequest::default().with_key_type(9).with_coordinator_keys(vec![text("a")]);
    let response = client.call(6, &unknown).await;
    assert_eq!(response.coordinators[0].error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn a_member_joins_syncs_beats_and_leaves_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 0..=9 {
        let name = format!("g{version}");
        let response = joined(&mut client, version, &name).await;
        assert_eq!((response.error_code, response.generation_id), (0, 1), "version {version}");
        assert_eq!(response.leader, response.member_id);
        assert_eq!(response.protocol_name.as_deref(), Some("range"));
        assert_eq!(response.members.len(), 1);
        let sync_version = version.min(5);
        let answer = synced(&mut client, sync_version, &name, &response).await;
        assert_eq!(answer.error_code, 0);
        assert_eq!(decode_assignment(&answer.assignment), Some(partitions(&[0, 1, 2])));
        let beat = HeartbeatRequest::default()
            .with_group_id(group(&name))
            .with_generation_id(1)
            .with_member_id(response.member_id.clone());
        let beat_version = version.min(4);
        assert_eq!(client.call(beat_version, &beat).await.error_code, 0);
        let old = beat.with_generation_id(0);
        assert_eq!(client.call(beat_version, &old).await.error_code, ResponseError::IllegalGeneration.code());
        let leave_version = version.min(5);
        let leave = LeaveGroupRequest::default().with_group_id(group(&name));
        if leave_version < 3 {
            let leave = leave.with_member_id(response.member_id.clone());
            assert_eq!(client.call(leave_version, &leave).await.error_code, 0);
        } else {
            let member = |id: &StrBytes| {
                let reason = (leave_version >= 5).then(|| text("enough"));
                MemberIdentity::default().with_member_id(id.clone()).with_reason(reason)
            };
            let leave = leave.with_members(vec![member(&response.member_id), member(&text("ghost"))]);
            let answer = client.call(leave_version, &leave).await;
            let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
            assert_eq!((answer.error_code, codes), (0, vec![0, ResponseError::UnknownMemberId.code()]));
        }
        assert!(server.broker.describe_group(&name).is_none(), "it has no members and no offsets");
    }
}

#[tokio::test]
async fn two_members_on_two_connections_come_together_and_part() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    let first = joined(&mut one, 9, "g").await;
    synced(&mut one, 5, "g", &first).await;
    // The second waits until the first has heard of it by a heartbeat and joined again.
    let asked = other.call(9, &join("g", "", 9)).await;
    let waiting = other.send(9, &join("g", asked.member_id.as_str(), 9)).await;
    let beat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(1)
        .with_member_id(first.member_id.clone());
    eventually("a rebalance", async || {
        one.call(4, &beat).await.error_code == ResponseError::RebalanceInProgress.code()
    })
    .await;
    let again = one.call(9, &join("g", first.member_id.as_str(), 9)).await;
    let second: JoinGroupResponse = other.receive(9, waiting).await;
    assert_eq!((again.generation_id, second.generation_id), (2, 2));
    assert_eq!((again.members.len(), second.members.len()), (2, 0));
    let waiting = other.send(3, &sync("g", &second, &[])).await;
    let shares: [(&str, &[i32]); 2] =
        [(again.member_id.as_str(), &[0, 2]), (second.member_id.as_str(), &[1])];
    one.call(3, &sync("g", &again, &shares)).await;
    let answer: SyncGroupResponse = other.receive(3, waiting).await;
    assert_eq!(decode_assignment(&answer.assignment), Some(partitions(&[1])));
    let described = server.broker.describe_group("g").unwrap();
    assert_eq!((described.state, described.members.len()), (GroupState::Stable, 2));
    assert!(described.members.iter().all(|member| member.client_host == "/127.0.0.1"));

    // A third asks, and its connection breaks while it waits: nobody waits for it.
    let mut third = server.client().await;
    third.send(2, &join("g", "", 2)).await;
    eventually("the third", async || server.broker.describe_group("g").unwrap().members.len() == 3).await;
    drop(third);
    eventually("its end", async || server.broker.describe_group("g").unwrap().members.len() == 2).await;
    // A goodbye is heard while the same connection's join waits for its answer.
    let waiting = other.send(9, &join("g", second.member_id.as_str(), 9)).await;
    let member = MemberIdentity::default().with_member_id(second.member_id.clone());
    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_members(vec![member]);
    let left = other.send(4, &leave).await;
    let refused: JoinGroupResponse = other.receive(9, waiting).await;
    assert_eq!(refused.error_code, ResponseError::UnknownMemberId.code());
    assert_eq!(
        other.receive::<kafka_protocol::messages::LeaveGroupResponse>(4, left).await.members[0].error_code,
        0
    );
}

fn commit(group_name: &str, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(metadata)))
    };
    let topic = |topic: &str, indexes: &[i32]| {
        OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(indexes.iter().copied().map(partition).collect())
    };
    OffsetCommitRequest::default()
        .with_group_id(group(group_name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic("t", &[0, 1, 77]), topic("nowhere", &[0])])
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 2..=9 {
        let response = client.call(version, &commit("g", i64::from(version), "note")).await;
        let codes: Vec<Vec<i16>> = response
            .topics
            .iter()
            .map(|topic| topic.partitions.iter().map(|partition| partition.error_code).collect())
            .collect();
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(codes, [vec![0, 0, unknown], vec![unknown]], "version {version}");
    }
    let too_long = client.call(9, &commit("g", 1, &"x".repeat(5000))).await;
    assert_eq!(too_long.topics[0].partitions[0].error_code, ResponseError::OffsetMetadataTooLarge.code());
    for version in 1..=9 {
        // Of named partitions, one of which has none, and (from version 2 on) of all.
        for all in [false, true] {
            if version == 1 && all {
                continue;
            }
            let mut found: Vec<(i32, i64, String)> = if version >= 8 {
                let topics = vec![
                    OffsetFetchRequestTopics::default()
                        .with_name(name("t"))
                        .with_partition_indexes(vec![0, 2]),
                ];
                let asked = OffsetFetchRequestGroup::default()
                    .with_group_id(group("g"))
                    .with_topics((!all).then_some(topics))
                    .with_member_epoch(-1);
                let response =
                    client.call(version, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
                let found = response.groups[0].topics[0].partitions.iter();
                found
                    .map(|p| {
                        (p.partition_index, p.committed_offset, p.metadata.as_ref().unwrap().to_string())
                    })
                    .collect()
            } else {
                let topics = vec![
                    OffsetFetchRequestTopic::default()
                        .with_name(name("t"))
                        .with_partition_indexes(vec![0, 2]),
                ];
                let request = OffsetFetchRequest::default()
                    .with_group_id(group("g"))
                    .with_topics((!all).then_some(topics));
                let response = client.call(version, &request).await;
                let found = response.topics[0].partitions.iter();
                found
                    .map(|p| {
                        (p.partition_index, p.committed_offset, p.metadata.as_ref().unwrap().to_string())
                    })
                    .collect()
            };
            found.sort();
            let expected = if all { (1, 9, "note".to_owned()) } else { (2, -1, String::new()) };
            assert_eq!(found, [(0, 9, "note".to_owned()), expected], "version {version}, all: {all}");
        }
    }
}

#[tokio::test]
async fn a_group_with_members_takes_commits_of_its_members_alone() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = joined(&mut client, 5, "g").await;
    let code = |response: kafka_protocol::messages::OffsetCommitResponse| {
        response.topics[0].partitions[0].error_code
    };
    let of_member = |generation: i32| {
        commit("g", 5, "")
            .with_member_id(first.member_id.clone())
            .with_generation_id_or_member_epoch(generation)
    };
    // The leader has not assigned yet.
    assert_eq!(code(client.call(7, &of_member(1)).await), ResponseError::RebalanceInProgress.code());
    synced(&mut client, 3, "g", &first).await;
    assert_eq!(code(client.call(7, &of_member(1)).await), 0);
    assert_eq!(code(client.call(7, &of_member(0)).await), ResponseError::IllegalGeneration.code());
    assert_eq!(code(client.call(7, &commit("g", 5, "")).await), ResponseError::UnknownMemberId.code());
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted_in_every_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.call(2, &commit("empty", 1, "")).await;
    let first = joined(&mut client, 5, "full").await;
    synced(&mut client, 3, "full", &first).await;
    for version in 0..=5 {
        let response = client.call(version, &ListGroupsRequest::default()).await;
        let names: Vec<&str> = response.groups.iter().map(|group| group.group_id.as_str()).collect();
        assert_eq!(names, ["empty", "full"]);
        assert_eq!(response.groups[1].protocol_type.as_str(), "consumer");
    }
    let stable = ListGroupsRequest::default().with_states_filter(vec![text("stable")]);
    assert_eq!(client.call(4, &stable).await.groups[0].group_state.as_str(), "Stable");
    let other_type = ListGroupsRequest::default().with_types_filter(vec![text("consumer")]);
    assert!(client.call(5, &other_type).await.groups.is_empty());
    for version in 0..=6 {
        let request =
            DescribeGroupsRequest::default().with_groups(vec![group("full"), group("empty"), group("none")]);
        let response = client.call(version, &request).await;
        let [full, empty, none] = &response.groups[..] else { panic!("{response:?}") };
        assert_eq!((full.group_state.as_str(), full.protocol_data.as_str()), ("Stable", "range"));
        assert_eq!((full.members.len(), full.members[0].client_id.as_str()), (1, "test"));
        assert_eq!(decode_assignment(&full.members[0].member_assignment), Some(partitions(&[0, 1, 2])));
        assert_eq!(empty.group_state.as_str(), "Empty");
        assert_eq!(none.group_state.as_str(), "Dead");
        let missing = if version >= 6 { ResponseError::GroupIdNotFound.code() } else { 0 };
        assert_eq!(none.error_code, missing);
    }
    for (asked, operations) in [(false, i32::MIN), (true, 0b1_0100_1000)] {
        let request = DescribeGroupsRequest::default()
            .with_groups(vec![group("full")])
            .with_include_authorized_operations(asked);
        assert_eq!(client.call(3, &request).await.groups[0].authorized_operations, operations);
    }
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![OffsetDeleteRequestPartition::default().with_partition_index(0)]);
    for (of, expected) in [("full", ResponseError::GroupSubscribedToTopic.code()), ("empty", 0)] {
        client
            .call(
                2,
                &commit("full", 1, "")
                    .with_member_id(first.member_id.clone())
                    .with_generation_id_or_member_epoch(1),
            )
            .await;
        let request =
            OffsetDeleteRequest::default().with_group_id(group(of)).with_topics(vec![topic.clone()]);
        let response = client.call(0, &request).await;
        assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, expected), "{of}");
    }
    let none = OffsetDeleteRequest::default().with_group_id(group("none")).with_topics(vec![topic]);
    assert_eq!(client.call(0, &none).await.error_code, ResponseError::GroupIdNotFound.code());
    for version in 0..=2 {
        client.call(2, &commit("empty", 1, "")).await;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![
            group("full"),
            group("empty"),
            group("none"),
        ]);
        let codes: Vec<i16> =
            client.call(version, &request).await.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ResponseError::NonEmptyGroup.code(), 0, ResponseError::GroupIdNotFound.code()]);
    }
}

#[tokio::test]
async fn a_topic_takes_its_offsets_with_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.call(2, &commit("g", 5, "")).await;
    assert_eq!(server.broker.committed("g").len(), 2);
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]).with_timeout_ms(1000);
    assert_eq!(client.call(5, &delete).await.responses[0].error_code, 0);
    assert!(server.broker.describe_group("g").is_none());
}

#[tokio::test]
async fn hostile_metadata_is_handed_on_and_never_read_into() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut request = join("g", "", 3);
    request.protocols[0].metadata = Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff]);
    let response = client.call(3, &request).await;
    assert_eq!(response.members[0].metadata, request.protocols[0].metadata);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(response.member_id.clone())
        .with_assignment(Bytes::from_static(&[0, 0, 0x7f, 0xff]));
    let request = sync("g", &response, &[]).with_assignments(vec![assignment.clone()]);
    assert_eq!(client.call(2, &request).await.assignment, assignment.assignment);
    assert!(server.broker.describe_group("g").unwrap().members[0].partitions.is_empty());
}

#[tokio::test]
async fn groups_that_are_assigned_much_are_refused_more_and_the_others_still_rebalance() {
    let server = Server::start().await;
    let mut client = server.client().await;
    // Nobody goes while this lasts, however long it takes.
    let patient = |name: &str, member_id: &str| join(name, member_id, 3).with_session_timeout_ms(1_800_000);
    let before = client.call(3, &patient("modest", "")).await;
    let mut refused = 0;
    let large = Bytes::from(vec![7; 1_000_000]);
    for number in 0..80 {
        let name = format!("greedy-{number}");
        let member = client.call(3, &patient(&name, "")).await;
        assert_eq!(member.error_code, 0, "who tells little may come in: {number}");
        let share = SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(large.clone());
        let request = sync(&name, &member, &[]).with_assignments(vec![share]);
        match client.call(2, &request).await.error_code {
            0 => assert_eq!(refused, 0),
            code => {
                assert_eq!(code, ResponseError::CoordinatorNotAvailable.code(), "to be tried again");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 80 - 67, "64 MiB are kept");
    let mut telling = join("talkative", "", 3);
    telling.protocols[0].metadata = large.clone();
    let talkative = client.call(3, &telling).await;
    assert_eq!(talkative.error_code, ResponseError::CoordinatorNotAvailable.code());
    // Others come, and come again.
    assert_eq!(synced(&mut client, 2, "modest", &before).await.error_code, 0);
    let again = client.call(3, &patient("modest", before.member_id.as_str())).await;
    assert_eq!((again.error_code, again.generation_id), (0, before.generation_id + 1));
    assert_eq!(synced(&mut client, 2, "modest", &again).await.error_code, 0);
    assert_eq!(joined(&mut client, 3, "new").await.error_code, 0);
}

#[tokio::test]
async fn a_commit_counts_although_the_farewell_comes_right_behind_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let member = joined(&mut client, 9, "g").await;
    synced(&mut client, 5, "g", &member).await;
    // Nothing answers before this one.
    let waits = client.send(12, &fetch_request("t", 0, 0).with_max_wait_ms(300).with_min_bytes(1)).await;
    let commit = commit("g", 7, "")
        .with_member_id(member.member_id.clone())
        .with_generation_id_or_member_epoch(member.generation_id);
    let committed = client.send(8, &commit).await;
    let leaver = MemberIdentity::default().with_member_id(member.member_id.clone());
    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_members(vec![leaver]);
    let left = client.send(4, &leave).await;
    client.receive::<kafka_protocol::messages::FetchResponse>(12, waits).await;
    let answer = client.receive::<kafka_protocol::messages::OffsetCommitResponse>(8, committed).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    let answer = client.receive::<kafka_protocol::messages::LeaveGroupResponse>(4, left).await;
    assert_eq!(answer.members[0].error_code, 0);
    assert_eq!(server.broker.committed("g"), [0, 1].map(|index| (TopicPartition::new("t", index), 7)).into());
}
