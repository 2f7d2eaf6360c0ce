//! One member, as the coordinator keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;

use super::protocol::{CONSUMER_PROTOCOL, Join, Protocol, Ticket};
use super::rebalance::LeaveReason;
use super::subscription::Subscription;
use crate::partition::TopicPartition;

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) protocols: Vec<Protocol>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// What the leader gave it in this generation.
    pub(super) assignment: Bytes,
    /// The topics that it reads, if it is a consumer and told so legibly.
    pub(super) topics: BTreeSet<Arc<str>>,
    /// Its place among those that joined; the lowest is the first.
    pub(super) order: u64,
    pub(super) joined_at: Timestamp,
    pub(super) last_heard: Timestamp,
    /// Its join that waits for the others.
    pub(super) joining: Option<Ticket>,
    /// Its sync that waits for the leader.
    pub(super) syncing: Option<Ticket>,
    /// It has not been told its id yet, so it can't come back when its connection is gone.
    pub(super) is_new: bool,
}

/// A member that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) member_id: String,
    pub(super) reason: LeaveReason,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// Its name.
    pub client_id: String,
    /// Where it calls from.
    pub client_host: String,
    /// What it told the assignor in force; empty while there is none.
    pub metadata: Bytes,
    /// What the leader gave it, as the members' assignor encodes it.
    pub assignment: Bytes,
    /// What it owns, if it is a consumer.
    pub partitions: Vec<TopicPartition>,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When it was last heard of.
    pub last_heartbeat: Timestamp,
}

impl Member {
    pub(super) fn new(join: Join, order: u64, now: Timestamp) -> Self {
        Self {
            topics: topics_of(&join),
            instance_id: join.member.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            assignment: Bytes::new(),
            order,
            joined_at: now,
            last_heard: now,
            joining: Some(join.ticket),
            syncing: None,
            is_new: true,
        }
    }

    /// Takes over what it says when it joins again. The previous join, if it still waits.
    pub(super) fn update(&mut self, join: Join, now: Timestamp) -> Option<Ticket> {
        self.topics = topics_of(&join);
        self.protocols = join.protocols;
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.last_heard = now;
        self.joining.replace(join.ticket)
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name == protocol)
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|known| known.name == protocol)
            .map_or_else(Bytes::new, |known| known.metadata.clone())
    }

    /// Whether it waits for an answer, and so can't be expected to send anything.
    pub(super) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    /// When it will be expelled unless it is heard of.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        (!self.waits()).then(|| self.last_heard.saturating_add(self.session_timeout))
    }

    /// Bytes that it makes the coordinator keep.
    pub(super) fn held_bytes(&self) -> usize {
        self.protocols.iter().fold(self.assignment.len(), |sum, protocol| {
            sum.saturating_add(protocol.name.len()).saturating_add(protocol.metadata.len())
        })
    }
}

/// The topics of the first assignor that says so. A consumer's are the same for each of its assignors.
fn topics_of(join: &Join) -> BTreeSet<Arc<str>> {
    if join.protocol_type != CONSUMER_PROTOCOL {
        return BTreeSet::new();
    }
    let legible = join.protocols.iter().find_map(|protocol| Subscription::decode(&protocol.metadata));
    legible.map(|subscription| subscription.topics).unwrap_or_default()
}
