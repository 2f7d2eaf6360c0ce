//! Stores in temporary folders, and records as the rest of Farol writes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use farol_bus::{ConsumedBatch, ConsumedRecord, TopicPartition};
use farol_event::{
    Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Event, EventType, Evidence, Position,
    Severity, Timestamp, TransitionKind,
};
use farol_view::{Queries, Store, StoreOptions, ViewError, ViewName};
use serde_json::{Value, json};
use uuid::Uuid;

/// 2026-09-21T14:13:20Z.
pub const START_S: i64 = 1_790_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((START_S + seconds) * 1_000_000).unwrap()
}

/// A store on a file of its own, and the folder that is deleted with it.
pub struct TestStore {
    pub store: Store,
    pub folder: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    pub fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("views.db"), options).unwrap();
        Self { store, folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("views.db")
    }

    /// The file as somebody with `sqlite3` sees it.
    pub fn outside(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    pub async fn apply_all(&self, batches: Vec<ConsumedBatch>) {
        self.store.apply(&ViewName::ALL, batches, at(0)).await.unwrap();
    }

    pub async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Queries<'_>) -> Result<T, ViewError> + Send + 'static,
    ) -> T {
        self.store.query(ask).await.unwrap()
    }
}

/// A partition's records, from offset zero.
#[derive(Debug, Clone)]
pub struct Log {
    partitions: BTreeMap<TopicPartition, Vec<ConsumedRecord>>,
}

impl Log {
    pub fn new() -> Self {
        Self { partitions: BTreeMap::new() }
    }

    /// Appends a record and says where it came to stand. It arrives at `arrival`.
    pub fn append(
        &mut self,
        topic: &str,
        partition: i32,
        value: impl Into<Bytes>,
        arrival: Timestamp,
    ) -> Position {
        let partition = TopicPartition::new(topic, partition);
        let records = self.partitions.entry(partition.clone()).or_default();
        let offset = records.len() as i64;
        records.push(ConsumedRecord {
            offset,
            timestamp_ms: arrival.as_millis(),
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        });
        Position { topic: partition.topic, partition: partition.partition, offset }
    }

    /// A reading of `sensor`, measured and arrived at `seconds`. The partition is the sensor's.
    pub fn reading(&mut self, sensor: &str, seconds: i64, value: f64) -> Position {
        let reading = json!({"sensor_id": sensor, "sensor_type": "temperature", "timestamp": at(seconds).to_string(),
            "value": value, "unit": "°C", "location": {"machine_id": format!("machine-of-{sensor}")}});
        self.append("sensor-data", partition_of(sensor, 3), reading.to_string(), at(seconds))
    }

    pub fn reading_json(&mut self, reading: &Value, arrival: Timestamp) -> Position {
        let sensor = reading["sensor_id"].as_str().unwrap_or("");
        self.append("sensor-data", partition_of(sensor, 3), reading.to_string(), arrival)
    }

    pub fn transition(&mut self, transition: &AlertTransition) -> Position {
        let event = farol_alert::to_event(transition, None);
        self.append("alerts", partition_of(&event.source, 2), event.to_json(), transition.at)
    }

    pub fn system_event(
        &mut self,
        event_type: EventType,
        source: &str,
        seconds: i64,
        data: &Value,
    ) -> Position {
        let id = Uuid::from_u128((seconds as u128) << 64 | self.len() as u128);
        let event = Event::new(id, at(seconds), event_type, source, data);
        self.append("system-events", partition_of(source, 3), event.to_json(), at(seconds))
    }

    pub fn len(&self) -> usize {
        self.partitions.values().map(Vec::len).sum()
    }

    /// Everything, one batch a partition.
    pub fn batches(&self) -> Vec<ConsumedBatch> {
        self.partitions.iter().map(|(partition, records)| batch(partition, records.clone())).collect()
    }

    /// Everything, in batches of at most `most` records, the partitions taking turns.
    pub fn small_batches(&self, most: usize) -> Vec<ConsumedBatch> {
        let mut chunks: Vec<(usize, ConsumedBatch)> = self
            .partitions
            .iter()
            .flat_map(|(partition, records)| {
                records.chunks(most).enumerate().map(|(turn, chunk)| (turn, batch(partition, chunk.to_vec())))
            })
            .collect();
        chunks.sort_by_key(|(turn, _)| *turn);
        chunks.into_iter().map(|(_, batch)| batch).collect()
    }
}

fn batch(partition: &TopicPartition, records: Vec<ConsumedRecord>) -> ConsumedBatch {
    let next_offset = records.last().unwrap().offset + 1;
    ConsumedBatch { partition: partition.clone(), records, next_offset, end_offset: next_offset }
}

/// Which partition a key goes to; any fixed choice will do.
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    key.bytes().map(i32::from).sum::<i32>() % partitions
}

/// The life of an alert of `sensor` that begins at `began` seconds.
pub struct AlertLife {
    pub alert: Alert,
}

impl AlertLife {
    pub fn new(rule: &str, sensor: &str, severity: Severity, began: i64) -> Self {
        let began_at = at(began);
        let labels = BTreeMap::from([("sensor_id".to_owned(), sensor.to_owned())]);
        Self {
            alert: Alert {
                id: AlertId::derive(rule, sensor, began_at),
                rule: rule.to_owned(),
                rule_definition: json!({"name": rule, "above": 40.0}),
                series: sensor.to_owned(),
                labels,
                severity,
                status: AlertStatus::Pending,
                summary: format!("{sensor} is above 40"),
                value: Some(41.5),
                began_at,
                fired_at: None,
                ended_at: None,
                acknowledgement: None,
            },
        }
    }

    pub fn pending(&self, seconds: i64) -> AlertTransition {
        self.transition(TransitionKind::Pending, AlertStatus::Pending, seconds, Vec::new())
    }

    pub fn fired(&self, seconds: i64, positions: Vec<Position>) -> AlertTransition {
        self.transition(TransitionKind::Fired, AlertStatus::Firing, seconds, positions)
    }

    pub fn resolved(&self, seconds: i64) -> AlertTransition {
        self.transition(TransitionKind::Resolved, AlertStatus::Resolved, seconds, Vec::new())
    }

    pub fn acknowledged(&self, seconds: i64, by: &str) -> AlertTransition {
        let acknowledgement =
            Acknowledgement { by: by.to_owned(), at: at(seconds), comment: Some("on it".into()) };
        AlertTransition {
            evidence: None,
            acknowledgement: Some(acknowledgement),
            ..self.transition(TransitionKind::Acknowledged, AlertStatus::Firing, seconds, Vec::new())
        }
    }

    fn transition(
        &self,
        kind: TransitionKind,
        status: AlertStatus,
        seconds: i64,
        positions: Vec<Position>,
    ) -> AlertTransition {
        let mut alert = self.alert.clone();
        alert.status = status;
        alert.summary = format!("{} ({kind:?})", alert.summary);
        let evidence =
            Some(Evidence { positions, value: Some(41.5), explanation: "41.5 is above 40".into() });
        AlertTransition { kind, at: at(seconds), evidence, acknowledgement: None, alert }
    }
}
