//! The shell around the group coordinator: one lock around every group, its offsets, and the producers' epochs.
//!
//! # How a commit is fenced
//!
//! A commit of offsets is an append to the log with a precondition. The log's commit thread runs the precondition just
//! before it writes ([`InFlightCommit::decide`]): under this module's lock, the member's generation and ownership and
//! the producer's epoch are checked and the partitions are marked as having a commit in flight. When the append is
//! durable or has failed ([`InFlightCommit::finish`]), the offsets are taken over and the marks go. While a partition is
//! marked, the coordinator gives it to nobody, and while a producer is, its successor waits. So a commit that got in
//! before the fence is seen by the next owner, and one that comes after is refused before anything is written.
//!
//! The lock is held for microseconds and never across an await or a call into the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farol_event::Timestamp;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use crate::clock::Clock;
use crate::coordinator::rebalance::{LeaveReason, RebalanceRecord};
use crate::coordinator::{Effect, Group, GroupState, Input, Join, MemberDescription};
use crate::error::BrokerError;
use crate::partition::TopicPartition;

/// Rebalances that a slow receiver may fall behind before it misses the oldest.
const REBALANCE_BACKLOG: usize = 256;
/// Longest name of a group or transactional id, and of a client.
pub const MAX_NAME_BYTES: usize = 255;

/// Who a member is, at which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member_id: String,
    /// Its generation.
    pub generation: i32,
}

/// Offsets that a member commits: the next offset to read, by partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Who commits.
    pub member: Membership,
    /// What.
    pub offsets: BTreeMap<TopicPartition, i64>,
}

/// A transactional producer among those of the same id: the newest epoch is the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEpoch {
    pub(crate) transactional_id: String,
    pub(crate) epoch: u64,
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
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// Its committed offsets.
    pub committed: BTreeMap<TopicPartition, i64>,
}

/// What a poll of a member brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberNews {
    /// Nothing.
    Nothing,
    /// These partitions are to be given up by the next poll.
    Revoked(Vec<TopicPartition>),
    /// These are the member's now, with the offset committed for each, if one is.
    Assigned(Vec<(TopicPartition, Option<i64>)>),
    /// It is no member any more; everything it had is gone.
    Expelled(Option<LeaveReason>),
}

pub(crate) struct Groups {
    state: Mutex<State>,
    rebalances: broadcast::Sender<RebalanceRecord>,
    /// A deadline may have come nearer.
    deadlines: Notify,
    clock: Clock,
    next_member: AtomicU64,
    fenced_commits: AtomicU64,
}

#[derive(Default)]
struct State {
    groups: HashMap<String, Entry>,
    producers: HashMap<String, Producer>,
    last_epoch: u64,
}

struct Entry {
    group: Group,
    offsets: BTreeMap<TopicPartition, i64>,
    wakers: HashMap<String, Arc<Notify>>,
}

struct Producer {
    epoch: u64,
    commits_in_flight: u32,
    drained: Arc<Notify>,
}

/// A commit on its way through the log, shared by its precondition and its completion.
pub(crate) struct InFlightCommit {
    groups: Arc<Groups>,
    offsets: Vec<OffsetCommit>,
    producer: Option<ProducerEpoch>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Decided,
    Finished,
}

impl Groups {
    pub(crate) fn new(clock: Clock, committed: BTreeMap<String, BTreeMap<TopicPartition, i64>>) -> Self {
        let mut state = State::default();
        for (group, offsets) in committed {
            state.entry(&group).offsets = offsets;
        }
        Self {
            state: Mutex::new(state),
            rebalances: broadcast::channel(REBALANCE_BACKLOG).0,
            deadlines: Notify::new(),
            clock,
            next_member: AtomicU64::new(1),
            fenced_commits: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn rebalances(&self) -> broadcast::Receiver<RebalanceRecord> {
        self.rebalances.subscribe()
    }

    pub(crate) fn fenced_commits(&self) -> u64 {
        self.fenced_commits.load(Ordering::Relaxed)
    }

    /// An id that no member has, had, or will have, also across restarts.
    pub(crate) fn new_member_id(&self, client_id: &str) -> String {
        let number = self.next_member.fetch_add(1, Ordering::Relaxed);
        format!("{client_id}-{:x}-{number}", self.clock.started_at().as_micros())
    }

    /// Joins, or changes the topics of a member. `waker` is told when the member should poll. Gives the member's
    /// generation.
    pub(crate) fn join(&self, group: &str, join: Join, waker: &Arc<Notify>) -> i32 {
        let member_id = join.member_id.clone();
        let mut state = self.state.lock();
        let entry = state.entry(group);
        entry.wakers.insert(member_id.clone(), Arc::clone(waker));
        let effects = entry.group.apply(Input::Join(join), self.clock.now());
        self.carry_out(entry, effects);
        let generation = entry.group.member_generation(&member_id).unwrap_or(-1);
        drop(state);
        self.deadlines.notify_one();
        generation
    }

    pub(crate) fn leave(&self, group: &str, member_id: &str) {
        let mut state = self.state.lock();
        let entry = state.entry(group);
        let effects = entry.group.apply(Input::Leave { member_id: member_id.to_owned() }, self.clock.now());
        entry.wakers.remove(member_id);
        self.carry_out(entry, effects);
        if entry.is_unused() {
            state.groups.remove(group);
        }
    }

    /// Shows that a member lives. Whether it is one.
    pub(crate) fn heartbeat(&self, group: &str, member_id: &str) -> bool {
        let mut state = self.state.lock();
        let entry = state.entry(group);
        let input = Input::Heartbeat { member_id: member_id.to_owned() };
        let effects = entry.group.apply(input, self.clock.now());
        let is_member = !effects.iter().any(|effect| matches!(effect, Effect::NotMember { .. }));
        self.carry_out(entry, effects);
        is_member
    }

    /// What is new for a member, and its generation.
    pub(crate) fn poll(&self, group: &str, member_id: &str) -> (MemberNews, i32) {
        let mut state = self.state.lock();
        let entry = state.entry(group);
        let effects = entry.group.apply(Input::Poll { member_id: member_id.to_owned() }, self.clock.now());
        let mut news = MemberNews::Nothing;
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Revoke { partitions, .. } => news = MemberNews::Revoked(partitions),
                Effect::Assign { partitions, .. } => {
                    let start = |partition: TopicPartition| {
                        let committed = entry.offsets.get(&partition).copied();
                        (partition, committed)
                    };
                    news = MemberNews::Assigned(partitions.into_iter().map(start).collect());
                }
                Effect::NotMember { reason, .. } => news = MemberNews::Expelled(reason),
                other => others.push(other),
            }
        }
        let generation = entry.group.member_generation(member_id).unwrap_or(-1);
        self.carry_out(entry, others);
        (news, generation)
    }

    pub(crate) fn committed(&self, group: &str) -> BTreeMap<TopicPartition, i64> {
        self.state.lock().groups.get(group).map(|entry| entry.offsets.clone()).unwrap_or_default()
    }

    /// Every group that has members or committed offsets, by name.
    pub(crate) fn snapshot(&self) -> Vec<GroupSnapshot> {
        let state = self.state.lock();
        let mut groups: Vec<_> = state
            .groups
            .iter()
            .map(|(name, entry)| GroupSnapshot {
                group: name.clone(),
                generation: entry.group.generation(),
                state: entry.group.state(),
                members: entry.group.members(),
                committed: entry.offsets.clone(),
            })
            .collect();
        drop(state);
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups
    }

    /// Expels who must go, now and whenever a deadline passes. Never ends.
    pub(crate) async fn watch_deadlines(&self) {
        loop {
            let next =
                self.state.lock().groups.values().filter_map(|entry| entry.group.next_deadline()).min();
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
        for entry in state.groups.values_mut() {
            let effects = entry.group.apply(Input::Tick, now);
            self.carry_out(entry, effects);
        }
        state.groups.retain(|_, entry| !entry.is_unused());
    }

    /// A new epoch for a transactional id; older producers are fenced from here on. Returns when every commit that they
    /// got in before is decided, so that whoever reads the topics now reads all that they wrote.
    pub(crate) async fn new_producer(&self, transactional_id: &str) -> ProducerEpoch {
        let epoch = {
            let mut state = self.state.lock();
            state.last_epoch += 1;
            let epoch = state.last_epoch;
            state
                .producers
                .entry(transactional_id.to_owned())
                .and_modify(|producer| producer.epoch = epoch)
                .or_insert_with(|| Producer { epoch, commits_in_flight: 0, drained: Arc::default() });
            epoch
        };
        let producer = ProducerEpoch { transactional_id: transactional_id.to_owned(), epoch };
        loop {
            let drained = {
                let state = self.state.lock();
                match state.producers.get(transactional_id) {
                    Some(entry) if entry.commits_in_flight > 0 => Arc::clone(&entry.drained).notified_owned(),
                    _ => return producer,
                }
            };
            drained.await;
        }
    }

    pub(crate) fn check_producer(&self, producer: &ProducerEpoch) -> Result<(), BrokerError> {
        self.state.lock().check_producer(producer)
    }

    /// The producer is gone. Epochs never come again, so a forgotten id fences older producers all the same.
    pub(crate) fn forget_producer(&self, producer: &ProducerEpoch) {
        let mut state = self.state.lock();
        let unused = |entry: &Producer| entry.epoch == producer.epoch && entry.commits_in_flight == 0;
        if state.producers.get(&producer.transactional_id).is_some_and(unused) {
            state.producers.remove(&producer.transactional_id);
        }
    }

    fn carry_out(&self, entry: &mut Entry, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Wake { member_id } => {
                    if let Some(waker) = entry.wakers.get(&member_id) {
                        waker.notify_one();
                    }
                }
                Effect::Expelled { member_id, client_id, reason } => {
                    tracing::warn!(
                        group = entry.group.name(),
                        client_id,
                        member_id,
                        "member expelled: it {}",
                        reason.as_str()
                    );
                    if let Some(waker) = entry.wakers.remove(&member_id) {
                        waker.notify_one();
                    }
                }
                Effect::Rebalanced(record) => {
                    tracing::debug!(group = record.group, generation = record.generation, "rebalanced");
                    // Nobody listening is fine.
                    let _ = self.rebalances.send(*record);
                }
                Effect::Revoke { .. } | Effect::Assign { .. } | Effect::NotMember { .. } => {}
            }
        }
    }
}

impl State {
    fn entry(&mut self, group: &str) -> &mut Entry {
        self.groups.entry_ref(group).or_insert_with(|| Entry {
            group: Group::new(group),
            offsets: BTreeMap::new(),
            wakers: HashMap::new(),
        })
    }

    fn check_producer(&self, producer: &ProducerEpoch) -> Result<(), BrokerError> {
        match self.producers.get(&producer.transactional_id) {
            Some(entry) if entry.epoch == producer.epoch => Ok(()),
            _ => Err(BrokerError::ProducerFenced { transactional_id: producer.transactional_id.clone() }),
        }
    }
}

impl Entry {
    fn is_unused(&self) -> bool {
        !self.group.has_members() && self.offsets.is_empty()
    }
}

impl InFlightCommit {
    pub(crate) fn new(
        groups: Arc<Groups>,
        offsets: Vec<OffsetCommit>,
        producer: Option<ProducerEpoch>,
    ) -> Arc<Self> {
        Arc::new(Self { groups, offsets, producer, stage: Mutex::new(Stage::Queued) })
    }

    /// Whether the commit may be written. Run by the log's commit thread.
    pub(crate) fn decide(&self) -> Result<(), BrokerError> {
        let decided = self.decide_all();
        match &decided {
            Ok(()) => *self.stage.lock() = Stage::Decided,
            Err(error) => {
                self.groups.fenced_commits.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "commit refused");
            }
        }
        decided
    }

    fn decide_all(&self) -> Result<(), BrokerError> {
        let mut state = self.groups.state.lock();
        if let Some(producer) = &self.producer {
            state.check_producer(producer)?;
        }
        for (passed, commit) in self.offsets.iter().enumerate() {
            let member = &commit.member;
            let group = &mut state.entry(&member.group).group;
            if let Err(fence) =
                group.decide_commit(&member.member_id, member.generation, commit.offsets.keys())
            {
                for undone in self.offsets.iter().take(passed) {
                    let entry = state.entry(&undone.member.group);
                    let effects = entry.group.finish_commit(undone.offsets.keys());
                    self.groups.carry_out(entry, effects);
                }
                return Err(fence.into());
            }
        }
        if let Some(entry) = self.producer.as_ref().and_then(|p| state.producers.get_mut(&p.transactional_id))
        {
            entry.commits_in_flight += 1;
        }
        Ok(())
    }

    /// The append has ended: with `written`, the offsets hold from now on.
    pub(crate) fn finish(&self, written: bool) {
        if std::mem::replace(&mut *self.stage.lock(), Stage::Finished) != Stage::Decided {
            return;
        }
        let mut state = self.groups.state.lock();
        for commit in &self.offsets {
            let entry = state.entry(&commit.member.group);
            if written {
                entry
                    .offsets
                    .extend(commit.offsets.iter().map(|(partition, offset)| (partition.clone(), *offset)));
            }
            let effects = entry.group.finish_commit(commit.offsets.keys());
            self.groups.carry_out(entry, effects);
        }
        if let Some(entry) = self.producer.as_ref().and_then(|p| state.producers.get_mut(&p.transactional_id))
        {
            entry.commits_in_flight = entry.commits_in_flight.saturating_sub(1);
            if entry.commits_in_flight == 0 {
                entry.drained.notify_waiters();
            }
        }
    }
}

impl Drop for InFlightCommit {
    /// A log that forgot its callback must not leave partitions marked for ever.
    fn drop(&mut self) {
        self.finish(false);
    }
}
