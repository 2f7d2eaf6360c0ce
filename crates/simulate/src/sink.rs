//! Where simulated readings go: into a bus, or over HTTP to a running Farol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{BusError, Producer, ProducerRecord};
use farol_event::{Event, Timestamp};

use crate::client::{ClientError, ServerUrl};
use crate::fleet::DueReading;
use crate::upload::{UploadError, Uploader};

/// The record header that names a reading's producer.
pub const PRODUCER_HEADER: &str = "farol-producer";

/// How long a server may take for one batch. Short, because the fleet waits, and so does its shutdown.
pub const HTTP_ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What became of one producer's share of some readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Readings that are durable.
    pub accepted: u64,
    /// Readings that were refused or could not be sent.
    pub rejected: u64,
}

/// Why readings or a heartbeat could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The bus refused.
    #[error("writing to topic {topic}: {source}")]
    Bus {
        /// Which topic.
        topic: Arc<str>,
        /// Why.
        source: BusError,
    },
    /// The server could not be reached or refused.
    #[error("sending to {server}: {source}")]
    Http {
        /// Which server.
        server: String,
        /// Why.
        source: UploadError,
    },
}

impl SinkError {
    /// Whether nothing more can ever be written.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Bus { source: BusError::Closed, .. })
    }
}

/// Where readings go.
pub enum Sink {
    /// Into a bus.
    Bus(BusSink),
    /// To a running Farol.
    Http(HttpSink),
}

/// Publishes readings and heartbeats.
pub struct BusSink {
    /// The producer.
    pub producer: Arc<dyn Producer>,
    /// The topic of readings.
    pub sensor_topic: Arc<str>,
    /// The topic of heartbeats.
    pub system_topic: Arc<str>,
}

/// Posts readings. Heartbeats are the server's business: it sees for itself what each producer sends.
pub struct HttpSink {
    server: ServerUrl,
    uploaders: BTreeMap<Arc<str>, Uploader>,
}

impl BusSink {
    /// To topics `sensor-data` and `system-events`.
    pub fn new(producer: Arc<dyn Producer>) -> Self {
        Self { producer, sensor_topic: "sensor-data".into(), system_topic: "system-events".into() }
    }

    async fn send(
        &self,
        producers: &[Arc<str>],
        readings: Vec<DueReading>,
        now: Timestamp,
        tallies: &mut [Tally],
    ) -> Result<(), SinkError> {
        let records = readings
            .iter()
            .map(|reading| {
                let mut record = ProducerRecord::new(reading.sensor_id.clone(), reading.json.clone(), now);
                let producer =
                    producers.get(reading.producer).map(|name| Bytes::copy_from_slice(name.as_bytes()));
                record.headers.extend(producer.map(|name| (PRODUCER_HEADER.to_owned(), name)));
                record
            })
            .collect();
        let result = self.producer.send(&self.sensor_topic, records).await;
        for reading in &readings {
            if let Some(tally) = tallies.get_mut(reading.producer) {
                match result {
                    Ok(_) => tally.accepted += 1,
                    Err(_) => tally.rejected += 1,
                }
            }
        }
        result.map(drop).map_err(|source| SinkError::Bus { topic: Arc::clone(&self.sensor_topic), source })
    }

    async fn send_events(&self, events: &[Event], now: Timestamp) -> Result<(), SinkError> {
        let records = events
            .iter()
            .map(|event| ProducerRecord::new(event.source.clone().into_bytes(), event.to_json(), now))
            .collect();
        self.producer
            .send(&self.system_topic, records)
            .await
            .map(drop)
            .map_err(|source| SinkError::Bus { topic: Arc::clone(&self.system_topic), source })
    }
}

impl HttpSink {
    /// Nothing is connected yet.
    pub fn new(server: ServerUrl) -> Self {
        Self { server, uploaders: BTreeMap::new() }
    }

    /// One batch per producer, because the producer's name is a header of the request.
    async fn send(
        &mut self,
        producers: &[Arc<str>],
        readings: Vec<DueReading>,
        tallies: &mut [Tally],
    ) -> Result<(), SinkError> {
        let mut bodies: BTreeMap<usize, (u64, Vec<u8>)> = BTreeMap::new();
        for reading in readings {
            let (count, body) = bodies.entry(reading.producer).or_default();
            *count += 1;
            body.extend_from_slice(&reading.json);
            body.push(b'\n');
        }
        let mut outcome = Ok(());
        for (index, (count, body)) in bodies {
            let (Some(producer), Some(tally)) = (producers.get(index), tallies.get_mut(index)) else {
                continue;
            };
            match self.send_batch(producer, body.into()).await {
                Ok(accepted) => {
                    tally.accepted += accepted;
                    tally.rejected += count.saturating_sub(accepted);
                }
                Err(source) => {
                    tally.rejected += count;
                    outcome = Err(SinkError::Http { server: self.server.to_string(), source });
                }
            }
        }
        outcome
    }

    async fn send_batch(&mut self, producer: &Arc<str>, body: Bytes) -> Result<u64, UploadError> {
        if !self.uploaders.contains_key(producer) {
            let uploader = Uploader::new(self.server.clone(), "application/x-ndjson", producer)?
                .with_answer_limit(HTTP_ANSWER_LIMIT);
            self.uploaders.insert(Arc::clone(producer), uploader);
        }
        match self.uploaders.get_mut(producer) {
            Some(uploader) => Ok(uploader.send(body).await?.accepted),
            None => Err(ClientError::Request("no connection for this producer".into()).into()),
        }
    }
}

impl Sink {
    /// Into a bus, under the usual topics.
    pub fn bus(producer: Arc<dyn Producer>) -> Self {
        Self::Bus(BusSink::new(producer))
    }

    /// To a running Farol.
    pub fn http(server: ServerUrl) -> Self {
        Self::Http(HttpSink::new(server))
    }

    /// Writes readings and returns when they are durable; `tallies` (one per producer) grow by what became of them, on an
    /// error too.
    pub(crate) async fn send(
        &mut self,
        producers: &[Arc<str>],
        readings: Vec<DueReading>,
        now: Timestamp,
        tallies: &mut [Tally],
    ) -> Result<(), SinkError> {
        match self {
            Self::Bus(sink) => sink.send(producers, readings, now, tallies).await,
            Self::Http(sink) => sink.send(producers, readings, tallies).await,
        }
    }

    /// Writes heartbeats, where the sink takes them.
    pub(crate) async fn send_events(&self, events: &[Event], now: Timestamp) -> Result<(), SinkError> {
        match self {
            Self::Bus(sink) => sink.send_events(events, now).await,
            Self::Http(_) => Ok(()),
        }
    }
}
