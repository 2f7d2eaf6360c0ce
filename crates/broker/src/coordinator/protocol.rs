//! What goes into the coordinator and what comes out of it.

use std::time::Duration;

use bytes::Bytes;

use super::rebalance::{LeaveReason, RebalanceRecord};
use crate::partition::TopicPartition;

/// The protocol type of consumers; members of other types bring assignments that are opaque here.
pub const CONSUMER_PROTOCOL: &str = "consumer";
/// Why a member of this process leaves that lives but doesn't poll.
pub const MISSED_POLLS: &str = "missed polls";
/// What Kafka's Java client says in that case.
const JAVA_MISSED_POLLS: &str = "poll timeout has expired";

/// Names a request that waits for its answer. Never given twice by one shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happens to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A member joins, or joins again. Answered when everybody has, or when it need not wait for them.
    Join(Join),
    /// A member asks for its assignment; the leader brings everybody's.
    Sync(Sync),
    /// A member shows that it lives.
    Heartbeat {
        /// Answered at once.
        ticket: Ticket,
        /// Who.
        member: MemberRef,
        /// Its generation.
        generation: i32,
    },
    /// Members say goodbye, or are sent away by an administrator.
    Leave {
        /// Answered at once.
        ticket: Ticket,
        /// Who.
        leaving: Vec<Leaving>,
    },
    /// Nobody waits for this answer any more.
    Abandon {
        /// Which.
        ticket: Ticket,
    },
    /// Time has passed.
    Tick,
}

impl Input {
    /// Bytes that it brings for the coordinator to keep.
    pub fn held_bytes(&self) -> usize {
        let sum = |bytes: &mut dyn Iterator<Item = usize>| bytes.fold(0, usize::saturating_add);
        match self {
            Self::Join(join) => {
                sum(&mut join.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()))
            }
            Self::Sync(sync) => sum(&mut sync.assignments.iter().map(|(_, assignment)| assignment.len())),
            Self::Heartbeat { .. } | Self::Leave { .. } | Self::Abandon { .. } | Self::Tick => 0,
        }
    }
}

/// How a request names a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberRef {
    /// The id that the coordinator gave it; empty if it has none yet.
    pub member_id: String,
    /// The name that a static member keeps over restarts (KIP-345).
    pub instance_id: Option<String>,
}

/// A member that joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Whom to answer.
    pub ticket: Ticket,
    /// Who.
    pub member: MemberRef,
    /// The id that it gets if it has none. No member had it before.
    pub new_member_id: String,
    /// A member without an id is told one and comes back with it (KIP-394), so that a lost answer leaves no member behind.
    pub require_member_id: bool,
    /// It understands that a returning static leader need not assign again (KIP-814).
    pub skips_assignment: bool,
    /// The name that people know it by.
    pub client_id: String,
    /// Where it calls from.
    pub client_host: String,
    /// What kind of group this is: `consumer`, `connect`, ….
    pub protocol_type: String,
    /// The assignors that it knows, best first.
    pub protocols: Vec<Protocol>,
    /// Expelled when not heard of for this long.
    pub session_timeout: Duration,
    /// How long others wait for it to join again.
    pub rebalance_timeout: Duration,
    /// How long an empty group waits for more members before its first generation.
    pub initial_delay: Duration,
    /// Why it joins again (KIP-800).
    pub reason: Option<String>,
}

/// An assignor, and what it needs to know of the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// Opaque, except that of consumers.
    pub metadata: Bytes,
}

/// A member that asks for its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Whom to answer.
    pub ticket: Ticket,
    /// Who.
    pub member: MemberRef,
    /// Its generation.
    pub generation: i32,
    /// What it takes the group's type and assignor to be, if it says so.
    pub protocol_type: Option<String>,
    /// See `protocol_type`.
    pub protocol: Option<String>,
    /// Member id and assignment, from the leader alone.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Who.
    pub member: MemberRef,
    /// Why (KIP-800).
    pub reason: Option<String>,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a request.
    Answer {
        /// Which.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// A rebalance has begun and this member has not joined it yet. Members elsewhere hear of it by their heartbeats.
    Wake {
        /// Who.
        member_id: String,
    },
    /// This member was thrown out.
    Expelled {
        /// Who.
        member_id: String,
        /// Its name.
        client_id: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A rebalance is complete.
    Rebalanced(Box<RebalanceRecord>),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a join.
    Join(Result<Joined, GroupError>),
    /// To a sync.
    Sync(Result<Synced, GroupError>),
    /// To a heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To a leave: one for each member that it named.
    Leave(Vec<Result<(), GroupError>>),
}

/// A member is in, and everybody else who is has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member_id: String,
    /// The generation that begins.
    pub generation: i32,
    /// The group's type.
    pub protocol_type: String,
    /// The assignor that everybody uses.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// The leader need not assign: the assignment stands.
    pub skip_assignment: bool,
    /// Everybody, for the leader; empty for others.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// What it told the assignor.
    pub metadata: Bytes,
}

/// A member's assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The group's type.
    pub protocol_type: String,
    /// The assignor.
    pub protocol: String,
    /// What the leader gave this member.
    pub assignment: Bytes,
}

/// Why a request or a commit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member isn't one (any more).
    #[error("member `{member_id}` is not in group `{group}`{}", departed_suffix(.reason))]
    UnknownMember {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// Why it left, if that is remembered.
        reason: Option<LeaveReason>,
    },
    /// The member is to come back with this id.
    #[error("a member of group `{group}` joins with the id that it was given: `{member_id}`")]
    MemberIdRequired {
        /// The group.
        group: String,
        /// The id.
        member_id: String,
    },
    /// A newer instance has the static name.
    #[error("instance `{instance_id}` of group `{group}` was started again elsewhere")]
    FencedInstance {
        /// The group.
        group: String,
        /// The static name.
        instance_id: String,
    },
    /// The group has moved on, or was never there.
    #[error("group `{group}` is at generation {current}, member `{member_id}` spoke of {given}")]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// The generation given.
        given: i32,
        /// The group's.
        current: i32,
    },
    /// The partition is not the member's, or not since that generation.
    #[error(
        "{partition} does not belong to member `{member_id}` of group `{group}` since generation {given}"
    )]
    NotOwner {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
        /// The generation given.
        given: i32,
        /// The partition.
        partition: TopicPartition,
    },
    /// The member is to join again, or to wait until the rebalance is over.
    #[error("group `{group}` is rebalancing")]
    RebalanceInProgress {
        /// The group.
        group: String,
    },
    /// The member's protocols are not those of the others.
    #[error(
        "group `{group}` is of type `{protocol_type}` and needs one of the protocols {protocols:?}, which every member knows"
    )]
    InconsistentProtocol {
        /// The group.
        group: String,
        /// Its type; empty if it has none.
        protocol_type: String,
        /// What all its members know.
        protocols: Vec<String>,
    },
    /// As many members as one group may have.
    #[error("group `{group}` has {limit} members, which is as many as it may have")]
    GroupFull {
        /// The group.
        group: String,
        /// The bound.
        limit: usize,
    },
    /// As many groups, or as much of what their members told, as the coordinator keeps.
    #[error("the coordinator keeps no more than {limit} {what}")]
    CoordinatorFull {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The session timeout is out of bounds.
    #[error("a session timeout of {given:?} is not between {min:?} and {max:?}")]
    InvalidSessionTimeout {
        /// What was asked for.
        given: Duration,
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// A group's name is empty or too long.
    #[error("a group's name has between 1 and {limit} bytes, not {bytes}")]
    InvalidGroupId {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Something else in a request is too large or makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
    /// The group is being deleted.
    #[error("group `{group}` is being deleted")]
    Dead {
        /// The group.
        group: String,
    },
    /// There is no such group.
    #[error("there is no group `{group}`")]
    NotFound {
        /// The group.
        group: String,
    },
    /// The group has members, so it can't be deleted.
    #[error("group `{group}` has members")]
    NotEmpty {
        /// The group.
        group: String,
    },
    /// Members of the group read the topic, so its offsets can't be deleted.
    #[error("members of group `{group}` read topic `{topic}`")]
    Subscribed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Waits for everybody to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Everybody has, or can fetch, an assignment.
    Stable,
    /// Being deleted, or not there.
    Dead,
}

impl MemberRef {
    /// Names a member by its id.
    pub fn id(member_id: impl Into<String>) -> Self {
        Self { member_id: member_id.into(), instance_id: None }
    }
}

impl GroupState {
    /// As Kafka writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

impl Leaving {
    /// What the words mean that a member leaves with.
    pub(super) fn leave_reason(&self) -> LeaveReason {
        match self.reason.as_deref() {
            Some(text) if text == MISSED_POLLS || text.contains(JAVA_MISSED_POLLS) => {
                LeaveReason::MissedPolls
            }
            _ => LeaveReason::Left,
        }
    }
}

fn departed_suffix(reason: &Option<LeaveReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(" any more: it {}", reason.as_str()))
}
