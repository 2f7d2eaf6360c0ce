//! A small plant: bus, store, rules and pipeline in a folder of their own, for one test.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{
    Bus, ConsumerSettings, OffsetSpec, Partitioning, Polled, Producer, ProducerRecord, StartAt,
    TopicPartition,
};
use farol_event::{Alert, AlertTransition, Event, EventType, Position, Reading, Timestamp};
use farol_log::{BatchBuilder, BatchProducer, Marker};
use farol_pipeline::{
    NotifierSettings, Pipeline, PipelineDeps, PipelineSettings, RuleSources, RulesHandle, TopicNames,
    ViewRetention, WorkerSettings, WorkerState, default_topics, ensure_topics,
};
use farol_resilience::Registry;
use farol_view::query::alerts::{AlertFilter, Delivery};
use farol_view::query::readings::ReadingFilter;
use farol_view::{Store, StoreOptions, ViewName};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

/// Asks again and again until there is an answer; fails after `limit`.
pub async fn eventually<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Plant {
    dir: TempDir,
    bus: Arc<EmbeddedBus>,
    store: Store,
    rules: Arc<RulesHandle>,
    rules_file: Option<PathBuf>,
    producer: Arc<dyn Producer>,
    pipeline: Pipeline,
    workers: usize,
    outgoing: Registry,
}

impl Plant {
    /// With rules in place of the built-in ones that resolve at once, so that a test need not wait.
    pub async fn start(workers: usize) -> Self {
        let select = "select = '{sensor_type=\"temperature\"}'";
        let rule = |name, above, severity| {
            format!("[[rule]]\nname = \"{name}\"\n{select}\nabove = {above}\nseverity = \"{severity}\"\n")
        };
        let rules =
            rule("temperature-warning", 35, "warning") + &rule("temperature-critical", 40, "critical");
        Self::with_rules(workers, &rules).await
    }

    pub async fn with_rules(workers: usize, text: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, text).unwrap();
        Self::open(dir, workers, Some(file), NotifierSettings::default()).await
    }

    pub async fn with_notifier(notifier: NotifierSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, "[[rule]]\nname = \"hot\"\nselect = '{sensor_type=\"kiln\"}'\nabove = 10\n")
            .unwrap();
        Self::open(dir, 1, Some(file), notifier).await
    }

    /// Why a plant with this notifier doesn't start.
    pub async fn refused(notifier: NotifierSettings) -> String {
        let opened = Self::try_open(TempDir::new().unwrap(), 0, None, notifier).await;
        opened.map(|_| ()).unwrap_err().to_string()
    }

    /// Whether the notifier has committed every fact about silences.
    pub async fn notifier_knows_the_silences(&self) -> bool {
        let committed = self.bus.committed("notifier").await.unwrap();
        let silences = self.records("system-events").await;
        let newest = silences.iter().filter(|(_, r)| r.key.as_deref() == Some(b"silences"));
        let read = |(partition, record): &(TopicPartition, farol_bus::ConsumedRecord)| {
            committed.get(partition).is_some_and(|next| *next > record.offset)
        };
        newest.clone().count() > 0 && newest.clone().all(read)
    }

    async fn open(
        dir: TempDir,
        workers: usize,
        rules_file: Option<PathBuf>,
        notifier: NotifierSettings,
    ) -> Self {
        Self::try_open(dir, workers, rules_file, notifier).await.unwrap()
    }

    async fn try_open(
        dir: TempDir,
        workers: usize,
        rules_file: Option<PathBuf>,
        notifier: NotifierSettings,
    ) -> Result<Self, farol_pipeline::StartError> {
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path().join("log"))).unwrap();
        let store = Store::open(dir.path().join("views.sqlite"), StoreOptions::default()).unwrap();
        let sources = RuleSources { defaults: true, files: rules_file.clone().into_iter().collect() };
        let rules = Arc::new(RulesHandle::load(sources, now()).unwrap());
        let topics = default_topics(&TopicNames::default(), &BTreeMap::new());
        ensure_topics(bus.as_ref(), topics).await.unwrap();
        let settings = PipelineSettings {
            workers: (1..=workers).map(|n| format!("worker-{n}")).collect(),
            worker: WorkerSettings { tick_interval: Duration::from_millis(100), ..WorkerSettings::default() },
            notifier,
            retention: ViewRetention::default(),
        };
        let outgoing = Registry::new();
        let deps = PipelineDeps {
            bus: bus.clone(),
            store: store.clone(),
            rules: Arc::clone(&rules),
            outgoing: outgoing.clone(),
        };
        let pipeline = Pipeline::start(settings, deps).await?;
        let producer = bus.producer("test").await.unwrap();
        Ok(Self { dir, bus, store, rules, rules_file, producer, pipeline, workers, outgoing })
    }

    pub async fn stop(self) -> TempDir {
        assert_eq!(self.pipeline.shutdown(Duration::from_secs(10)).await, Vec::<String>::new());
        self.store.close().await;
        self.bus.close().await.unwrap();
        self.dir
    }

    /// The policies of calls to others.
    pub fn outgoing(&self) -> &Registry {
        &self.outgoing
    }

    pub async fn restart_with(self, notifier: NotifierSettings) -> Self {
        let (workers, rules_file) = (self.workers, self.rules_file.clone());
        let dir = self.stop().await;
        Self::open(dir, workers, rules_file, notifier).await
    }

    /// Appends a fact about silences, as the API does.
    pub async fn append_silence(&self, fact: &farol_alert::SilenceFact) {
        let event = fact.to_event(uuid::Uuid::now_v7(), now());
        let record = ProducerRecord::new(event.source.clone().into_bytes(), event.to_json(), now());
        self.producer.send("system-events", vec![record]).await.unwrap();
    }

    pub async fn restart(self) -> Self {
        let (workers, rules_file) = (self.workers, self.rules_file.clone());
        let dir = self.stop().await;
        Self::open(dir, workers, rules_file, NotifierSettings::default()).await
    }

    /// Stops, lets `change` do something to the folder, and starts again.
    pub async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let (workers, rules_file) = (self.workers, self.rules_file.clone());
        let dir = self.stop().await;
        change(dir.path());
        Self::open(dir, workers, rules_file, NotifierSettings::default()).await
    }

    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub fn rules(&self) -> &RulesHandle {
        &self.rules
    }

    pub fn write_rules(&self, text: &str) {
        std::fs::write(self.rules_file.as_ref().unwrap(), text).unwrap();
    }

    pub async fn worker_stopped(&self, name: &str) {
        eventually(Duration::from_secs(10), async || {
            let workers = self.pipeline.workers().list();
            workers.iter().any(|w| w.consumer_id == name && w.state == WorkerState::Stopped).then_some(())
        })
        .await;
    }

    /// Sends one reading for each value.
    pub async fn send(&self, sensor: &str, sensor_type: &str, values: &[f64]) {
        for value in values {
            let json = format!(
                r#"{{"sensor_id":"{sensor}","sensor_type":"{sensor_type}","value":{value},"timestamp":"{}"}}"#,
                now()
            );
            self.send_raw(sensor, json.as_bytes()).await;
        }
    }

    /// Tells something of a service.
    pub async fn tell(&self, event_type: EventType, service: &str, data: &serde_json::Value) {
        let event = Event::new(uuid::Uuid::now_v7(), now(), event_type, service, data);
        self.tell_raw(service, &event.to_json()).await;
    }

    pub async fn tell_raw(&self, key: &str, value: &[u8]) {
        let record = ProducerRecord::new(key.as_bytes().to_vec(), value.to_vec(), now());
        self.producer.send("system-events", vec![record]).await.unwrap();
    }

    /// Tells it in this partition, wherever the key leads.
    pub async fn tell_in(&self, partition: i32, key: &str, value: &[u8]) {
        let record = ProducerRecord::new(key.as_bytes().to_vec(), value.to_vec(), now());
        let record = ProducerRecord { partitioning: Partitioning::Explicit(partition), ..record };
        self.producer.send("system-events", vec![record]).await.unwrap();
    }

    /// Gives a topic more partitions while everything runs.
    pub async fn grow(&self, topic: &str, partitions: i32) {
        self.bus.grow_topic(topic, partitions).await.unwrap();
    }

    /// As if the broker had ended the transactions of a worker because their time was up.
    pub async fn end_transactions_of(&self, worker: &str) {
        drop(self.bus.transactional_producer(&format!("sensor-processors-{worker}")).await.unwrap());
    }

    /// Whether the workers have committed every reading that was sent.
    pub async fn processed(&self) -> bool {
        let partitions: Vec<_> = (0..3).map(|p| TopicPartition::new("sensor-data", p)).collect();
        let ends = self.bus.offsets(&partitions, OffsetSpec::Latest).await.unwrap();
        let committed = self.bus.committed("sensor-processors").await.unwrap();
        ends.iter().all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) == *end)
    }

    /// Says in the detector's state that a sensor is forgotten, as the worker does after a month of silence.
    pub async fn forget_sensor(&self, sensor: &str) {
        let readings = self.records("sensor-data").await;
        let found = readings.iter().find(|(_, r)| r.key.as_deref() == Some(sensor.as_bytes())).unwrap();
        let record = ProducerRecord {
            value: None,
            partitioning: Partitioning::Explicit(found.0.partition),
            ..ProducerRecord::new(format!("s:{sensor}").into_bytes(), Vec::new(), now())
        };
        self.producer.send("detector-state", vec![record]).await.unwrap();
    }

    pub async fn send_raw(&self, key: &str, value: &[u8]) {
        let record = ProducerRecord::new(key.as_bytes().to_vec(), value.to_vec(), now());
        self.producer.send("sensor-data", vec![record]).await.unwrap();
    }

    /// Every record of a topic, partition by partition.
    async fn records(&self, topic: &str) -> Vec<(TopicPartition, farol_bus::ConsumedRecord)> {
        let description = self.bus.topics().await.unwrap().into_iter().find(|t| *t.name == *topic).unwrap();
        let partitions: Vec<_> = (0..description.partitions).map(|p| TopicPartition::new(topic, p)).collect();
        let ends = self.bus.offsets(&partitions, OffsetSpec::Latest).await.unwrap();
        let mut found = Vec::new();
        for (partition, end) in ends {
            let mut consumer = self.bus.consumer(ConsumerSettings::standalone("test")).await.unwrap();
            consumer.assign(vec![(partition.clone(), StartAt::Earliest)]).await.unwrap();
            let mut next = 0;
            while next < end {
                if let Polled::Records(batches) = consumer.poll(Duration::from_secs(1)).await.unwrap() {
                    for batch in batches {
                        next = batch.next_offset;
                        found.extend(batch.records.into_iter().map(|r| (partition.clone(), r)));
                    }
                }
            }
            consumer.close().await.unwrap();
        }
        found
    }

    /// Every transition on topic `alerts`, in order within a sensor.
    pub async fn transitions(&self) -> Vec<AlertTransition> {
        let records = self.records("alerts").await;
        let parse = |record: &farol_bus::ConsumedRecord| {
            let event = Event::parse(record.value.as_deref().unwrap(), record.timestamp()).unwrap();
            farol_alert::from_event(&event).unwrap()
        };
        records.iter().map(|(_, record)| parse(record)).collect()
    }

    pub async fn reading_at(&self, position: &Position) -> f64 {
        let records = self.records(&position.topic).await;
        let (_, record) = records
            .iter()
            .find(|(tp, r)| tp.partition == position.partition && r.offset == position.offset)
            .unwrap();
        Reading::parse(record.value.as_deref().unwrap(), record.timestamp()).unwrap().value
    }

    pub async fn event_at(&self, position: &Position) -> Event {
        let records = self.records(&position.topic).await;
        let (_, record) = records
            .iter()
            .find(|(tp, r)| tp.partition == position.partition && r.offset == position.offset)
            .unwrap();
        Event::parse(record.value.as_deref().unwrap(), record.timestamp()).unwrap()
    }

    /// The values of a sensor's readings, oldest first.
    pub async fn values_in_view(&self, sensor: &str) -> Vec<f64> {
        let filter = ReadingFilter { sensor_id: Some(sensor.to_owned()), ..ReadingFilter::default() };
        let rows = self.store.query(move |q| q.reading_rows(&filter)).await.unwrap();
        rows.readings.into_iter().map(|row| row.value).collect()
    }

    pub async fn alerts_in_view(&self) -> Vec<Alert> {
        let filter = AlertFilter { limit: Some(1000), ..AlertFilter::default() };
        self.store.query(move |q| q.alerts(&filter)).await.unwrap().alerts
    }

    pub async fn deliveries_in_view(&self, series: &str) -> Vec<Delivery> {
        let Some(alert) = self.alerts_in_view().await.into_iter().find(|a| a.series == series) else {
            return Vec::new();
        };
        self.store.query(move |q| q.alert_detail(alert.id)).await.unwrap().unwrap().deliveries
    }

    /// Appends a record by a transaction of a Kafka client, which is aborted.
    pub async fn append_in_vain(&self, partition: TopicPartition) {
        let broker = self.bus.broker();
        let producer = broker.init_producer(Some("in-vain"), 60_000, None).await.unwrap();
        broker.add_to_transaction("in-vain", producer, &BTreeSet::from([partition.clone()])).await.unwrap();
        let mut builder = BatchBuilder::default().written_by(BatchProducer {
            producer_id: producer.producer_id,
            producer_epoch: producer.epoch,
            base_sequence: 0,
            is_transactional: true,
        });
        builder.push(None, Some(b"{}"), &[], 1).unwrap();
        broker.produce(&partition, builder.build().unwrap()).await.unwrap();
        broker.end_transaction("in-vain", producer, Marker::Abort).await.unwrap();
    }

    /// Appends to the published rules.
    pub async fn publish_rules(&self, key: &'static str, value: Bytes) {
        let record = ProducerRecord::new(Bytes::from_static(key.as_bytes()), value, now());
        self.producer.send("rules", vec![record]).await.unwrap();
    }

    /// The rules that somebody finds who comes now.
    pub async fn published_rules(&self) -> farol_detect::RuleSet {
        let mut follower = farol_pipeline::RulesFollower::open(self.bus.as_ref(), "test").await.unwrap();
        follower.next().await.unwrap()
    }

    pub async fn dead_letters_in_view(&self) -> Vec<String> {
        let page = self.store.query(|q| q.dead_letters(None, None)).await.unwrap();
        page.dead_letters.into_iter().map(|letter| letter.reason).collect()
    }

    pub async fn rebalances_in_view(&self) -> usize {
        self.store.query(|q| q.newest_rebalances(50)).await.unwrap().len()
    }

    /// Stops the pipeline, rebuilds the alerts view from the log and gives what it holds then.
    pub async fn rebuilt_alerts(self) -> Vec<Alert> {
        assert_eq!(self.pipeline.shutdown(Duration::from_secs(10)).await, Vec::<String>::new());
        let (bus, store): (Arc<dyn Bus>, _) = (self.bus.clone(), self.store.clone());
        let stop = CancellationToken::new();
        farol_pipeline::rebuild_view(bus, store, ViewName::Alerts, &stop, |_| {}).await.unwrap();
        let filter = AlertFilter { limit: Some(1000), ..AlertFilter::default() };
        let alerts = self.store.query(move |q| q.alerts(&filter)).await.unwrap().alerts;
        self.store.close().await;
        self.bus.close().await.unwrap();
        alerts
    }
}
