//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: being a member of a group.
//!
//! Joins and syncs are with the coordinator before the connection takes its next request, so a member that says goodbye
//! while its join waits is heard.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::api::{Answer, Call};
use super::error_code::of_group;
use crate::coordinator::{GroupError, Joined, Leaving, MemberRef, Protocol, Synced};
use crate::groups::{JoinRequest, SyncRequest};

/// From this version on, a member may name a rebalance timeout; before, its session timeout is that, too.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// From this version on, a new member is told its id and comes back with it.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From this version on, answers may have no protocol.
const NULLABLE_PROTOCOL_FROM: i16 = 7;
/// From this version on, a leader may be told not to assign.
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// From this version on, a sync says and hears the protocol.
const SYNC_PROTOCOL_FROM: i16 = 5;
/// From this version on, several members leave at once.
const SEVERAL_LEAVE_FROM: i16 = 3;
const NO_GENERATION: i32 = -1;

/// Joins; the answer comes when everybody has.
pub(super) async fn join_group(call: Call, request: JoinGroupRequest) -> Answer<JoinGroupResponse> {
    let version = call.version;
    let member_id = owned(&request.member_id);
    let session_timeout = milliseconds(request.session_timeout_ms);
    let protocols = request
        .protocols
        .iter()
        .map(|protocol| Protocol { name: owned(&protocol.name), metadata: copied(&protocol.metadata) });
    let joining = call.broker().join_group(JoinRequest {
        group: owned(&request.group_id),
        member: member(&request.member_id, request.group_instance_id.as_ref()),
        require_member_id: version >= MEMBER_ID_REQUIRED_FROM,
        skips_assignment: version >= SKIP_ASSIGNMENT_FROM,
        client_id: owned(&call.client_id),
        client_host: format!("/{}", call.connection.peer.ip().to_canonical()),
        protocol_type: owned(&request.protocol_type),
        protocols: protocols.collect(),
        session_timeout,
        rebalance_timeout: if version >= REBALANCE_TIMEOUT_FROM {
            milliseconds(request.rebalance_timeout_ms)
        } else {
            session_timeout
        },
        reason: request.reason.as_ref().map(owned),
    });
    Answer::later(async move {
        match joining.await {
            Ok(answer) => joined(answer, version),
            Err(error) => join_refused(member_id, &error, version),
        }
    })
}

fn joined(answer: Joined, version: i16) -> JoinGroupResponse {
    let members = answer.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(member.member_id.into())
            .with_group_instance_id(member.instance_id.filter(|_| version >= 5).map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(answer.generation)
        .with_protocol_type((version >= NULLABLE_PROTOCOL_FROM).then(|| answer.protocol_type.into()))
        .with_protocol_name(Some(answer.protocol.into()))
        .with_leader(answer.leader.into())
        .with_skip_assignment(answer.skip_assignment && version >= SKIP_ASSIGNMENT_FROM)
        .with_member_id(answer.member_id.into())
        .with_members(members.collect())
}

fn join_refused(member_id: String, error: &GroupError, version: i16) -> JoinGroupResponse {
    if matches!(error, GroupError::InconsistentProtocol { .. }) {
        tracing::warn!(%error, "a member was refused; give it one of these assignors (partition.assignment.strategy)");
    }
    let member_id = match error {
        GroupError::MemberIdRequired { member_id, .. } => member_id.clone(),
        _ => member_id,
    };
    JoinGroupResponse::default()
        .with_error_code(of_group(error).code())
        .with_generation_id(NO_GENERATION)
        .with_protocol_name((version < NULLABLE_PROTOCOL_FROM).then(StrBytes::default))
        .with_member_id(member_id.into())
}

/// Asks for the assignment; the answer comes when the leader has given it.
pub(super) async fn sync_group(call: Call, request: SyncGroupRequest) -> Answer<SyncGroupResponse> {
    let version = call.version;
    let assignments =
        request.assignments.iter().map(|one| (owned(&one.member_id), copied(&one.assignment))).collect();
    let syncing = call.broker().sync_group(SyncRequest {
        group: owned(&request.group_id),
        member: member(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_ref().map(owned),
        protocol: request.protocol_name.as_ref().map(owned),
        assignments,
    });
    Answer::later(async move {
        match syncing.await {
            Ok(Synced { protocol_type, protocol, assignment }) => SyncGroupResponse::default()
                .with_protocol_type((version >= SYNC_PROTOCOL_FROM).then(|| protocol_type.into()))
                .with_protocol_name((version >= SYNC_PROTOCOL_FROM).then(|| protocol.into()))
                .with_assignment(assignment),
            Err(error) => SyncGroupResponse::default().with_error_code(of_group(&error).code()),
        }
    })
}

/// Shows that a member lives.
pub(super) async fn heartbeat(call: Call, request: HeartbeatRequest) -> Answer<HeartbeatResponse> {
    let member = member(&request.member_id, request.group_instance_id.as_ref());
    let beat = call.broker().heartbeat_group(&request.group_id, member, request.generation_id).await;
    HeartbeatResponse::default().with_error_code(code(beat)).into()
}

/// Members leave.
pub(super) async fn leave_group(call: Call, request: LeaveGroupRequest) -> Answer<LeaveGroupResponse> {
    let several = call.version >= SEVERAL_LEAVE_FROM;
    let members = if several {
        request.members
    } else {
        vec![MemberIdentity::default().with_member_id(request.member_id)]
    };
    let leaving = members
        .iter()
        .map(|one| Leaving {
            member: member(&one.member_id, one.group_instance_id.as_ref()),
            reason: one.reason.as_ref().map(owned),
        })
        .collect();
    let response = LeaveGroupResponse::default();
    let answers = match call.broker().leave_group(&request.group_id, leaving).await {
        Ok(answers) => answers,
        Err(error) => return response.with_error_code(of_group(&error).code()).into(),
    };
    if !several {
        return response.with_error_code(answers.into_iter().next().map_or(0, code)).into();
    }
    let members = members.into_iter().zip(answers).map(|(member, answer)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code(answer))
    });
    response.with_members(members.collect()).into()
}

fn code(answer: Result<(), GroupError>) -> i16 {
    answer.err().map_or(0, |error| of_group(&error).code())
}

/// How a request names a member.
pub(super) fn member(member_id: &StrBytes, instance_id: Option<&StrBytes>) -> MemberRef {
    MemberRef { member_id: owned(member_id), instance_id: instance_id.map(owned) }
}

/// A text of its own: those of a request keep the memory of the whole of it.
pub(super) fn owned(text: &StrBytes) -> String {
    text.as_str().to_owned()
}

fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
