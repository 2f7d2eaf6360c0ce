//! The running fleet: one task that takes the readings that are due, writes them, and says that its producers live.
//!
//! A simulator doesn't queue. Readings that the sink refuses are counted as rejected and gone, readings that come due while
//! the sink is slow are skipped and counted. The first failure and the recovery are logged, not every failure between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_event::{Event, EventType, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fleet::Fleet;
use crate::sensor::{SensorError, SensorSpec};
use crate::sink::{Sink, SinkError, Tally};

/// Readings are written together at most this often, so that a large fleet makes batches instead of single records.
pub const MIN_TICK: Duration = Duration::from_millis(10);
/// The most readings in one write.
pub const MAX_BATCH: usize = 1000;
/// The usual time between two heartbeats of a producer.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Simulated sensors, ready to run.
#[derive(Debug)]
pub struct SensorSimulators {
    fleet: Fleet,
    heartbeat_interval: Duration,
    seed: u64,
}

/// Why simulators can't run on.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A sensor can't be simulated.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The sink will never take anything again.
    #[error(transparent)]
    Sink(SinkError),
}

/// What simulators did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SimulationSummary {
    /// How many sensors there were.
    pub sensors: usize,
    /// Readings that are durable.
    pub accepted: u64,
    /// Readings that were refused or could not be sent.
    pub rejected: u64,
    /// Readings that were never taken because the sink was slow.
    pub skipped: u64,
}

/// `data` of a `produtor_pulsou` event.
#[derive(Serialize)]
struct ProducerHeartbeat {
    kind: &'static str,
    records_sent: u64,
    records_per_s: f64,
    rejected: u64,
    status: &'static str,
}

impl SensorSimulators {
    /// Checks the specifications. Without a seed every run is different.
    ///
    /// # Errors
    /// See [`SensorError`].
    pub fn new(sensors: Vec<SensorSpec>, seed: Option<u64>) -> Result<Self, SensorError> {
        let seed = seed.unwrap_or_else(rand::random);
        Ok(Self { fleet: Fleet::new(sensors, seed)?, heartbeat_interval: HEARTBEAT_INTERVAL, seed })
    }

    /// With another time between heartbeats than [`HEARTBEAT_INTERVAL`].
    #[must_use]
    pub fn with_heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Runs until `shutdown`, then says goodbye for every producer.
    ///
    /// # Errors
    /// [`SimulationError::Sink`] when the sink is closed for good; anything else is logged and survived.
    pub async fn run(
        self,
        mut sink: Sink,
        shutdown: CancellationToken,
    ) -> Result<SimulationSummary, SimulationError> {
        let Self { mut fleet, heartbeat_interval, seed } = self;
        tracing::info!(
            sensors = fleet.sensors(),
            producers = fleet.producers().len(),
            seed,
            "simulators started"
        );
        let start = Instant::now();
        let mut pulse = Pulse::new(fleet.producers().to_vec());
        let mut health = SinkHealth::default();
        let mut next_heartbeat = Duration::ZERO;
        let mut earliest = Duration::ZERO;
        while !shutdown.is_cancelled() {
            let elapsed = start.elapsed();
            if elapsed >= next_heartbeat {
                health.judge(pulse.send(&sink, "active", elapsed).await)?;
                next_heartbeat = elapsed + heartbeat_interval;
            }
            let wake = fleet.next_due().max(earliest).min(next_heartbeat);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until((start + wake).into()) => {}
            }
            earliest = start.elapsed() + MIN_TICK;
            loop {
                let now = crate::now();
                let readings = fleet.take_due(start.elapsed(), now, MAX_BATCH);
                let full = readings.len() == MAX_BATCH;
                if !readings.is_empty() {
                    let sent = sink.send(fleet.producers(), readings, now, &mut pulse.tallies).await;
                    health.judge(sent)?;
                }
                if !full || shutdown.is_cancelled() {
                    break;
                }
            }
        }
        if let Err(error) = pulse.send(&sink, "stopped", start.elapsed()).await {
            tracing::warn!(%error, "the simulators' last heartbeat could not be sent");
        }
        Ok(pulse.summary(&fleet))
    }
}

/// What each producer has sent, and what its last heartbeat said.
struct Pulse {
    producers: Vec<Arc<str>>,
    tallies: Vec<Tally>,
    at_last: Vec<Tally>,
    last: Duration,
}

impl Pulse {
    fn new(producers: Vec<Arc<str>>) -> Self {
        let tallies = vec![Tally::default(); producers.len()];
        Self { producers, at_last: tallies.clone(), tallies, last: Duration::ZERO }
    }

    async fn send(&mut self, sink: &Sink, status: &'static str, elapsed: Duration) -> Result<(), SinkError> {
        let now = crate::now();
        let events = self.heartbeats(status, elapsed, now);
        self.last = elapsed;
        self.at_last.clone_from(&self.tallies);
        for part in events.chunks(MAX_BATCH) {
            sink.send_events(part, now).await?;
        }
        Ok(())
    }

    fn heartbeats(&self, status: &'static str, elapsed: Duration, now: Timestamp) -> Vec<Event> {
        let seconds = elapsed.saturating_sub(self.last).as_secs_f64();
        let counted = self.tallies.iter().zip(&self.at_last);
        self.producers
            .iter()
            .zip(counted)
            .map(|(producer, (tally, before))| {
                let fresh = (tally.accepted - before.accepted) as f64;
                let data = ProducerHeartbeat {
                    kind: "simulator",
                    records_sent: tally.accepted,
                    records_per_s: if seconds > 0.0 { (fresh / seconds * 10.0).round() / 10.0 } else { 0.0 },
                    rejected: tally.rejected,
                    status,
                };
                Event::new(Uuid::now_v7(), now, EventType::PRODUCER_HEARTBEAT, producer.as_ref(), &data)
            })
            .collect()
    }

    fn summary(&self, fleet: &Fleet) -> SimulationSummary {
        SimulationSummary {
            sensors: fleet.sensors(),
            accepted: self.tallies.iter().map(|t| t.accepted).sum(),
            rejected: self.tallies.iter().map(|t| t.rejected).sum(),
            skipped: fleet.skipped(),
        }
    }
}

/// Whether the last write succeeded, so that a failing sink is logged twice: when it starts and when it ends.
#[derive(Default)]
struct SinkHealth {
    failing_since: Option<Instant>,
}

impl SinkHealth {
    fn judge(&mut self, written: Result<(), SinkError>) -> Result<(), SimulationError> {
        match (written, self.failing_since) {
            (Err(error), _) if error.is_final() => return Err(SimulationError::Sink(error)),
            (Err(error), None) => {
                tracing::warn!(%error, "simulated readings are not being stored; further failures are only counted");
                self.failing_since = Some(Instant::now());
            }
            (Ok(()), Some(since)) => {
                tracing::info!(after = ?since.elapsed(), "simulated readings are stored again");
                self.failing_since = None;
            }
            (Err(_), Some(_)) | (Ok(()), None) => {}
        }
        Ok(())
    }
}
