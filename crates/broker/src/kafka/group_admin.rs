//! ListGroups, DescribeGroups and DeleteGroups.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::api::{Answer, Call};
use super::distinct::distinct;
use super::membership::owned;
use super::offsets::commit_code;
use crate::coordinator::{GroupState, MemberDescription};
use crate::error::BrokerError;
use crate::groups::GroupSnapshot;

/// The type of every group here: the members assign. (The other is `consumer`, of KIP-848.)
const CLASSIC: &str = "classic";
/// From this version on, a list says each group's state.
const STATE_FROM: i16 = 4;
/// From this version on, a list says each group's type.
const TYPE_FROM: i16 = 5;
/// From this version on, a member's static name is told.
const INSTANCE_FROM: i16 = 4;
/// From this version on, a group that isn't there is an error; before, it is dead.
const NOT_FOUND_FROM: i16 = 6;
/// What a client may do with a group, as a bit for each operation by Kafka's numbers: read, delete, describe.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;
/// Nobody asked what the caller may do.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Lists groups, of some states or types if those are named.
pub(super) async fn list_groups(call: Call, request: ListGroupsRequest) -> Answer<ListGroupsResponse> {
    let states: Vec<String> = request.states_filter.iter().map(owned).collect();
    let types = &request.types_filter;
    let of_type = types.is_empty() || types.iter().any(|name| name.as_str().eq_ignore_ascii_case(CLASSIC));
    Answer::work(move || {
        let groups = call.broker().groups().list().into_iter();
        let listed = groups.filter(|group| of_type && is_in(group.state, &states)).map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(group.group.into()))
                .with_protocol_type(group.protocol_type.into())
                .with_group_state(text_from(call.version, STATE_FROM, group.state.as_str()))
                .with_group_type(text_from(call.version, TYPE_FROM, CLASSIC))
        });
        ListGroupsResponse::default().with_groups(listed.collect())
    })
}

/// Whether a state matches a filter of states, as Kafka writes them; an empty filter matches all.
fn is_in(state: GroupState, states: &[String]) -> bool {
    states.is_empty() || states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state.as_str()))
}

/// Describes groups with their members.
pub(super) async fn describe_groups(
    call: Call,
    request: DescribeGroupsRequest,
) -> Answer<DescribeGroupsResponse> {
    let operations =
        if request.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_UNKNOWN };
    let names = distinct(request.groups, GroupId::clone);
    Answer::work(move || {
        let groups = names.map(|name| match call.broker().describe_group(&name) {
            Some(group) => described(name, group, call.version).with_authorized_operations(operations),
            None => absent(name, call.version),
        });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    })
}

fn described(name: GroupId, group: GroupSnapshot, version: i16) -> DescribedGroup {
    let stable = group.state == GroupState::Stable;
    let members = group.members.into_iter().map(|member| described_member(member, version));
    DescribedGroup::default()
        .with_group_id(name)
        .with_group_state(StrBytes::from_static_str(group.state.as_str()))
        .with_protocol_type(group.protocol_type.into())
        // Until everybody has an assignment, none is in force.
        .with_protocol_data(if stable { group.protocol.into() } else { StrBytes::default() })
        .with_members(members.collect())
}

fn described_member(member: MemberDescription, version: i16) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(member.member_id.into())
        .with_group_instance_id(
            member.instance_id.filter(|_| version >= INSTANCE_FROM).map(StrBytes::from_string),
        )
        .with_client_id(member.client_id.into())
        .with_client_host(member.client_host.into())
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

fn absent(name: GroupId, version: i16) -> DescribedGroup {
    let group = DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(GroupState::Dead.as_str()))
        .with_authorized_operations(OPERATIONS_UNKNOWN);
    if version < NOT_FOUND_FROM {
        return group.with_group_id(name);
    }
    let message = format!("there is no group `{}`", name.as_str());
    group
        .with_group_id(name)
        .with_error_code(ResponseError::GroupIdNotFound.code())
        .with_error_message(Some(message.into()))
}

/// Deletes groups without members; the answer comes when that is durable.
pub(super) async fn delete_groups(call: Call, request: DeleteGroupsRequest) -> Answer<DeleteGroupsResponse> {
    let broker = call.broker().clone();
    Answer::later(async move {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for name in request.groups_names {
            let deleted: Result<(), BrokerError> = broker.delete_group(&name).await;
            let code = deleted.err().map_or(0, |error| commit_code(&error));
            results.push(DeletableGroupResult::default().with_group_id(name).with_error_code(code));
        }
        DeleteGroupsResponse::default().with_results(results)
    })
}

fn text_from(version: i16, from: i16, text: &'static str) -> StrBytes {
    if version >= from { StrBytes::from_static_str(text) } else { StrBytes::default() }
}
