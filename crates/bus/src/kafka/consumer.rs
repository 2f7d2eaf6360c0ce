//! A consumer: its partitions, its place in the group, and its polls.
//!
//! Whatever waits for the network runs on a blocking thread, one thing at a time ([`Step`]), and its result is applied by the
//! poll that finds it done. A poll can therefore be dropped anywhere.

mod assignment;
mod context;
mod gather;
mod headers;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farol_broker::RebalanceRecord;
use farol_event::Timestamp;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{self, blocking};
use super::error::bus_error;
use super::{CALL_LIMIT, KafkaOptions, admin};
use crate::engine::{Assignment, BusError, Consumer, ConsumerSettings, GroupMetadata, Polled, StartAt};
use crate::record::{ConsumedBatch, ConsumedRecord, TopicPartition};
use assignment::Start;
use context::{GroupEvent, Told};
use gather::{Budget, Gathered, gather};

type Native = BaseConsumer<Told>;

/// What an async thread may take by itself: well under half a millisecond of copying.
const INLINE: Budget = Budget { records: 256, bytes: 128 * 1024 };
/// How many records one poll takes at most.
const MAX_RECORDS: usize = 100_000;
/// How long leaving the group may hold up a close. What isn't done then goes on in the background.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct KafkaConsumer {
    settings: ConsumerSettings,
    /// Gone when closed.
    native: Option<Arc<Native>>,
    told: Arc<Told>,
    /// Notified when there may be something to poll.
    waker: Arc<Notify>,
    rebalances: broadcast::Sender<RebalanceRecord>,
    subscribed: bool,
    held: BTreeMap<TopicPartition, Held>,
    /// Told to the user, and not yet answered to the group.
    revoking: Option<Vec<TopicPartition>>,
    seeks: BTreeMap<TopicPartition, i64>,
    assignments: i32,
    /// What was begun and is not applied yet.
    step: Option<JoinHandle<Result<Step, BusError>>>,
    /// What the step is about, to be begun anew if it fails.
    handling: Option<Handling>,
    /// The answer of a commit that nobody has heard the end of yet.
    committing: Option<oneshot::Receiver<Result<(), BusError>>>,
    gathered: Gathered,
}

/// A partition that this consumer reads.
struct Held {
    /// One after the last record that was polled, or where it was assigned or sought.
    next: i64,
    /// As far as everything has been polled: `next`, or what lies beyond it without records.
    position: i64,
    /// The end as last known.
    end: i64,
}

/// What a step is about.
enum Handling {
    Event(GroupEvent),
    Seeks(BTreeMap<TopicPartition, i64>),
}

/// The result of work on a blocking thread.
enum Step {
    Answered,
    Sought(Vec<(TopicPartition, i64)>),
    Started(Vec<Start>),
    Gathered(Gathered),
}

/// librdkafka's proof that somebody is a member of a group.
pub struct MemberProof {
    metadata: ConsumerGroupMetadata,
    consumer: Weak<Native>,
}

impl MemberProof {
    /// Whether it still proves something, as far as is known here; the coordinator has the last word.
    pub(super) fn holds(&self) -> bool {
        self.consumer.upgrade().is_some_and(|consumer| !consumer.assignment_lost())
    }

    pub(super) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.metadata
    }
}

impl std::fmt::Debug for MemberProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberProof").field("holds", &self.holds()).finish_non_exhaustive()
    }
}

impl KafkaConsumer {
    pub(super) fn new(
        options: &KafkaOptions,
        settings: ConsumerSettings,
        rebalances: broadcast::Sender<RebalanceRecord>,
    ) -> Result<Self, BusError> {
        let config = client::consumer_config(options, &settings);
        let mut native: Native = client::create(&config, Told::default())?;
        let waker = Arc::new(Notify::new());
        let woken = Arc::clone(&waker);
        native.set_nonempty_callback(move || woken.notify_one());
        let told = Arc::clone(native.context());
        Ok(Self {
            settings,
            native: Some(Arc::new(native)),
            told,
            waker,
            rebalances,
            subscribed: false,
            held: BTreeMap::new(),
            revoking: None,
            seeks: BTreeMap::new(),
            assignments: 0,
            step: None,
            handling: None,
            committing: None,
            gathered: Gathered::default(),
        })
    }

    fn native(&self) -> Result<&Arc<Native>, BusError> {
        self.native.as_ref().ok_or_else(|| BusError::InvalidState("the consumer is closed".to_owned()))
    }

    /// Begins something that waits. Only one thing is under way at a time: whoever begins has let the last one end.
    fn begin(
        &mut self,
        work: impl FnOnce(&Arc<Native>) -> Result<Step, BusError> + Send + 'static,
    ) -> Result<(), BusError> {
        let native = Arc::clone(self.native()?);
        self.step = Some(tokio::task::spawn_blocking(move || work(&native)));
        Ok(())
    }

    /// Waits for what was begun, and applies it. Dropped, it has changed nothing.
    async fn end_step(&mut self) -> Result<Option<Polled>, BusError> {
        let Some(step) = &mut self.step else { return Ok(None) };
        let done = step
            .await
            .unwrap_or_else(|error| Err(BusError::Unavailable(format!("the call was interrupted: {error}"))));
        self.step = None;
        let handling = self.handling.take();
        match done {
            Ok(Step::Answered) => {
                self.told.distrust();
                Ok(None)
            }
            Ok(Step::Sought(seeks)) => {
                for (partition, offset) in seeks {
                    self.moved_to(&partition, offset);
                }
                Ok(None)
            }
            Ok(Step::Gathered(gathered)) => {
                self.gathered = gathered;
                Ok(None)
            }
            Ok(Step::Started(starts)) => Ok(self.started(starts)),
            Err(error) => {
                match handling {
                    Some(Handling::Event(event)) => self.told.put_back(event),
                    Some(Handling::Seeks(mut seeks)) => {
                        // Newer ones count.
                        seeks.append(&mut self.seeks);
                        self.seeks = seeks;
                    }
                    None => {}
                }
                Err(error)
            }
        }
    }

    /// What the commit under way has come to. Dropped, or without an answer in time, it stays under way.
    async fn end_commit(&mut self) -> Result<Result<(), BusError>, BusError> {
        let Some(committing) = &mut self.committing else { return Ok(Ok(())) };
        let Ok(done) = tokio::time::timeout(CALL_LIMIT, committing).await else {
            let seconds = CALL_LIMIT.as_secs();
            return Err(BusError::Unavailable(format!("the offsets: no answer within {seconds} s")));
        };
        self.committing = None;
        Ok(done.unwrap_or_else(|_| Err(BusError::Unavailable("the commit was interrupted".to_owned()))))
    }

    fn moved_to(&mut self, partition: &TopicPartition, offset: i64) {
        self.told.distrust();
        if let Some(held) = self.held.get_mut(partition) {
            (held.next, held.position) = (offset, offset);
        }
    }

    /// Takes over partitions that the group has given.
    fn started(&mut self, starts: Vec<Start>) -> Option<Polled> {
        self.assignments = self.assignments.saturating_add(1);
        self.told.distrust();
        let before = self.owned();
        let mut partitions = Vec::with_capacity(starts.len());
        for start in starts {
            partitions.push((start.partition.clone(), start.offset));
            self.hold(start);
        }
        if partitions.is_empty() {
            return None;
        }
        self.record_rebalance(before);
        Some(Polled::Assigned(Assignment { partitions, generation: self.assignments }))
    }

    fn hold(&mut self, start: Start) {
        self.told.distrust();
        let held = Held { next: start.offset, position: start.offset, end: start.end };
        self.held.insert(start.partition, held);
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    /// Tells whoever listens how this member's partitions have changed; of the others' nothing is known.
    fn record_rebalance(&self, before: Vec<TopicPartition>) {
        let Some(group) = &self.settings.group else { return };
        let now = Timestamp::from_system_time(SystemTime::now());
        let of_this_member = |owned| BTreeMap::from([(self.settings.client_id.clone(), owned)]);
        // Nobody may listen.
        let _ = self.rebalances.send(RebalanceRecord {
            group: group.clone(),
            generation: self.assignments,
            began_at: now,
            completed_at: now,
            causes: Vec::new(),
            more_causes: 0,
            before: of_this_member(before),
            after: of_this_member(self.owned()),
            paused: BTreeMap::new(),
        });
    }

    /// What the group has decided, as far as a poll has brought it.
    fn handle(&mut self, event: GroupEvent) -> Result<Option<Polled>, BusError> {
        match event {
            GroupEvent::Assigned(partitions) => {
                self.handling = Some(Handling::Event(GroupEvent::Assigned(partitions.clone())));
                let reset = self.settings.offset_reset;
                self.begin(move |native| {
                    assignment::take_over(native, partitions, reset).map(Step::Started)
                })?;
                Ok(None)
            }
            GroupEvent::Revoked(partitions) => {
                let before = self.owned();
                for partition in &partitions {
                    self.held.remove(partition);
                    self.seeks.remove(partition);
                }
                self.revoking = Some(partitions.clone());
                self.record_rebalance(before);
                // An empty one needs an answer, too, and no user.
                Ok((!partitions.is_empty()).then_some(Polled::Revoked(partitions)))
            }
        }
    }

    /// Turns what was gathered into what a poll gives.
    fn take_gathered(&mut self) -> Result<Vec<ConsumedBatch>, BusError> {
        let Gathered { batches, drained, problem, .. } = std::mem::take(&mut self.gathered);
        let mut taken = Vec::with_capacity(batches.len());
        for (partition, records) in batches {
            for records in rising(records) {
                // Gone in the meantime: its next owner reads it.
                let Some(held) = self.held.get_mut(&partition) else { break };
                let Some((first, last)) = records.first().zip(records.last()) else { continue };
                if first.offset < held.next {
                    // librdkafka, which never gives a record twice, has found the log to end before this offset and begun anew: it
                    // lost its tail, or another topic has the name now.
                    tracing::warn!(%partition, offset = held.next, position = first.offset, "reads on before what was read");
                    self.told.distrust();
                    (held.position, held.end) = (first.offset, first.offset);
                }
                held.next = last.offset + 1;
                held.position = held.position.max(held.next);
                if let Some(end) = self.told.end(&partition) {
                    held.end = held.end.max(end.stable);
                }
                held.end = held.end.max(held.position);
                let (next_offset, end_offset) = (held.next, held.end);
                taken.push(ConsumedBatch { partition: partition.clone(), records, next_offset, end_offset });
            }
        }
        if drained {
            self.skip_markers();
        }
        match problem {
            Some(problem) if taken.is_empty() => Err(problem),
            Some(problem) => {
                // What was read comes first.
                self.gathered.problem = Some(problem);
                Ok(taken)
            }
            None => Ok(taken),
        }
    }

    /// Whatever was fetched has been taken, so what the fetcher had reached by the last report has been read.
    fn skip_markers(&mut self) {
        if !self.told.trusted() {
            return;
        }
        for (partition, held) in &mut self.held {
            if let Some(end) = self.told.end(partition) {
                held.position = held.position.max(end.reached);
            }
        }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn subscribe(&mut self, topics: &[&str]) -> Result<(), BusError> {
        if self.settings.group.is_none() {
            return Err(BusError::InvalidState("a consumer without a group can't subscribe".to_owned()));
        }
        let (native, topics) = (Arc::clone(self.native()?), topics.iter().map(|t| (*t).to_owned()).collect());
        blocking(move || {
            let topics: Vec<String> = topics;
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            native.subscribe(&names).map_err(|error| bus_error(&error, &names.join(", ")))
        })
        .await?;
        self.subscribed = true;
        Ok(())
    }

    async fn assign(&mut self, partitions: Vec<(TopicPartition, StartAt)>) -> Result<(), BusError> {
        self.native()?;
        if self.settings.group.is_some() {
            return Err(BusError::InvalidState(
                "a consumer of a group can't be given partitions; the group assigns them".to_owned(),
            ));
        }
        self.end_step().await?;
        self.begin(move |native| assignment::assign(native, partitions).map(Step::Started))?;
        let done = match &mut self.step {
            Some(step) => step.await,
            None => return Ok(()),
        };
        self.step = None;
        let done =
            done.map_err(|error| BusError::Unavailable(format!("the call was interrupted: {error}")))?;
        if let Step::Started(starts) = done? {
            self.held.clear();
            self.seeks.clear();
            self.gathered = Gathered::default();
            starts.into_iter().for_each(|start| self.hold(start));
        }
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> Result<Polled, BusError> {
        let deadline = Instant::now() + timeout;
        if !self.subscribed && self.held.is_empty() && self.step.is_none() {
            self.native()?;
            return Err(BusError::InvalidState(
                "the consumer has neither subscribed nor been assigned".to_owned(),
            ));
        }
        loop {
            if let Some(polled) = self.end_step().await? {
                return Ok(polled);
            }
            if !self.gathered.is_empty() {
                let batches = self.take_gathered()?;
                if !batches.is_empty() {
                    return Ok(Polled::Records(batches));
                }
            }
            if let Some(revoked) = self.revoking.take() {
                self.handling = Some(Handling::Event(GroupEvent::Revoked(revoked.clone())));
                self.begin(move |native| assignment::give_up(native, &revoked).map(|()| Step::Answered))?;
                continue;
            }
            if !self.seeks.is_empty() {
                let seeks = std::mem::take(&mut self.seeks);
                self.handling = Some(Handling::Seeks(seeks.clone()));
                self.begin(move |native| assignment::seek(native, seeks).map(Step::Sought))?;
                continue;
            }
            if let Some(event) = self.told.next_event() {
                if let Some(polled) = self.handle(event)? {
                    return Ok(polled);
                }
                continue;
            }
            let native = Arc::clone(self.native()?);
            let mut gathered = std::mem::take(&mut self.gathered);
            let inline = Budget { bytes: INLINE.bytes.min(self.settings.max_bytes), ..INLINE };
            gather(&native, &self.told, inline, &mut gathered);
            let full = gathered.bytes >= self.settings.max_bytes;
            if !(gathered.drained || full || gathered.problem.is_some() || self.told.has_event()) {
                // There is more than an async thread should copy.
                let (told, bytes) = (Arc::clone(&self.told), self.settings.max_bytes);
                self.begin(move |native| {
                    gather(native, &told, Budget { records: MAX_RECORDS, bytes }, &mut gathered);
                    Ok(Step::Gathered(gathered))
                })?;
                continue;
            }
            if !gathered.is_empty() {
                self.gathered = gathered;
                continue;
            }
            if self.told.has_event() {
                continue;
            }
            self.skip_markers();
            let now = Instant::now();
            if now >= deadline {
                return Ok(Polled::Records(Vec::new()));
            }
            // librdkafka takes whoever doesn't come for news for stuck, so somebody who waits for long comes now and then.
            let pace = (self.settings.max_poll_interval / 4)
                .clamp(Duration::from_millis(10), Duration::from_secs(1));
            tokio::select! {
                () = self.waker.notified() => {}
                () = tokio::time::sleep_until(deadline.min(now + pace)) => {}
            }
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let underway = match &self.handling {
            Some(Handling::Seeks(seeks)) => seeks.get(partition),
            _ => None,
        };
        let sought = self.seeks.get(partition).or(underway).copied();
        sought.or_else(|| self.held.get(partition).map(|held| held.position))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), BusError> {
        if offset < 0 {
            return Err(BusError::InvalidState(format!("offset {offset} of {partition} is negative")));
        }
        if !self.held.contains_key(partition) {
            return Err(BusError::InvalidState(format!("{partition} is not assigned to this consumer")));
        }
        // What was taken and not given yet is from before.
        self.gathered.batches.retain(|(gathered, _)| gathered != partition);
        self.seeks.insert(partition.clone(), offset);
        Ok(())
    }

    async fn commit(&mut self, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), BusError> {
        let native = Arc::clone(self.native()?);
        if let Some((partition, offset)) = offsets.iter().find(|(_, offset)| **offset < 0) {
            return Err(BusError::InvalidState(format!("offset {offset} of {partition} is negative")));
        }
        if self.settings.group.is_none() || !self.subscribed {
            return Err(BusError::InvalidState("a consumer outside a group can't commit offsets".to_owned()));
        }
        // Without this librdkafka would commit as somebody who is in no group, and be believed.
        if native.assignment_lost() || (self.held.is_empty() && self.revoking.is_none()) {
            return Err(BusError::Fenced(format!("`{}` owns no partition", self.settings.client_id)));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        // While the coordinator is away librdkafka keeps a commit for minutes. One that comes late must not undo a newer one.
        if self.committing.is_some() {
            // Whoever began it has gone, or was told that there was no answer.
            let _ = self.end_commit().await?;
        }
        let (answer, answered) = oneshot::channel();
        // No thread of the runtime's, which would wait for it when it ends.
        std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || {
                let offsets = offsets.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset)));
                let committed = admin::list(offsets).and_then(|list| {
                    native.commit(&list, CommitMode::Sync).map_err(|error| bus_error(&error, "the offsets"))
                });
                // Nobody may wait for it any more.
                let _ = answer.send(committed);
            })
            .map_err(|error| BusError::Unavailable(format!("a thread for the commit: {error}")))?;
        self.committing = Some(answered);
        self.end_commit().await?
    }

    fn group_metadata(&self) -> GroupMetadata {
        let Some((native, group)) = self.native.as_ref().zip(self.settings.group.clone()) else {
            return GroupMetadata::default();
        };
        let holds = !self.held.is_empty() || self.revoking.is_some();
        let proof = holds.then(|| native.group_metadata()).flatten();
        GroupMetadata {
            proof: proof.map(|metadata| Arc::new(MemberProof { metadata, consumer: Arc::downgrade(native) })),
            ..GroupMetadata::new(group, self.settings.client_id.clone(), self.assignments)
        }
    }

    async fn close(&mut self) -> Result<(), BusError> {
        self.told.close();
        // What was begun ends by itself.
        self.step = None;
        self.held.clear();
        if let Some(native) = self.native.take() {
            let left = tokio::task::spawn_blocking(move || drop(native));
            if tokio::time::timeout(CLOSE_LIMIT, left).await.is_err() {
                tracing::debug!(client_id = self.settings.client_id, "still leaving its group");
            }
        }
        Ok(())
    }
}

impl Drop for KafkaConsumer {
    /// Leaving takes a moment, which nobody has to wait for.
    fn drop(&mut self) {
        self.told.close();
        if let Some(native) = self.native.take() {
            std::thread::spawn(move || drop(native));
        }
    }
}

/// Cuts where the offset doesn't rise: the log was found to end before what was read of it, and is read anew.
fn rising(mut records: Vec<ConsumedRecord>) -> Vec<Vec<ConsumedRecord>> {
    let mut runs = Vec::with_capacity(1);
    while let Some(cut) = records.windows(2).position(|pair| matches!(pair, [a, b] if b.offset <= a.offset)) {
        let rest = records.split_off(cut + 1);
        runs.push(std::mem::replace(&mut records, rest));
    }
    runs.push(records);
    runs
}
