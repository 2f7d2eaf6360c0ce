//! What clients ask of the coordinator, checked against the bounds before it reaches a group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::commit::{DeletionCondition, OffsetChange, OffsetDeletion};
use super::ledger::{CommittedOffset, FetchedOffset};
use super::settings::{MAX_METADATA_BYTES, MAX_NAME_BYTES, MAX_OFFSET_METADATA_BYTES, MAX_PROTOCOLS};
use super::{GroupSnapshot, Groups, OffsetCommit, Waiting};
use crate::broker::Broker;
use crate::coordinator::{
    Answer, GroupError, GroupState, Input, Join, Joined, Leaving, MemberRef, Protocol, Reader, Sync, Synced,
    Ticket,
};
use crate::error::BrokerError;
use crate::partition::TopicPartition;

/// A member that joins a group.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// A new member is told its id first and comes back with it (JoinGroup from version 4 on).
    pub require_member_id: bool,
    /// It understands that a returning leader need not assign (from version 9 on).
    pub skips_assignment: bool,
    /// The name that people know it by.
    pub client_id: String,
    /// Where it calls from.
    pub client_host: String,
    /// What kind of group this is.
    pub protocol_type: String,
    /// The assignors that it knows, best first.
    pub protocols: Vec<Protocol>,
    /// Expelled when not heard of for this long.
    pub session_timeout: Duration,
    /// How long others wait for it to join again.
    pub rebalance_timeout: Duration,
    /// Why it joins again.
    pub reason: Option<String>,
}

/// A member that asks for its assignment.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// Its generation.
    pub generation: i32,
    /// What it takes the group's type to be, if it says so.
    pub protocol_type: Option<String>,
    /// What it takes the assignor to be, if it says so.
    pub protocol: Option<String>,
    /// Member id and assignment, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// Offsets of a deleted topic, as they were when it was gone.
#[derive(Debug)]
pub struct LeftOffsets {
    by_group: Vec<(String, BTreeMap<TopicPartition, CommittedOffset>)>,
}

/// A group that was asked for by name.
pub type DescribedGroup = Option<GroupSnapshot>;

impl Broker {
    /// Joins a group. The group has the request when this returns; the answer comes when everybody has joined. A dropped
    /// future takes the request back.
    ///
    /// # Errors
    /// [`GroupError`], from the future.
    pub fn join_group(
        &self,
        request: JoinRequest,
    ) -> impl Future<Output = Result<Joined, GroupError>> + Send + use<> {
        let group = request.group.clone();
        let waiting = self.begin_join(request);
        async move {
            match waiting?.answer().await {
                Some(Answer::Join(joined)) => joined,
                _ => Err(GroupError::Dead { group }),
            }
        }
    }

    fn begin_join(&self, request: JoinRequest) -> Result<Waiting, GroupError> {
        let groups = self.groups();
        let ticket = groups.new_ticket();
        let group = request.group.clone();
        let join = groups.checked_join(request, ticket)?;
        groups.ask(&group, ticket, Input::Join(join))
    }

    /// Asks for a member's assignment. The group has the request when this returns; the answer comes when the leader has
    /// given the assignment. A dropped future takes the request back.
    ///
    /// # Errors
    /// [`GroupError`], from the future.
    pub fn sync_group(
        &self,
        request: SyncRequest,
    ) -> impl Future<Output = Result<Synced, GroupError>> + Send + use<> {
        let group = request.group.clone();
        let waiting = self.begin_sync(request);
        async move {
            match waiting?.answer().await {
                Some(Answer::Sync(synced)) => synced,
                _ => Err(GroupError::Dead { group }),
            }
        }
    }

    fn begin_sync(&self, request: SyncRequest) -> Result<Waiting, GroupError> {
        check_group(&request.group)?;
        check_member(&request.member)?;
        for (_, assignment) in &request.assignments {
            check_size("bytes of an assignment", assignment.len(), MAX_METADATA_BYTES)?;
        }
        let ticket = self.groups().new_ticket();
        let sync = Sync {
            ticket,
            member: request.member,
            generation: request.generation,
            protocol_type: request.protocol_type,
            protocol: request.protocol,
            assignments: request.assignments,
        };
        self.groups().ask(&request.group, ticket, Input::Sync(sync))
    }

    /// Shows that a member lives.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] if it is to join again; any other if it is no member of that generation.
    pub async fn heartbeat_group(
        &self,
        group: &str,
        member: MemberRef,
        generation: i32,
    ) -> Result<(), GroupError> {
        check_group(group)?;
        let ticket = self.groups().new_ticket();
        match self
            .groups()
            .ask(group, ticket, Input::Heartbeat { ticket, member, generation })?
            .answer()
            .await
        {
            Some(Answer::Heartbeat(answer)) => answer,
            _ => Err(GroupError::Dead { group: group.to_owned() }),
        }
    }

    /// Members leave; one answer for each.
    ///
    /// # Errors
    /// [`GroupError::InvalidGroupId`].
    pub async fn leave_group(
        &self,
        group: &str,
        leaving: Vec<Leaving>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group(group)?;
        let ticket = self.groups().new_ticket();
        match self.groups().ask(group, ticket, Input::Leave { ticket, leaving })?.answer().await {
            Some(Answer::Leave(answers)) => Ok(answers),
            _ => Err(GroupError::Dead { group: group.to_owned() }),
        }
    }

    /// Commits offsets. Those of members that lost their generation, or of partitions that aren't there, are refused.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], [`BrokerError::Group`], and those of [`Broker::append`].
    pub async fn commit_offsets(&self, commit: OffsetCommit) -> Result<(), BrokerError> {
        check_group(&commit.group).map_err(BrokerError::Group)?;
        check_offsets(&commit)?;
        if commit.offsets.is_empty() {
            return Ok(());
        }
        self.commit(Vec::new(), vec![OffsetChange::Commit(commit)], None).await
    }

    /// A group's offsets of these partitions, or of all that have one. Waits for those that are on their way to the disk.
    /// With `require_stable`, those that an open transaction may change are [`FetchedOffset::Unstable`].
    ///
    /// # Errors
    /// [`GroupError::InvalidGroupId`].
    pub async fn fetch_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<Vec<(TopicPartition, FetchedOffset)>, GroupError> {
        check_group(group)?;
        Ok(self.groups().fetch_offsets(group, partitions, require_stable).await)
    }

    /// Takes note that somebody who calls itself `client_id` was told these offsets: if it owns a partition, it goes on with it now, or
    /// waits for what an open transaction holds.
    pub(crate) fn offsets_were_told(
        &self,
        group: &str,
        client_id: &str,
        told: &[(TopicPartition, FetchedOffset)],
    ) {
        let told = told.iter().map(|(partition, offset)| (partition, *offset != FetchedOffset::Unstable));
        self.groups().goes_on(group, Reader::Client(client_id), &told);
    }

    /// Deletes a group's offsets of partitions whose topics none of its members reads.
    ///
    /// # Errors
    /// [`BrokerError::Group`], and those of [`Broker::append`].
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<(), BrokerError> {
        let committed = self.groups().committed_of(group).map_err(BrokerError::Group)?;
        let partitions: BTreeSet<_> =
            partitions.into_iter().filter(|partition| committed.contains_key(partition)).collect();
        let condition = DeletionCondition::NotRead;
        self.delete(OffsetDeletion { group: group.to_owned(), partitions, condition }).await
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// [`BrokerError::Group`], and those of [`Broker::append`].
    pub async fn delete_group(&self, group: &str) -> Result<(), BrokerError> {
        check_group(group).map_err(BrokerError::Group)?;
        let committed = self.groups().committed_of(group).map_err(BrokerError::Group)?;
        let partitions = committed.into_keys().collect();
        let condition = DeletionCondition::GroupEmpty;
        self.delete(OffsetDeletion { group: group.to_owned(), partitions, condition }).await
    }

    /// Deletes the offsets that a deleted topic left, as far as they stand: what was committed since is of a newer topic of that name.
    ///
    /// # Errors
    /// Those of [`Broker::append`].
    pub async fn delete_left_offsets(&self, left: LeftOffsets) -> Result<(), BrokerError> {
        for (group, mut seen) in left.by_group {
            loop {
                self.groups().retain_unchanged(&group, &mut seen);
                if seen.is_empty() {
                    break;
                }
                let partitions = seen.keys().cloned().collect();
                let condition = DeletionCondition::Unchanged(seen.clone());
                let group = group.clone();
                match self.delete(OffsetDeletion { group, partitions, condition }).await {
                    // Something was committed after the look at it.
                    Err(BrokerError::Group(_)) => {}
                    deleted => {
                        deleted?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn delete(&self, deletion: OffsetDeletion) -> Result<(), BrokerError> {
        if deletion.partitions.is_empty() {
            return self.groups().delete_nothing(&deletion).map_err(BrokerError::Group);
        }
        self.commit(Vec::new(), vec![OffsetChange::Delete(deletion)], None).await
    }

    /// A group as it stands; `None` if nobody knows it.
    pub fn describe_group(&self, group: &str) -> DescribedGroup {
        self.groups().describe(group)
    }
}

impl Groups {
    pub(crate) fn checked_join(&self, request: JoinRequest, ticket: Ticket) -> Result<Join, GroupError> {
        check_group(&request.group)?;
        check_member(&request.member)?;
        let options = self.options();
        let (min, max) = (options.min_session_timeout, options.max_session_timeout);
        if !(min..=max).contains(&request.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout { given: request.session_timeout, min, max });
        }
        check_size("bytes of a protocol type", request.protocol_type.len(), MAX_NAME_BYTES)?;
        check_size("protocols of a member", request.protocols.len(), MAX_PROTOCOLS)?;
        let mut told = 0usize;
        for protocol in &request.protocols {
            check_size("bytes of a protocol's name", protocol.name.len(), MAX_NAME_BYTES)?;
            told = told.saturating_add(protocol.metadata.len());
        }
        check_size("bytes of protocol metadata", told, MAX_METADATA_BYTES)?;
        let client_id = shorten(request.client_id);
        let name = request.member.instance_id.as_ref().unwrap_or(&client_id);
        Ok(Join {
            ticket,
            new_member_id: self.new_member_id(name),
            member: request.member,
            require_member_id: request.require_member_id,
            skips_assignment: request.skips_assignment,
            client_id,
            client_host: shorten(request.client_host),
            protocol_type: request.protocol_type,
            protocols: request.protocols,
            session_timeout: request.session_timeout,
            // Longer than a session may be, nobody should have to wait.
            rebalance_timeout: request.rebalance_timeout.min(options.max_session_timeout),
            initial_delay: options.initial_rebalance_delay,
            reason: request.reason.map(shorten),
        })
    }

    pub(crate) fn describe(&self, group: &str) -> Option<GroupSnapshot> {
        self.state.lock().groups.get(group).map(|entry| entry.snapshot(group))
    }

    fn committed_of(&self, group: &str) -> Result<BTreeMap<TopicPartition, i64>, GroupError> {
        let state = self.state.lock();
        let entry =
            state.groups.get(group).ok_or_else(|| GroupError::NotFound { group: group.to_owned() })?;
        Ok(entry.committed())
    }

    /// Every group's offsets of a topic.
    pub(crate) fn offsets_of_topic(&self, topic: &str) -> LeftOffsets {
        let state = self.state.lock();
        let of_topic = |(group, entry): (&String, &super::Entry)| {
            let committed = entry.ledger.committed().iter();
            let offsets: BTreeMap<_, _> = committed
                .filter(|(partition, _)| &*partition.topic == topic)
                .map(|(partition, offset)| (partition.clone(), offset.clone()))
                .collect();
            (!offsets.is_empty()).then(|| (group.clone(), offsets))
        };
        LeftOffsets { by_group: state.groups.iter().filter_map(of_topic).collect() }
    }

    fn retain_unchanged(&self, group: &str, seen: &mut BTreeMap<TopicPartition, CommittedOffset>) {
        let state = self.state.lock();
        let ledger = state.groups.get(group).map(|entry| &entry.ledger);
        seen.retain(|partition, offset| ledger.is_some_and(|ledger| ledger.is_unchanged(partition, offset)));
    }

    /// A deletion that finds no offset: only its condition counts, and a group that is to go goes.
    fn delete_nothing(&self, deletion: &OffsetDeletion) -> Result<(), GroupError> {
        let mut state = self.state.lock();
        super::commit::check_deletion(&state, deletion)?;
        if deletion.condition != DeletionCondition::GroupEmpty {
            return Ok(());
        }
        if let Some(mut entry) = state.groups.remove(&deletion.group) {
            entry.group.kill();
        }
        Ok(())
    }
}

/// What a list of groups shows of one.
impl GroupSnapshot {
    /// Whether it has members.
    pub fn is_empty(&self) -> bool {
        self.state == GroupState::Empty
    }
}

/// Texts that go with offsets have a bound.
pub(crate) fn check_offsets(commit: &OffsetCommit) -> Result<(), BrokerError> {
    match commit.offsets.values().map(|offset| offset.metadata.len()).max() {
        Some(bytes) if bytes > MAX_OFFSET_METADATA_BYTES => {
            Err(BrokerError::TooLarge { what: "offset's metadata", bytes, limit: MAX_OFFSET_METADATA_BYTES })
        }
        _ => Ok(()),
    }
}

fn check_group(group: &str) -> Result<(), GroupError> {
    if (1..=MAX_NAME_BYTES).contains(&group.len()) {
        return Ok(());
    }
    Err(GroupError::InvalidGroupId { bytes: group.len(), limit: MAX_NAME_BYTES })
}

fn check_member(member: &MemberRef) -> Result<(), GroupError> {
    let instance = member.instance_id.as_ref().map_or(0, String::len);
    check_size("bytes of a static member's name", instance, MAX_NAME_BYTES)
}

fn check_size(what: &str, size: usize, limit: usize) -> Result<(), GroupError> {
    if size <= limit {
        return Ok(());
    }
    Err(GroupError::InvalidRequest(format!("{size} {what} are more than {limit}")))
}

/// A name for people to read, as long as names may be.
fn shorten(mut name: String) -> String {
    let end = (0..=MAX_NAME_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.truncate(end);
    name
}
