//! The detect processor: readings or services' events in (`intake`), alert transitions out, exactly once. What is said of
//! readings here holds for events, too.
//!
//! # What commits together
//! Alert transitions, dead letters, detector state and consumed offsets go into one bus transaction. When a poll's
//! readings brought no transition and no dead letter, nothing that anybody could see depends on the commit, so the
//! offsets wait for the next transaction, [`WorkerSettings::commit_interval`] at most: a crash in between only means
//! that the same readings are evaluated again, with the same (empty) outcome.
//!
//! # State
//! A series' state is written whenever the series made a transition, and for every changed series each
//! [`WorkerSettings::state_interval`]. A marker record says up to which offset *all* series are written. Whoever takes
//! a partition over restores the newest state of every series, then reads the readings from the marker to the
//! committed offset again and applies them silently; a series skips what its state has already seen. Detection is a
//! pure fold, so this gives the state that the previous owner had when it committed. (If rules were edited while the process was
//! down, the readings between marker and commit, seconds at most, are not applied again: under other rules they would give another past.)
//!
//! # Fencing
//! A commit that carries an older generation is refused by the bus as a whole. The worker then forgets the partition's
//! state and waits for its new assignment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use farol_bus::{
    Assignment, Bus, BusError, ConsumedBatch, Consumer, ConsumerSettings, OffsetReset, OffsetSpec, Polled,
    ProducerRecord, TopicDescription, TopicPartition, TransactionalProducer,
};
use farol_event::Timestamp;
use farol_resilience::Retry;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::detect_partition::{Applied, DetectPartition, Outcome};
use crate::heartbeat::Heartbeat;
use crate::intake::Intake;
use crate::rules::{RulesHandle, RulesInForce};
use crate::system_events::{SystemEvents, now};
use crate::topics::{DEAD_LETTERS, TopicNames};

/// How often sensors that fell silent long ago are looked for.
const FORGETTING_INTERVAL: Duration = Duration::from_secs(3600);

/// How workers behave.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The consumer group that reads readings.
    pub group: String,
    /// The consumer group that reads what events tell of services.
    pub services_group: String,
    /// Topic names.
    pub topics: TopicNames,
    /// The longest time that consumed offsets stay uncommitted when nothing visible depends on them.
    pub commit_interval: Duration,
    /// How often changed detector state is written.
    pub state_interval: Duration,
    /// How often the passing of time is looked at (absence of data).
    pub tick_interval: Duration,
    /// How often a worker publishes its heartbeat.
    pub heartbeat_interval: Duration,
    /// A worker that has not been heard of for this long loses its partitions.
    pub session_timeout: Duration,
    /// A sensor without an active alert of which nothing arrived for this long is forgotten; its next reading makes it new.
    pub forget_after: Duration,
    /// How many bytes of records one poll takes at most: bounds the memory of a transaction.
    pub poll_bytes: usize,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            group: "sensor-processors".into(),
            services_group: "service-processors".into(),
            topics: TopicNames::default(),
            commit_interval: Duration::from_secs(1),
            state_interval: Duration::from_secs(5),
            tick_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(2),
            session_timeout: Duration::from_secs(10),
            forget_after: Duration::from_secs(30 * 24 * 3600),
            poll_bytes: 1024 * 1024,
        }
    }
}

/// What every worker of a process shares.
pub(crate) struct WorkerDeps {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) rules: Arc<RulesHandle>,
    pub(crate) events: SystemEvents,
    pub(crate) settings: WorkerSettings,
    /// When this process began to take readings.
    pub(crate) started_at: Timestamp,
    /// When a worker that failed is started again.
    pub(crate) retry: Retry,
    /// Who is told what happens to workers.
    pub(crate) observer: Observer,
}

/// What happens to a worker.
#[derive(Debug)]
pub enum WorkerNews<'a> {
    /// It has connected and waits for partitions.
    Joining,
    /// These partitions are its, and their state is restored.
    Gained(&'a [TopicPartition]),
    /// These are no longer its.
    Lost(&'a [TopicPartition]),
    /// It evaluates other rules from now on.
    Rules(&'a RulesInForce),
    /// It has failed and is started again after a pause.
    Failed {
        /// Why.
        error: &'a BusError,
        /// The pause.
        retry_in: Duration,
    },
    /// It had failed, and has not done so for a while.
    Recovered,
}

/// A worker as a member of one consumer group. Every worker is one of two groups: that of readings and that of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The worker's name.
    pub worker: &'a str,
    /// The group.
    pub group: &'a str,
}

/// Somebody who is told what happens to workers.
pub type Observer = Arc<dyn Fn(Member<'_>, WorkerNews<'_>) + Send + Sync>;

/// One run of one worker, from joining the group to leaving it.
pub(crate) struct DetectWorker {
    deps: Arc<WorkerDeps>,
    intake: Intake,
    name: String,
    rules: Arc<RulesInForce>,
    partitions: BTreeMap<i32, DetectPartition>,
    /// Partitions whose offsets moved since the last commit.
    uncommitted: BTreeSet<i32>,
    last_commit: Instant,
    /// Nothing before the first one: the first commit writes a marker.
    last_state_flush: Option<Instant>,
    last_forgetting: Instant,
    progress: Progress,
}

/// What a heartbeat tells.
struct Progress {
    processed: u64,
    processed_at_last_heartbeat: u64,
    last_heartbeat: Instant,
    errors: u64,
    lag: HashMap<i32, Lag>,
}

#[derive(Clone, Copy, Default)]
struct Lag {
    records: i64,
    newest_record_ms: i64,
}

impl DetectWorker {
    pub(crate) fn new(deps: Arc<WorkerDeps>, intake: Intake, name: &str, errors: u64) -> Self {
        let start = Instant::now();
        Self {
            rules: deps.rules.current(),
            deps,
            intake,
            name: name.into(),
            partitions: BTreeMap::new(),
            uncommitted: BTreeSet::new(),
            last_commit: start,
            last_state_flush: None,
            last_forgetting: start,
            progress: Progress {
                processed: 0,
                processed_at_last_heartbeat: 0,
                last_heartbeat: start,
                errors,
                lag: HashMap::new(),
            },
        }
    }

    /// Runs until told to stop, then commits and leaves the group.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), BusError> {
        let settings = &self.deps.settings;
        let group = self.intake.group(settings);
        let mut producer = self.deps.bus.transactional_producer(&format!("{group}-{}", self.name)).await?;
        let mut consumer = self
            .deps
            .bus
            .consumer(ConsumerSettings {
                session_timeout: settings.session_timeout,
                max_bytes: settings.poll_bytes,
                offset_reset: OffsetReset::Earliest,
                ..ConsumerSettings::member(&self.name, group)
            })
            .await?;
        consumer.subscribe(&[self.intake.topic(settings)]).await?;
        self.tell(WorkerNews::Joining);
        let outcome = self.work(consumer.as_mut(), producer.as_mut(), stop).await;
        let closed = consumer.close().await;
        outcome.and(closed)
    }

    fn tell(&self, news: WorkerNews<'_>) {
        let group = self.intake.group(&self.deps.settings);
        (self.deps.observer)(Member { worker: &self.name, group }, news);
    }

    async fn work(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
        stop: &CancellationToken,
    ) -> Result<(), BusError> {
        let tick_interval = self.deps.settings.tick_interval;
        let mut next_tick = Instant::now() + tick_interval;
        self.heartbeat().await;
        while !stop.is_cancelled() {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let polled = tokio::select! {
                polled = consumer.poll(wait) => polled?,
                () = stop.cancelled() => break,
            };
            match polled {
                Polled::Assigned(assignment) => {
                    // Under older rules, alerts of newer ones would look like alerts of rules that are gone.
                    self.follow_rules(consumer, producer).await?;
                    self.take_over(assignment).await?;
                    self.heartbeat().await;
                }
                Polled::Revoked(lost) => {
                    for partition in &lost {
                        self.forget(partition.partition);
                    }
                    self.tell(WorkerNews::Lost(&lost));
                    self.heartbeat().await;
                }
                Polled::Records(batches) => {
                    // After the poll, not before: whoever sees new rules in force and then sends a reading expects it to be
                    // evaluated under them.
                    self.follow_rules(consumer, producer).await?;
                    self.process(consumer, producer, batches).await?;
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + tick_interval;
                self.tick(consumer, producer).await?;
            }
        }
        // Leaving in order: the next owner then has nothing to apply again.
        self.commit(consumer, producer, Outcome::default(), Flush::All).await?;
        self.partitions.clear();
        self.heartbeat().await;
        Ok(())
    }

    /// What the rules remember of a partition, up to `offset`; `partitions` are all that the topic has.
    async fn load(
        &self,
        partition: &TopicPartition,
        partitions: i32,
        offset: i64,
    ) -> Result<DetectPartition, BusError> {
        let read = (self.intake, partition, partitions);
        DetectPartition::load(&self.deps, &self.name, read, offset, &self.rules).await
    }

    async fn take_over(&mut self, assignment: Assignment) -> Result<(), BusError> {
        let mut gained = Vec::with_capacity(assignment.partitions.len());
        let partitions = self.follow_partitions().await?;
        // A topic that gets more partitions makes its group rebalance: those that are held hear of it, too.
        self.partitions.values_mut().for_each(|held| held.partitions_are(partitions));
        for (partition, offset) in assignment.partitions {
            let began = Instant::now();
            let state = self.load(&partition, partitions, offset).await?;
            tracing::info!(
                worker = %self.name, %partition, offset, series = state.series(), took = ?began.elapsed(), "took over"
            );
            self.partitions.insert(partition.partition, state);
            gained.push(partition);
        }
        self.tell(WorkerNews::Gained(&gained));
        Ok(())
    }

    /// Sees to it that the topic of the state has as many partitions as the topic, which somebody may have given more. How many
    /// those are, as [`Self::count_partitions`] says it.
    async fn follow_partitions(&self) -> Result<i32, BusError> {
        let topics = self.deps.bus.topics().await?;
        let (topic, state) = (self.intake.topic(&self.deps.settings), self.intake.state_topic());
        let partitions = count_of(&topics, topic);
        if count_of(&topics, state) < partitions {
            self.deps.bus.grow_topic(state, partitions).await?;
            tracing::info!(worker = %self.name, topic, state, partitions, "the state follows a topic that has grown");
        }
        Ok(if self.intake == Intake::Readings { 0 } else { partitions })
    }

    /// How many partitions the topic has now; 0 if it doesn't matter, because readings are judged wherever they stand.
    async fn count_partitions(&self) -> Result<i32, BusError> {
        if self.intake == Intake::Readings {
            return Ok(0);
        }
        Ok(count_of(&self.deps.bus.topics().await?, self.intake.topic(&self.deps.settings)))
    }

    fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        self.uncommitted.remove(&partition);
        self.progress.lag.remove(&partition);
    }

    async fn process(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
        batches: Vec<ConsumedBatch>,
    ) -> Result<(), BusError> {
        self.partitions.values_mut().for_each(DetectPartition::begin_poll);
        let mut outcome = Outcome::default();
        for batch in &batches {
            let id = batch.partition.partition;
            while let Some(partition) = self.partitions.get_mut(&id) {
                match partition.apply(batch, &self.name, &mut outcome) {
                    Applied::Wholly => break,
                    Applied::NeedsCount => {
                        let partitions = self.count_partitions().await?;
                        self.partitions.values_mut().for_each(|held| held.partitions_are(partitions));
                    }
                    Applied::OutcomeFull => {
                        // A commit that is refused reloads the partition at what was committed; then the rest of this poll
                        // is read again.
                        let full = std::mem::take(&mut outcome);
                        if !self.commit(consumer, producer, full, Flush::WhenDue).await? {
                            return Ok(());
                        }
                    }
                }
            }
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            self.progress.processed += partition.take_processed();
            self.uncommitted.insert(id);
            self.progress.lag.insert(
                id,
                Lag {
                    records: batch.end_offset - batch.next_offset,
                    newest_record_ms: batch.records.last().map_or(0, |r| r.timestamp_ms),
                },
            );
        }
        let due = self.last_commit.elapsed() >= self.deps.settings.commit_interval;
        if outcome.is_empty() && (self.uncommitted.is_empty() || !due) {
            return Ok(());
        }
        self.commit(consumer, producer, outcome, Flush::WhenDue).await?;
        Ok(())
    }

    /// Looks at the passing of time: absence of data, overdue commits, heartbeat.
    async fn tick(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
    ) -> Result<(), BusError> {
        self.follow_rules(consumer, producer).await?;
        let (at, mut outcome) = (now(), Outcome::default());
        let topic: Arc<str> = self.intake.topic(&self.deps.settings).into();
        let owned: Vec<_> =
            self.partitions.keys().map(|id| TopicPartition::new(Arc::clone(&topic), *id)).collect();
        let ends = self.deps.bus.offsets(&owned, OffsetSpec::Latest).await?;
        for partition in owned {
            let end = ends.get(&partition).copied().unwrap_or(i64::MAX);
            if outcome.is_full()
                && !self.commit(consumer, producer, std::mem::take(&mut outcome), Flush::WhenDue).await?
            {
                return Ok(());
            }
            if let Some(state) = self.partitions.get_mut(&partition.partition) {
                state.settle(at, &mut outcome);
                // While readings wait to be read, silence proves nothing.
                if consumer.position(&partition).is_some_and(|position| position >= end) {
                    state.tick(at, &mut outcome);
                }
            }
        }
        if self.last_forgetting.elapsed() >= FORGETTING_INTERVAL {
            let before = at.saturating_sub(self.deps.settings.forget_after);
            self.partitions.values_mut().for_each(|p| p.forget_idle(before, at, &mut outcome));
            self.last_forgetting = Instant::now();
        }
        if !outcome.is_empty() || !self.uncommitted.is_empty() {
            self.commit(consumer, producer, outcome, Flush::WhenDue).await?;
        }
        if self.progress.last_heartbeat.elapsed() >= self.intake.heartbeat_interval(&self.deps.settings) {
            self.heartbeat().await;
        }
        Ok(())
    }

    /// Takes new rules into use, if there are any: alerts of rules that are gone resolve, and all state is written.
    async fn follow_rules(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
    ) -> Result<(), BusError> {
        let current = self.deps.rules.current();
        if current.version == self.rules.version {
            return Ok(());
        }
        let (at, mut outcome) = (now(), Outcome::default());
        for partition in self.partitions.values_mut() {
            partition.rules_changed(&current, at, &mut outcome);
        }
        self.rules = current;
        self.tell(WorkerNews::Rules(&self.rules));
        self.commit(consumer, producer, outcome, Flush::All).await?;
        Ok(())
    }

    /// Commits the outcome, the state that belongs to it, and the offsets, in one transaction. False if the bus refused because
    /// partitions have moved on; what is still held was loaded anew then.
    async fn commit(
        &mut self,
        consumer: &mut dyn Consumer,
        producer: &mut dyn TransactionalProducer,
        outcome: Outcome,
        flush: Flush,
    ) -> Result<bool, BusError> {
        if self.partitions.is_empty() {
            return Ok(true);
        }
        let due = self.last_state_flush.is_none_or(|at| at.elapsed() >= self.deps.settings.state_interval);
        let flush_all = flush == Flush::All || due;
        let at = now();
        let mut state = outcome.state;
        if flush_all {
            let mut done = true;
            for partition in self.partitions.values_mut() {
                done &= partition.flush(&self.rules, at, &mut state);
            }
            // Otherwise the next commit goes on with it.
            if done {
                self.last_state_flush = Some(Instant::now());
            }
        }
        let topic: Arc<str> = self.intake.topic(&self.deps.settings).into();
        let offsets: BTreeMap<TopicPartition, i64> = self
            .partitions
            .iter()
            .map(|(id, p)| (TopicPartition::new(Arc::clone(&topic), *id), p.next_offset()))
            .collect();

        producer.begin()?;
        let sent = [
            (self.deps.settings.topics.alerts.as_str(), outcome.alerts),
            (DEAD_LETTERS, outcome.dead_letters),
            (self.intake.state_topic(), state),
        ];
        let committed = async {
            for (topic, records) in sent {
                if !records.is_empty() {
                    producer.send(topic, records).await?;
                }
            }
            producer.send_offsets(offsets, &consumer.group_metadata()).await?;
            producer.commit().await
        }
        .await;
        match committed {
            Ok(()) => {
                self.uncommitted.clear();
                self.last_commit = Instant::now();
                Ok(true)
            }
            Err(BusError::Fenced(reason)) => {
                tracing::info!(worker = %self.name, reason, "commit refused: the partitions have moved on");
                let _ = producer.abort().await;
                // What is still this member's is loaded anew from what was committed.
                self.reload(consumer).await?;
                Ok(false)
            }
            Err(error) => {
                let _ = producer.abort().await;
                Err(error)
            }
        }
    }

    /// After a refused commit: forgets what was not committed and goes on from what was.
    async fn reload(&mut self, consumer: &mut dyn Consumer) -> Result<(), BusError> {
        let held: Vec<i32> = self.partitions.keys().copied().collect();
        let committed = self.deps.bus.committed(self.intake.group(&self.deps.settings)).await?;
        let partitions = self.count_partitions().await?;
        for id in held {
            self.forget(id);
            let partition = TopicPartition::new(self.intake.topic(&self.deps.settings), id);
            let offset = committed.get(&partition).copied().unwrap_or(0);
            // A partition that has moved refuses the seek: its new owner goes on with it.
            if consumer.seek(&partition, offset).is_ok() {
                let state = self.load(&partition, partitions, offset).await?;
                self.partitions.insert(id, state);
            }
        }
        Ok(())
    }

    async fn heartbeat(&mut self) {
        let elapsed = self.progress.last_heartbeat.elapsed().as_secs_f64();
        let processed = self.progress.processed - self.progress.processed_at_last_heartbeat;
        let at_ms = now().as_millis();
        let behind = self.progress.lag.values().filter(|lag| lag.records > 0);
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = if elapsed > 0.0 { processed as f64 / elapsed } else { 0.0 };
        let heartbeat = Heartbeat {
            group: self.intake.group(&self.deps.settings),
            partitions: self
                .partitions
                .keys()
                .map(|id| format!("{}/{id}", self.intake.topic(&self.deps.settings)))
                .collect(),
            records_processed: self.progress.processed,
            records_per_s: rate,
            lag_records: self.progress.lag.values().map(|lag| lag.records).sum(),
            lag_ms: behind.map(|lag| at_ms.saturating_sub(lag.newest_record_ms).max(0)).max().unwrap_or(0),
            errors: self.progress.errors,
        };
        heartbeat.publish(&self.deps.events, &self.name).await;
        self.progress.last_heartbeat = Instant::now();
        self.progress.processed_at_last_heartbeat = self.progress.processed;
    }
}

/// How much state a commit writes beyond what its transitions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Every changed series, if the interval is over.
    WhenDue,
    /// Every changed series.
    All,
}

/// A dead letter: what could not be processed, and why.
#[derive(Serialize)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
    pub(crate) source: farol_event::Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) consumer_id: &'a str,
}

/// Records of one topic, to be sent.
pub(crate) type Records = Vec<ProducerRecord>;

/// How many partitions a topic has; 0 if it isn't there.
fn count_of(topics: &[TopicDescription], name: &str) -> i32 {
    topics.iter().find(|topic| *topic.name == *name).map_or(0, |topic| topic.partitions)
}
