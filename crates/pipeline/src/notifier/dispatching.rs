//! The notifier as a processor: alerts and silences in, notifications by routes out.
//!
//! The only member of consumer group [`GROUP`] reads all of `alerts` and what `system-events` tells of silences, and lets a
//! [`Dispatcher`] decide. What the dispatcher must not forget goes to the compacted topic `notifier-state`, in one transaction with the
//! offsets: a crash neither loses an alert nor forgets what was told. A notification counts as told when its delivery has been
//! committed; one that was on its way in a crash is sent again, under the same id.
//!
//! At the first start it reads both topics from their beginning, so that it knows what fires and what is silenced. Whenever it has started,
//! it says nothing until it has read what was there: an alert that resolved meanwhile is no news.
//!
//! Nothing here waits for a receiver: notifications are on their way in tasks of their own, as many for each receiver as have a place, and
//! what finds none stays due in the dispatcher.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_alert::dispatch::ReceiverRules;
use farol_alert::group::Ended;
use farol_alert::notification::ToldTransition;
use farol_alert::route::GroupKey;
use farol_alert::silence::SilenceFact;
use farol_alert::{DeliveryRecord, Dispatcher, InhibitRule, Routes, from_event};
use farol_bus::{
    Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, OffsetSpec, Polled,
    ProducerRecord, StartAt, TopicPartition, TransactionalProducer,
};
use farol_event::{Event, EventHead, EventType};
use farol_log::Trouble;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::{Progress, keep_reporting};
use super::receiver::Receiver;
use super::silences::{KEEP_ENDED, SharedSilences};
use crate::detect_partition::read_range;
use crate::supervision::{caught, unless_it_panics};
use crate::system_events::{SystemEvents, now};
use crate::topics::{NOTIFIER_STATE, SYSTEM_EVENTS};

/// The consumer group, the transactional id and the name among consumers.
pub(crate) const GROUP: &str = "notifier";
/// The key of the record that marks the end of the state to be read back.
const BARRIER_KEY: &[u8] = b"b";
/// The longest wait for records when nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long offsets stay uncommitted when nothing depends on them.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How often silences that are over are forgotten.
const FORGETTING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a failed run waits before the next.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Dispatching {
    pub(super) bus: Arc<dyn Bus>,
    /// The name of topic `alerts`.
    pub(super) alerts: String,
    pub(super) events: SystemEvents,
    pub(super) silences: SharedSilences,
    pub(super) routes: Routes,
    pub(super) inhibit: Vec<InhibitRule>,
    pub(super) rules: BTreeMap<String, ReceiverRules>,
    pub(super) receivers: BTreeMap<String, Arc<Receiver>>,
    /// That it is held up.
    pub(super) held_up: Trouble,
}

/// One run, from what was committed.
struct Run<'a> {
    of: &'a Dispatching,
    dispatcher: Dispatcher,
    on_their_way: JoinSet<(GroupKey, Ended)>,
    uncommitted: BTreeMap<TopicPartition, i64>,
    /// What was there when it started and is still to be read; nothing before the first assignment.
    to_catch_up: Option<BTreeMap<TopicPartition, i64>>,
    last_commit: Instant,
    last_forgetting: Instant,
}

impl Dispatching {
    /// Runs until told to stop. Whatever fails is started again from what was committed.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match caught(self.follow(&stop)).await {
                Ok(()) => return,
                Err(BusError::Closed) if stop.is_cancelled() => return,
                Err(error) => {
                    if let Some(untold) = self.held_up.again(std::time::Instant::now()) {
                        tracing::error!(%error, untold, retry_in = ?RESTART_PAUSE, "notifications by routes are held up");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    async fn follow(&self, stop: &CancellationToken) -> Result<(), BusError> {
        // First, because it settles what an earlier run may have left open.
        let mut producer = self.bus.transactional_producer(GROUP).await?;
        let dispatcher = self.load().await?;
        self.silences.replace(dispatcher.silences());
        let mut consumer = self
            .bus
            .consumer(ConsumerSettings {
                offset_reset: OffsetReset::Earliest,
                max_bytes: 1024 * 1024,
                ..ConsumerSettings::member(GROUP, GROUP)
            })
            .await?;
        consumer.subscribe(&[&self.alerts, SYSTEM_EVENTS]).await?;
        let progress = Mutex::new(Progress::default());
        let mut run = Run {
            of: self,
            dispatcher,
            on_their_way: JoinSet::new(),
            uncommitted: BTreeMap::new(),
            to_catch_up: None,
            last_commit: Instant::now(),
            last_forgetting: Instant::now(),
        };
        let outcome = tokio::select! {
            outcome = run.go(consumer.as_mut(), producer.as_mut(), &progress, stop) => outcome,
            () = keep_reporting(&self.events, GROUP, &progress) => Ok(()),
        };
        let closed = consumer.close().await;
        outcome.and(closed)
    }

    /// How many notifications more a receiver takes at present.
    fn room(&self, receiver: &str) -> usize {
        self.receivers.get(receiver).map_or(0, |receiver| receiver.line.room())
    }

    /// The dispatcher as it stood when it last committed.
    async fn load(&self) -> Result<Dispatcher, BusError> {
        let mut dispatcher = Dispatcher::new(self.routes.clone(), self.inhibit.clone(), self.rules.clone());
        let partition = TopicPartition::new(NOTIFIER_STATE, 0);
        let barrier = ProducerRecord::new(BARRIER_KEY, bytes::Bytes::new(), now());
        let written = self.events.producer().send(NOTIFIER_STATE, vec![barrier]).await?;
        let end = written.first().map_or(0, |barrier| barrier.offset + 1);
        // Older records of a key stand before newer ones until compaction has passed: the last one counts.
        let mut newest = BTreeMap::new();
        let keep = |record: &ConsumedRecord| {
            let Some(key) = record.key.clone().filter(|key| key != BARRIER_KEY) else { return };
            match &record.value {
                Some(value) => newest.insert(key, value.clone()),
                None => newest.remove(&key),
            };
        };
        read_range(self.bus.as_ref(), "notifier-state", &partition, StartAt::Earliest, end, keep).await?;
        for (key, value) in newest {
            if let Err(problem) = dispatcher.restore(&value) {
                let key = String::from_utf8_lossy(&key);
                tracing::error!(%key, problem, "damaged state of the notifier skipped; an alert may be told again");
            }
        }
        dispatcher.restored(now());
        Ok(dispatcher)
    }
}

impl Run<'_> {
    async fn go(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
        progress: &Mutex<Progress>,
        stop: &CancellationToken,
    ) -> Result<(), BusError> {
        while !stop.is_cancelled() {
            let caught_up = self.has_caught_up(consumer);
            if caught_up {
                self.send_what_is_due().await;
            }
            self.commit_if_needed(consumer, producer).await?;
            let room = |receiver: &str| if caught_up { self.of.room(receiver) } else { 0 };
            let due_in = self.dispatcher.next_due(room).map(|due| due.since(now()));
            let wait = due_in.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
            tokio::select! {
                polled = consumer.poll(wait) => self.take(consumer, polled?, progress).await?,
                Some(ended) = self.on_their_way.join_next() => self.ended(ended),
                () = stop.cancelled() => break,
            }
        }
        // What is on its way is given up here and sent again by the next start; what was told is kept.
        while let Some(ended) = self.on_their_way.try_join_next() {
            self.ended(ended);
        }
        self.commit(consumer, producer).await
    }

    /// Whether it has read all that was there when it started.
    fn has_caught_up(&mut self, consumer: &dyn Consumer) -> bool {
        let Some(ends) = &mut self.to_catch_up else { return false };
        ends.retain(|partition, end| consumer.position(partition).is_some_and(|position| position < *end));
        ends.is_empty()
    }

    async fn send_what_is_due(&mut self) {
        let due = self.dispatcher.due(now(), |receiver| self.of.room(receiver));
        for notification in due.notifications {
            let Some(receiver) = self.of.receivers.get(&notification.group.receiver) else { continue };
            let group = notification.group.clone();
            let Some(place) = receiver.line.try_place() else {
                // There was room when it was asked for, and nobody else takes any.
                self.dispatcher.ended(&group, Ended::GaveUp, now());
                continue;
            };
            let receiver = Arc::clone(receiver);
            self.on_their_way.spawn(on_its_way(group, async move {
                let _place = place;
                receiver.deliver(&notification).await
            }));
        }
        for held in due.held_back {
            let Some(receiver) = self.of.receivers.get(&held.receiver) else { continue };
            let (channel, target) = receiver.channel_and_target();
            let told = ToldTransition::of(&held.alert);
            let record =
                DeliveryRecord { target, ..DeliveryRecord::held_back(told, channel, &held.suppression) };
            self.of.events.announce(EventType::NOTIFICATION_ATTEMPTED, &held.alert.series, &record).await;
        }
        if self.last_forgetting.elapsed() >= FORGETTING_INTERVAL {
            self.last_forgetting = Instant::now();
            self.dispatcher.forget_silences(now().saturating_sub(KEEP_ENDED));
        }
    }

    fn ended(&mut self, ended: Result<(GroupKey, Ended), tokio::task::JoinError>) {
        // Nobody aborts them while there is somebody to hear of it, and panics don't get here.
        let Ok((group, how)) = ended else { return };
        self.dispatcher.ended(&group, how, now());
    }

    async fn take(
        &mut self,
        consumer: &mut dyn Consumer,
        polled: Polled,
        progress: &Mutex<Progress>,
    ) -> Result<(), BusError> {
        match polled {
            // Where it begins is remembered at once: alerts that come while it is down are owed.
            Polled::Assigned(assignment) => {
                progress.lock().gain(&assignment.partitions);
                let gained: Vec<_> =
                    assignment.partitions.iter().map(|(partition, _)| partition.clone()).collect();
                let ends = self.of.bus.offsets(&gained, OffsetSpec::Latest).await?;
                self.to_catch_up.get_or_insert_default().extend(ends);
                consumer.commit(assignment.partitions.into_iter().collect()).await?;
            }
            Polled::Revoked(lost) => {
                progress.lock().lose(&lost);
                self.uncommitted.retain(|partition, _| !lost.contains(partition));
            }
            Polled::Records(batches) => {
                let mut silenced = false;
                for batch in &batches {
                    let alerts = *batch.partition.topic == *self.of.alerts;
                    for record in &batch.records {
                        if alerts {
                            self.transition(record);
                        } else {
                            silenced |= self.silence(record);
                        }
                    }
                    self.uncommitted.insert(batch.partition.clone(), batch.next_offset);
                }
                if silenced {
                    self.of.silences.replace(self.dispatcher.silences());
                }
                progress.lock().done(&batches);
            }
        }
        Ok(())
    }

    fn transition(&mut self, record: &ConsumedRecord) {
        let event = record.value.as_deref().and_then(|value| Event::parse(value, record.timestamp()).ok());
        let Some(transition) = event.and_then(|event| from_event(&event).ok()) else { return };
        if let Err(error) = self.dispatcher.apply(&transition, now()) {
            tracing::error!(%error, "an alert is not followed");
        }
    }

    /// Whether it changed anything.
    fn silence(&mut self, record: &ConsumedRecord) -> bool {
        // Nearly all events are about something else, and their type tells so without reading them whole.
        let Some(value) = record.value.as_deref() else { return false };
        if !EventHead::parse(value).is_some_and(|head| SilenceFact::is_told_by(&head.event_type)) {
            return false;
        }
        let event = Event::parse(value, record.timestamp()).ok();
        match event.as_ref().map(SilenceFact::of_event) {
            Some(Ok(Some(fact))) => self.dispatcher.apply_silence(&fact),
            Some(Err(problem)) => {
                tracing::error!(
                    offset = record.offset,
                    problem,
                    "a silence can't be read; it is not in force"
                );
                false
            }
            None | Some(Ok(None)) => false,
        }
    }

    async fn commit_if_needed(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
    ) -> Result<(), BusError> {
        let overdue = !self.uncommitted.is_empty() && self.last_commit.elapsed() >= COMMIT_INTERVAL;
        if self.dispatcher.has_changed() || overdue { self.commit(consumer, producer).await } else { Ok(()) }
    }

    /// Commits what changed and the offsets together.
    async fn commit(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
    ) -> Result<(), BusError> {
        let (changed, offsets) = (self.dispatcher.take_changed(), std::mem::take(&mut self.uncommitted));
        self.last_commit = Instant::now();
        if changed.is_empty() && offsets.is_empty() {
            return Ok(());
        }
        let at = now();
        let record = |saved: farol_alert::dispatch::SavedRecord| {
            let value = saved.value.map(bytes::Bytes::from);
            ProducerRecord { value, ..ProducerRecord::new(saved.key.into_bytes(), Vec::new(), at) }
        };
        producer.begin()?;
        if !changed.is_empty() {
            producer.send(NOTIFIER_STATE, changed.into_iter().map(record).collect()).await?;
        }
        if !offsets.is_empty() {
            producer.send_offsets(offsets, &consumer.group_metadata()).await?;
        }
        producer.commit().await?;
        if self.of.held_up.is_over() {
            tracing::warn!("notifications by routes go on");
        }
        Ok(())
    }
}

/// How the notification of a group ended. One that panics counts as given up: it is due again with the group's next look, and keeps
/// neither the group nor its place among those of the receiver.
async fn on_its_way(group: GroupKey, delivering: impl Future<Output = Ended>) -> (GroupKey, Ended) {
    (group, unless_it_panics(delivering).await.unwrap_or(Ended::GaveUp))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notification_whose_task_panics_ends_as_given_up_and_says_of_which_group() {
        let group = GroupKey { route: "{}".into(), receiver: "ops".into(), labels: BTreeMap::new() };
        let mut tasks = JoinSet::new();
        tasks.spawn(on_its_way(group.clone(), async { panic!("a defect") }));
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), (group, Ended::GaveUp));
    }
}
