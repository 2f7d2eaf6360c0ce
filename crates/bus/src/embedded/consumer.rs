//! A consumer: its partitions, its place in the group, and its polls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farol_broker::{Broker, Member, MemberNews, MemberSettings, OffsetCommit, PartitionReader, poll_pace};
use farol_log::Subscription;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::fetch::{Effort, Gathered, Portion, Problem, gather};
use super::off_thread;
use super::transaction::{check_offsets, membership};
use crate::engine::{
    Assignment, BusError, Consumer, ConsumerSettings, GroupMetadata, OffsetReset, Polled, StartAt,
};
use crate::record::{ConsumedBatch, TopicPartition};

pub(super) struct EmbeddedConsumer {
    broker: Broker,
    settings: ConsumerSettings,
    member: Option<Member>,
    held: Vec<Held>,
    /// The slot that the next poll reads first.
    turn: usize,
    /// The last poll had more to read than an async thread may be held up for, so the next one probably has too.
    behind: bool,
    /// Notified when a held partition has grown or the group has news.
    waker: Arc<Notify>,
    /// Changes when a topic is made, which may be one that was read and deleted.
    topic_changes: watch::Receiver<u64>,
    closed: bool,
}

/// A partition that this consumer reads.
struct Held {
    partition: TopicPartition,
    reader: PartitionReader,
    /// The offset of the next record to be polled.
    position: i64,
    /// Keeps the waker informed.
    _advance: Subscription,
}

impl Held {
    /// Whether there is something to read, or the position is nowhere.
    fn has_something(&self) -> bool {
        self.position < self.reader.stable_offset() || self.position > self.reader.end_offset()
    }
}

impl EmbeddedConsumer {
    pub(super) fn new(broker: Broker, settings: ConsumerSettings) -> Self {
        Self {
            topic_changes: broker.topic_changes(),
            broker,
            settings,
            member: None,
            held: Vec::new(),
            turn: 0,
            behind: false,
            waker: Arc::default(),
            closed: false,
        }
    }

    fn check_open(&self) -> Result<(), BusError> {
        self.broker.check_open()?;
        if self.closed { Err(BusError::InvalidState("the consumer is closed".to_owned())) } else { Ok(()) }
    }

    fn hold(&self, partition: TopicPartition, reader: PartitionReader, position: i64) -> Held {
        let waker = Arc::clone(&self.waker);
        let advance = reader.on_advance(move |_| waker.notify_one());
        Held { partition, reader, position, _advance: advance }
    }

    /// Where the settings say to start when there is no offset, or it is gone.
    fn reset_position(&self, reader: &PartitionReader) -> i64 {
        match self.settings.offset_reset {
            OffsetReset::Earliest => reader.start_offset(),
            OffsetReset::Latest => reader.stable_offset(),
        }
    }

    /// The committed offset if it is there, otherwise what the settings say.
    fn start_position(
        &self,
        partition: &TopicPartition,
        reader: &PartitionReader,
        committed: Option<i64>,
    ) -> i64 {
        let Some(committed) = committed else { return self.reset_position(reader) };
        let (start, end) = (reader.start_offset(), reader.end_offset());
        if (start..=end).contains(&committed) {
            return committed;
        }
        self.reset(partition, reader, committed, start, end)
    }

    fn reset(
        &self,
        partition: &TopicPartition,
        reader: &PartitionReader,
        gone: i64,
        start: i64,
        end: i64,
    ) -> i64 {
        let position = self.reset_position(reader);
        self.broker.count_offset_reset();
        tracing::warn!(
            %partition, offset = gone, start, end, position, client_id = self.settings.client_id,
            "offset is gone and was reset"
        );
        position
    }

    /// Goes over to partitions that were made again after they had been deleted: they are other ones, of the same names.
    fn follow_topics(&mut self) {
        if !self.topic_changes.has_changed().unwrap_or(false) {
            return;
        }
        self.topic_changes.mark_unchanged();
        let mut held = std::mem::take(&mut self.held);
        for held in held.iter_mut().filter(|held| held.reader.is_deleted()) {
            // It may be made again later.
            let Ok(reader) = self.broker.reader(&held.partition) else { continue };
            let (start, end) = (reader.start_offset(), reader.end_offset());
            let position = self.reset(&held.partition, &reader, held.position, start, end);
            *held = self.hold(held.partition.clone(), reader, position);
        }
        self.held = held;
    }

    /// What the group has to say, if this consumer is in one.
    fn news(&mut self) -> Result<Option<Polled>, BusError> {
        let Some(member) = &mut self.member else { return Ok(None) };
        match member.poll()? {
            MemberNews::Nothing => Ok(None),
            MemberNews::Revoked(partitions) => {
                self.held.retain(|held| !partitions.contains(&held.partition));
                Ok(Some(Polled::Revoked(partitions)))
            }
            MemberNews::Assigned(partitions) => self.take_over(partitions).map(Some),
            MemberNews::Expelled(reason, lost) => {
                tracing::warn!(
                    client_id = self.settings.client_id,
                    group = member.group(),
                    ?reason,
                    "no longer a member of the group; joining again"
                );
                self.held.clear();
                Ok((!lost.is_empty()).then_some(Polled::Revoked(lost)))
            }
        }
    }

    fn take_over(&mut self, partitions: Vec<(TopicPartition, Option<i64>)>) -> Result<Polled, BusError> {
        let mut assigned = Vec::with_capacity(partitions.len());
        for (partition, committed) in partitions {
            let reader = self.broker.reader(&partition)?;
            let position = self.start_position(&partition, &reader, committed);
            assigned.push((partition.clone(), position));
            let held = self.hold(partition, reader, position);
            self.held.push(held);
        }
        let generation = self.member.as_ref().map_or(0, |member| member.membership().generation);
        Ok(Polled::Assigned(Assignment { partitions: assigned, generation }))
    }

    /// What is there to be read now. Empty if nothing is.
    async fn fetch(&mut self) -> Result<Vec<ConsumedBatch>, BusError> {
        loop {
            let portions = self.portions();
            if portions.is_empty() {
                return Ok(Vec::new());
            }
            let inline = if self.behind { None } else { gather(portions.clone(), Effort::Inline) };
            let gathered = match inline {
                Some(gathered) => gathered,
                None => {
                    let effort = Effort::UpTo(self.settings.max_bytes);
                    // From here on to the end, nothing is awaited: a dropped poll leaves every position as it was.
                    let gathered = off_thread(move || Ok(gather(portions, effort))).await?;
                    let gathered = gathered.unwrap_or_default();
                    self.behind = gather_was_large(&gathered);
                    gathered
                }
            };
            let batches = self.settle(gathered)?;
            // Nothing, although there was something to read: a reset, or a gap that compaction left.
            if !batches.is_empty() {
                return Ok(batches);
            }
        }
    }

    /// The partitions that have something to read, beginning with the one whose turn it is.
    fn portions(&self) -> Vec<Portion> {
        let turn = self.turn.min(self.held.len());
        let (earlier, later) = self.held.split_at(turn);
        (turn..)
            .zip(later)
            .chain((0..).zip(earlier))
            .filter(|(_, held)| held.has_something())
            .map(|(slot, held)| Portion {
                slot,
                partition: held.partition.clone(),
                reader: held.reader.clone(),
                position: held.position,
            })
            .collect()
    }

    /// Takes over what was read: positions, the next turn, and what to do about a problem.
    fn settle(&mut self, gathered: Gathered) -> Result<Vec<ConsumedBatch>, BusError> {
        let slots = self.held.len().max(1);
        let failed = match gathered.problem {
            None => None,
            Some((slot, Problem::OutOfRange { start, end })) => {
                if let Some(held) = self.held.get(slot) {
                    let position = self.reset(&held.partition, &held.reader, held.position, start, end);
                    if let Some(held) = self.held.get_mut(slot) {
                        held.position = position;
                    }
                }
                None
            }
            // With records of others at hand, they come first, and the next poll begins with the failed partition.
            Some((slot, Problem::Failed(error))) => {
                self.turn = slot;
                Some(error)
            }
        };
        let had_failure = failed.is_some();
        if let Some(error) = failed
            && gathered.batches.is_empty()
            && gathered.positions.is_empty()
        {
            self.turn = (self.turn + 1) % slots;
            return Err(error);
        }
        for (slot, position) in gathered.positions {
            if let Some(held) = self.held.get_mut(slot) {
                held.position = position;
            }
        }
        if !had_failure {
            self.turn = (self.turn + 1) % slots;
        }
        Ok(gathered.batches.into_values().collect())
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn subscribe(&mut self, topics: &[&str]) -> Result<(), BusError> {
        self.check_open()?;
        let Some(group) = self.settings.group.clone() else {
            return Err(BusError::InvalidState("a consumer without a group can't subscribe".to_owned()));
        };
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        if let Some(member) = &mut self.member {
            return Ok(member.subscribe(&self.broker, &topics)?);
        }
        let settings = MemberSettings {
            group,
            client_id: self.settings.client_id.clone(),
            topics,
            session_timeout: self.settings.session_timeout,
            max_poll_interval: self.settings.max_poll_interval,
        };
        self.member = Some(self.broker.join(settings, Arc::clone(&self.waker))?);
        Ok(())
    }

    async fn assign(&mut self, partitions: Vec<(TopicPartition, StartAt)>) -> Result<(), BusError> {
        self.check_open()?;
        if self.settings.group.is_some() {
            return Err(BusError::InvalidState(
                "a consumer of a group can't be given partitions; the group assigns them".to_owned(),
            ));
        }
        let mut held = Vec::with_capacity(partitions.len());
        for (partition, start) in partitions {
            let reader = self.broker.reader(&partition)?;
            let position = match start {
                StartAt::Offset(offset) => offset.max(reader.start_offset()),
                StartAt::Earliest => reader.start_offset(),
                StartAt::Latest => reader.stable_offset(),
            };
            held.push(self.hold(partition, reader, position));
        }
        self.held = held;
        self.turn = 0;
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Polled, BusError> {
        let deadline = Instant::now() + timeout;
        if self.member.is_none() && self.held.is_empty() {
            self.check_open()?;
            return Err(BusError::InvalidState(
                "the consumer has neither subscribed nor been assigned".to_owned(),
            ));
        }
        loop {
            self.check_open()?;
            if let Some(news) = self.news()? {
                return Ok(news);
            }
            self.follow_topics();
            let batches = self.fetch().await?;
            let now = Instant::now();
            if !batches.is_empty() || now >= deadline {
                return Ok(Polled::Records(batches));
            }
            // A member that waits for long still polls its group, or it would be taken for stuck.
            let until = deadline.min(now + poll_pace(self.settings.max_poll_interval));
            tokio::select! {
                () = self.waker.notified() => {}
                Ok(()) = self.topic_changes.changed() => self.topic_changes.mark_changed(),
                () = tokio::time::sleep_until(until) => {}
                () = self.broker.closing().cancelled() => {}
            }
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.held.iter().find(|held| held.partition == *partition).map(|held| held.position)
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), BusError> {
        if offset < 0 {
            return Err(BusError::InvalidState(format!("offset {offset} of {partition} is negative")));
        }
        match self.held.iter_mut().find(|held| held.partition == *partition) {
            Some(held) => {
                held.position = offset;
                Ok(())
            }
            None => Err(BusError::InvalidState(format!("{partition} is not assigned to this consumer"))),
        }
    }

    async fn commit(&mut self, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), BusError> {
        self.check_open()?;
        check_offsets(&offsets)?;
        if self.member.is_none() {
            return Err(BusError::InvalidState("a consumer outside a group can't commit offsets".to_owned()));
        }
        let commit = OffsetCommit::by_owner(membership(self.group_metadata()), offsets);
        Ok(self.broker.commit_offsets(commit).await?)
    }

    fn group_metadata(&self) -> GroupMetadata {
        self.member.as_ref().map_or_else(GroupMetadata::default, |member| {
            let member = member.membership();
            GroupMetadata::new(member.group, member.member_id, member.generation)
        })
    }

    async fn close(&mut self) -> Result<(), BusError> {
        self.closed = true;
        self.held.clear();
        // Leaves the group.
        self.member = None;
        Ok(())
    }
}

/// Whether so much was read that the next read probably belongs off the async threads too.
fn gather_was_large(gathered: &Gathered) -> bool {
    !gathered.drained || gathered.bytes > super::fetch::INLINE_BYTES
}
