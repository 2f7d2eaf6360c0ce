//! The shell around the group coordinator: one lock around every group, its offsets, and the producers' epochs.
//!
//! # Requests
//!
//! A request becomes an input of its group ([`Groups::request`]); its answer comes out now or with a later input. Whoever
//! asks is answered through a [`Reply`]: a task that waits, which takes its request back when it is dropped
//! ([`Groups::ask`]), or the mailbox of a member of this process, which is also told when its group begins a rebalance.
//!
//! # How a commit is fenced
//!
//! A commit of offsets is an append to the log with a precondition. The thread that commits runs the precondition just
//! before it writes ([`InFlightCommit::decide`]): under this module's lock, the member's generation and ownership and
//! the producer's epoch are checked and the partitions are marked as having a commit in flight. When the append is
//! durable or has failed ([`InFlightCommit::finish`]), the offsets are taken over and the marks go. While a partition is
//! marked, nobody is told its committed offset ([`Groups::fetch_offsets`], [`Groups::settled_offsets`]), and while a
//! producer is, its successor waits. So a commit that got in before the fence is seen by the next owner, who asks after it
//! was assigned, and one that comes after is refused before anything is written.
//!
//! The lock is held for microseconds and never across an await or a call into the log.
//!
//! # Failures
//!
//! Groups live in memory: after a restart members are unknown, join again, and find the committed offsets. Offsets of groups
//! without members go when they are older than [`GroupOptions::offsets_retention`] (`expiry`).

mod commit;
mod epochs;
mod expiry;
mod ledger;
mod reading;
mod reply;
mod requests;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farol_event::Timestamp;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

pub(crate) use commit::{InFlightCommit, OffsetChange};
pub use commit::{Membership, OffsetCommit};
use epochs::Producer;
pub(crate) use epochs::ProducerEpoch;
pub(crate) use expiry::expire_offsets;
use ledger::Ledger;
pub use ledger::{CommittedOffset, FetchedOffset};
pub(crate) use reply::{Mailbox, Reply, Waiting};
pub(crate) use requests::check_offsets;
pub use requests::{DescribedGroup, JoinRequest, LeftOffsets, SyncRequest};
pub use settings::{
    GroupOptions, MAX_GROUP_HELD_BYTES, MAX_HELD_BYTES, MAX_METADATA_BYTES, MAX_NAME_BYTES,
    MAX_OFFSET_METADATA_BYTES, MAX_PROTOCOLS, SMALL_BYTES,
};

use crate::clock::Clock;
use crate::coordinator::rebalance::RebalanceRecord;
use crate::coordinator::{
    Answer, Effect, Group, GroupError, GroupLimits, GroupState, Input, MemberDescription, Reader, Ticket,
};
use crate::offsets::CommittedOffsets;
use crate::partition::TopicPartition;

/// Rebalances that a slow receiver may fall behind before it misses the oldest.
const REBALANCE_BACKLOG: usize = 256;

/// What a list of groups says of one.
pub(crate) struct ListedGroup {
    pub(crate) group: String,
    pub(crate) state: GroupState,
    pub(crate) protocol_type: String,
}

/// A group as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Its name.
    pub group: String,
    /// Its generation.
    pub generation: i32,
    /// Where it stands.
    pub state: GroupState,
    /// What kind of group it is: `consumer`, `connect`, …; empty if it never had members.
    pub protocol_type: String,
    /// The assignor in force; empty if there is none.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// Its committed offsets.
    pub committed: BTreeMap<TopicPartition, i64>,
}

pub(crate) struct Groups {
    state: Mutex<State>,
    options: GroupOptions,
    rebalances: broadcast::Sender<RebalanceRecord>,
    /// A deadline has come nearer.
    deadlines: Notify,
    clock: Clock,
    next_member: AtomicU64,
    next_ticket: AtomicU64,
    fenced_commits: AtomicU64,
}

#[derive(Default)]
struct State {
    groups: HashMap<String, Entry>,
    producers: HashMap<String, Producer>,
    last_epoch: u64,
    /// Bytes of what the members of all groups told.
    held_bytes: usize,
    /// The deadline that is waited for.
    armed: Option<Timestamp>,
}

struct Entry {
    group: Group,
    ledger: Ledger,
    /// Who waits for which answer.
    waiting: HashMap<Ticket, Reply>,
    /// Members of this process.
    mailboxes: HashMap<String, Arc<Mailbox>>,
    /// Told when a change of offsets is decided.
    settled: Arc<Notify>,
    /// A member of this process waits for that.
    mailboxes_wait: bool,
}

impl Groups {
    /// The groups that had offsets when the broker was last stopped, of which `alive_until` is a sign; the newest offset is another.
    pub(crate) fn new(
        clock: Clock,
        options: GroupOptions,
        committed: CommittedOffsets,
        alive_until: Option<Timestamp>,
    ) -> Self {
        let mut state = State::default();
        let limits = GroupLimits { max_members: options.max_size };
        let now = clock.now();
        let stopped_at = last_known_alive(&committed, alive_until, now);
        for (group, offsets) in committed {
            let mut members = Group::new(group.as_str(), limits, now);
            members.resume_from(offsets.keys().cloned(), stopped_at, now);
            state.groups.insert(group, Entry::new(members, Ledger::new(offsets)));
        }
        Self {
            state: Mutex::new(state),
            options,
            rebalances: broadcast::channel(REBALANCE_BACKLOG).0,
            deadlines: Notify::new(),
            clock,
            next_member: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
            fenced_commits: AtomicU64::new(0),
        }
    }

    pub(crate) fn options(&self) -> &GroupOptions {
        &self.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        self.clock.instant(at)
    }

    pub(crate) fn rebalances(&self) -> broadcast::Receiver<RebalanceRecord> {
        self.rebalances.subscribe()
    }

    pub(crate) fn fenced_commits(&self) -> u64 {
        self.fenced_commits.load(Ordering::Relaxed)
    }

    /// An id that no member has, had, or will have, also across restarts.
    pub(crate) fn new_member_id(&self, name: &str) -> String {
        let number = self.next_member.fetch_add(1, Ordering::Relaxed);
        format!("{name}-{:x}-{number}", self.clock.started_at().as_micros())
    }

    pub(crate) fn new_ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives a group an input, and whoever waits their answers. A group that isn't there is made.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorFull`]; then the group has not had the input.
    pub(crate) fn request(
        &self,
        group: &str,
        input: Input,
        waiting: Option<(Ticket, Reply)>,
    ) -> Result<(), GroupError> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let held_by_all = state.held_bytes;
        let entry = self.entry(&mut state, group, now)?;
        let held_before = entry.group.held_bytes();
        let more = input.held_bytes().saturating_sub(entry.group.replaced_bytes(&input));
        if let Err(error) = check_held(held_by_all, held_before, more) {
            state.remove_if_unused(group);
            return Err(error);
        }
        entry.waiting.extend(waiting);
        if let Input::Abandon { ticket } = &input {
            entry.waiting.remove(ticket);
        }
        let leaves = matches!(input, Input::Leave { .. });
        let effects = entry.group.apply(input, now);
        self.carry_out(entry, effects);
        if leaves {
            entry.mailboxes.retain(|member_id, _| entry.group.has_member(member_id));
        }
        let held = entry.group.held_bytes();
        let deadline = entry.group.next_deadline();
        state.remove_if_unused(group);
        state.held_bytes = state.held_bytes.saturating_sub(held_before).saturating_add(held);
        let is_nearer = deadline.is_some_and(|at| state.armed.is_none_or(|armed| at < armed));
        drop(state);
        if is_nearer {
            self.deadlines.notify_one();
        }
        Ok(())
    }

    /// Somebody goes on with these partitions (`true`), or has yet to: waits to be told from which offsets, or takes them over.
    pub(crate) fn goes_on<'a>(
        &self,
        group: &str,
        reader: Reader<'_>,
        told: &(impl Iterator<Item = (&'a TopicPartition, bool)> + Clone),
    ) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(entry) = state.groups.get_mut(group) else { return };
        let of = |stands: bool| {
            told.clone().filter(move |(_, found)| *found == stands).map(|(partition, _)| partition)
        };
        entry.group.waits(reader, of(false), now);
        let effects = entry.group.goes_on(reader, of(true), now);
        self.carry_out(entry, effects);
    }

    /// Every group that has members or committed offsets, by name.
    pub(crate) fn snapshot(&self) -> Vec<GroupSnapshot> {
        let state = self.state.lock();
        let mut groups: Vec<_> = state.groups.iter().map(|(name, entry)| entry.snapshot(name)).collect();
        drop(state);
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups
    }

    /// The same without members and offsets, of which there may be many.
    pub(crate) fn list(&self) -> Vec<ListedGroup> {
        let list = |(name, entry): (&String, &Entry)| ListedGroup {
            group: name.clone(),
            state: entry.group.state(),
            protocol_type: entry.group.protocol_type().unwrap_or_default().to_owned(),
        };
        let mut groups: Vec<_> = self.state.lock().groups.iter().map(list).collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups
    }

    /// Expels who must go, now and whenever a deadline passes. Never ends.
    pub(crate) async fn watch_deadlines(&self) {
        loop {
            let next = {
                let mut state = self.state.lock();
                state.armed = state.groups.values().filter_map(|entry| entry.group.next_deadline()).min();
                state.armed
            };
            match next {
                None => self.deadlines.notified().await,
                Some(at) => {
                    // Heartbeats move deadlines away without a word, so this wakes about once a session timeout.
                    tokio::select! {
                        () = tokio::time::sleep_until(self.clock.instant(at)) => self.tick(),
                        () = self.deadlines.notified() => {}
                    }
                }
            }
        }
    }

    fn tick(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let mut held_bytes = 0usize;
        for entry in state.groups.values_mut() {
            if entry.group.next_deadline().is_some_and(|at| at <= now) {
                let effects = entry.group.apply(Input::Tick, now);
                self.carry_out(entry, effects);
            }
            held_bytes = held_bytes.saturating_add(entry.group.held_bytes());
        }
        state.groups.retain(|_, entry| !entry.is_unused());
        state.held_bytes = held_bytes;
    }

    /// The group's entry, made if it isn't there.
    fn entry<'a>(
        &self,
        state: &'a mut State,
        group: &str,
        now: Timestamp,
    ) -> Result<&'a mut Entry, GroupError> {
        if !state.groups.contains_key(group) && state.groups.len() >= self.options.max_groups {
            return Err(GroupError::CoordinatorFull { what: "groups", limit: self.options.max_groups });
        }
        let limits = GroupLimits { max_members: self.options.max_size };
        Ok(state
            .groups
            .entry(group.to_owned())
            .or_insert_with(|| Entry::new(Group::new(group, limits, now), Ledger::default())))
    }

    fn carry_out(&self, entry: &mut Entry, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { ticket, answer } => entry.answer(ticket, answer),
                Effect::Wake { member_id } => {
                    if let Some(mailbox) = entry.mailboxes.get(&member_id) {
                        mailbox.wake();
                    }
                }
                Effect::Expelled { member_id, client_id, reason } => {
                    let group = entry.group.name();
                    tracing::warn!(
                        group,
                        client_id,
                        member_id,
                        reason = reason.as_str(),
                        "member expelled from the group"
                    );
                    if let Some(mailbox) = entry.mailboxes.remove(&member_id) {
                        mailbox.wake();
                    }
                }
                Effect::Rebalanced(record) => {
                    let causes: Vec<String> = record.causes.iter().map(ToString::to_string).collect();
                    tracing::info!(
                        group = record.group,
                        generation = record.generation,
                        causes = causes.join(", "),
                        members = record.after.len(),
                        "rebalance complete"
                    );
                    // Nobody may be listening.
                    let _ = self.rebalances.send(*record);
                }
            }
        }
    }
}

impl State {
    fn remove_if_unused(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Entry::is_unused) {
            self.groups.remove(group);
        }
    }
}

impl Entry {
    fn new(group: Group, ledger: Ledger) -> Self {
        Self {
            group,
            ledger,
            waiting: HashMap::new(),
            mailboxes: HashMap::new(),
            settled: Arc::default(),
            mailboxes_wait: false,
        }
    }

    fn is_unused(&self) -> bool {
        self.group.is_unused() && self.ledger.is_empty() && self.waiting.is_empty()
    }

    fn committed(&self) -> BTreeMap<TopicPartition, i64> {
        self.ledger.committed().iter().map(|(partition, found)| (partition.clone(), found.offset)).collect()
    }

    fn snapshot(&self, name: &str) -> GroupSnapshot {
        GroupSnapshot {
            group: name.to_owned(),
            generation: self.group.generation(),
            state: self.group.state(),
            protocol_type: self.group.protocol_type().unwrap_or_default().to_owned(),
            protocol: self.group.protocol().unwrap_or_default().to_owned(),
            members: self.group.members(),
            committed: self.committed(),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        match self.waiting.remove(&ticket) {
            // A task that was dropped doesn't want to know.
            Some(Reply::Task(task)) => drop(task.send(answer)),
            Some(Reply::Mailbox(mailbox, number)) => {
                if let Answer::Join(Ok(joined)) = &answer {
                    self.mailboxes.insert(joined.member_id.clone(), Arc::clone(&mailbox));
                }
                mailbox.put(number, answer);
            }
            None => {}
        }
    }

    fn offsets_settled(&mut self) {
        self.settled.notify_waiters();
        if std::mem::take(&mut self.mailboxes_wait) {
            for mailbox in self.mailboxes.values() {
                mailbox.ring();
            }
        }
    }

    fn check_not_read(&self, partitions: &BTreeSet<TopicPartition>) -> Result<(), GroupError> {
        let group = || self.group.name().to_owned();
        if !self.group.has_members() {
            return Ok(());
        }
        if !self.group.is_of_consumers() {
            return Err(GroupError::NotEmpty { group: group() });
        }
        match partitions.iter().find(|partition| self.group.is_subscribed(&partition.topic)) {
            Some(partition) => {
                Err(GroupError::Subscribed { group: group(), topic: partition.topic.to_string() })
            }
            None => Ok(()),
        }
    }
}

/// Until when it is known that the broker ran before it was stopped; `now` if nothing is known. A clock that was set back since counts
/// as nothing.
fn last_known_alive(
    committed: &CommittedOffsets,
    alive_until: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let Some(alive_until) = alive_until else { return now };
    let newest_commit = committed
        .values()
        .flat_map(BTreeMap::values)
        .map(|offset| Timestamp::from_millis_clamped(offset.committed_at_ms))
        .max();
    newest_commit.map_or(alive_until, |at| at.max(alive_until)).min(now)
}

/// Whether a group may make the coordinator keep `more` bytes.
fn check_held(by_all: usize, by_group: usize, more: usize) -> Result<(), GroupError> {
    if more == 0 {
        return Ok(());
    }
    if by_group.saturating_add(more) > MAX_GROUP_HELD_BYTES {
        let what = "bytes of what the members of a group tell and are assigned";
        return Err(GroupError::CoordinatorFull { what, limit: MAX_GROUP_HELD_BYTES });
    }
    let limit = if more <= SMALL_BYTES { 2 * MAX_HELD_BYTES } else { MAX_HELD_BYTES };
    if by_all.saturating_add(more) > limit {
        return Err(GroupError::CoordinatorFull {
            what: "bytes of what members tell and are assigned",
            limit,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sign_of_life_before_the_stop_counts_and_none_from_the_future() {
        let at = |second: i64| Timestamp::from_millis_clamped(second * 1000);
        let committed = |second: i64| {
            let offset = CommittedOffset { committed_at_ms: second * 1000, ..CommittedOffset::new(5) };
            CommittedOffsets::from([(
                "g".to_owned(),
                BTreeMap::from([(TopicPartition::new("t", 0), offset)]),
            )])
        };
        let now = at(100);
        assert_eq!(last_known_alive(&committed(50), Some(at(90)), now), at(90), "an idle group");
        assert_eq!(
            last_known_alive(&committed(95), Some(at(90)), now),
            at(95),
            "a power cut took newer ones"
        );
        assert_eq!(last_known_alive(&committed(50), None, now), now, "the folder of an older version");
        assert_eq!(last_known_alive(&committed(50), Some(at(200)), now), now, "the clock was set back");
        assert_eq!(last_known_alive(&CommittedOffsets::new(), Some(at(90)), now), at(90));
    }

    #[test]
    fn a_group_and_all_groups_have_a_bound_and_small_tellers_one_that_is_twice_as_high() {
        let full = |what: Result<(), GroupError>| matches!(what, Err(GroupError::CoordinatorFull { .. }));
        assert!(check_held(0, 0, MAX_GROUP_HELD_BYTES).is_ok());
        assert!(full(check_held(0, 1, MAX_GROUP_HELD_BYTES)), "of one group");
        assert!(check_held(MAX_HELD_BYTES - SMALL_BYTES - 1, 0, SMALL_BYTES + 1).is_ok());
        assert!(full(check_held(MAX_HELD_BYTES - SMALL_BYTES, 0, SMALL_BYTES + 1)));
        assert!(check_held(2 * MAX_HELD_BYTES - SMALL_BYTES, 0, SMALL_BYTES).is_ok());
        assert!(full(check_held(2 * MAX_HELD_BYTES, 0, 1)));
        assert!(check_held(usize::MAX, usize::MAX, 0).is_ok(), "who tells nothing more always passes");
    }
}
