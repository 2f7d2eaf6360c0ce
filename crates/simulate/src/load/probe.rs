//! How long it takes from a reading to its alert on `/api/stream`.
//!
//! Probes are single readings far above the default critical threshold, each of a sensor of its own, so that each makes an
//! alert whatever state other sensors are in. Delay is from just before the reading is sent to the arrival of the first
//! `alert` event of kind `fired` for its sensor. A probe whose alert hasn't come [`ALERT_LIMIT`] after the last one was
//! sent counts as missing. At the end every probe sensor gets a normal reading, so that its alert resolves.
//!
//! Probes leave their sensors behind in the server: use a data folder that is meant for measuring.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_event::{SensorTypeDefaults, TransitionKind};
use hdrhistogram::Histogram;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::LoadError;
use super::connection::{histogram, record};
use super::summary::{AlertLatency, LatencySummary};
use crate::client::{ClientError, EndlessAnswer, RequestTemplate, ServerUrl};
use crate::line::{LineIdentity, LineTemplate};
use crate::sse::{ServerSentEvent, SseParser};
use crate::upload::{UploadError, Uploader};

/// How long an alert may take.
pub const ALERT_LIMIT: Duration = Duration::from_secs(10);
/// How long the stream may take to open.
const STREAM_LIMIT: Duration = Duration::from_secs(10);
/// Probe sensors that are given a normal reading in one request.
const RESOLVE_BATCH: usize = 1000;
const SENSOR_TYPE: &str = "temperature";

/// Probes under way.
pub(super) struct Probes {
    /// Ends the sending of probes.
    stop: CancellationToken,
    sending: JoinHandle<Sent>,
    listening: JoinHandle<()>,
    state: Arc<Mutex<State>>,
    server: ServerUrl,
    producer: String,
}

struct State {
    /// When each probe was sent whose alert has not come.
    waiting: HashMap<String, Instant>,
    delays: Histogram<u64>,
    gaps: u64,
    broken: Option<String>,
}

/// What the sending task did.
#[derive(Default)]
struct Sent {
    sensors: Vec<String>,
    accepted: u64,
    failed: u64,
}

/// Opens the stream, and starts to send probes.
pub(super) async fn start(
    server: &ServerUrl,
    per_second: f64,
    producer: &str,
    stop: CancellationToken,
) -> Result<Probes, LoadError> {
    let stream = open_stream(server).await?;
    let uploader = Uploader::new(server.clone(), "application/json", producer).map_err(LoadError::Connect)?;
    let state =
        Arc::new(Mutex::new(State { waiting: HashMap::new(), delays: histogram(), gaps: 0, broken: None }));
    let listening = tokio::spawn(listen(stream, Arc::clone(&state)));
    let sending = tokio::spawn(send_probes(uploader, per_second, stop.clone(), Arc::clone(&state)));
    Ok(Probes { stop, sending, listening, state, server: server.clone(), producer: producer.to_owned() })
}

impl Probes {
    /// Stops sending, waits for the alerts that are still to come, and clears up.
    pub(super) async fn finish(self) -> AlertLatency {
        self.stop.cancel();
        let sent = self.sending.await.unwrap_or_default();
        let limit = Instant::now() + ALERT_LIMIT;
        while Instant::now() < limit && !lock(&self.state).nothing_to_wait_for() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.listening.abort();
        let resolving = match Uploader::new(self.server, "application/x-ndjson", &self.producer) {
            Ok(uploader) => resolve(uploader, &sent.sensors).await,
            Err(error) => Err(error.into()),
        };
        let resolved = resolving.unwrap_or_else(|error| {
            tracing::warn!(%error, "the probes' alerts are left firing");
            0
        });
        let state = lock(&self.state);
        AlertLatency {
            probes: sent.accepted,
            failed: sent.failed,
            missing: state.waiting.len() as u64,
            resolving_readings: resolved,
            stream_gaps: state.gaps,
            stream_error: state.broken.clone(),
            delay: LatencySummary::of(&state.delays),
        }
    }
}

impl State {
    fn nothing_to_wait_for(&self) -> bool {
        self.waiting.is_empty() || self.broken.is_some()
    }

    fn take_event(&mut self, event: &ServerSentEvent, arrived: Instant) {
        #[derive(Deserialize)]
        struct Transition {
            kind: TransitionKind,
            alert: AlertSeries,
        }
        #[derive(Deserialize)]
        struct AlertSeries {
            series: String,
        }
        match event.event.as_str() {
            "gap" => self.gaps += 1,
            "alert" => {
                // Acknowledgements and whatever else comes by is not what is measured.
                let Ok(transition) = serde_json::from_str::<Transition>(&event.data) else { return };
                if transition.kind == TransitionKind::Fired
                    && let Some(sent) = self.waiting.remove(&transition.alert.series)
                {
                    record(&mut self.delays, arrived.saturating_duration_since(sent));
                }
            }
            _ => {}
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open_stream(server: &ServerUrl) -> Result<EndlessAnswer, LoadError> {
    let template = RequestTemplate::get(server, "/api/stream?streams=alert")
        .map_err(|e| LoadError::Stream(e.to_string()))?;
    let stream = EndlessAnswer::open(server, &template, STREAM_LIMIT).await.map_err(|e| match e {
        ClientError::Connect { .. } => LoadError::Connect(e),
        other => LoadError::Stream(other.to_string()),
    })?;
    if stream.status != StatusCode::OK {
        return Err(LoadError::Stream(format!("the server answered {}", stream.status)));
    }
    Ok(stream)
}

async fn listen(mut stream: EndlessAnswer, state: Arc<Mutex<State>>) {
    let mut parser = SseParser::default();
    loop {
        let chunk = stream.next_chunk().await;
        let arrived = Instant::now();
        let mut state = lock(&state);
        match chunk {
            Ok(Some(bytes)) => {
                for event in parser.push(&bytes) {
                    state.take_event(&event, arrived);
                }
            }
            Ok(None) => {
                state.broken = Some("the server ended the stream".into());
                return;
            }
            Err(error) => {
                state.broken = Some(error.to_string());
                return;
            }
        }
    }
}

/// One probe after the other at a fixed rate; a probe that waits for the one before it is sent late, not left out.
async fn send_probes(
    mut uploader: Uploader,
    per_second: f64,
    stop: CancellationToken,
    state: Arc<Mutex<State>>,
) -> Sent {
    let mut sent = Sent::default();
    let run = uuid::Uuid::now_v7().simple().to_string();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    loop {
        tokio::select! {
            () = stop.cancelled() => return sent,
            _ = ticks.tick() => {}
        }
        let sensor = format!("probe-{run}-{:06}", sent.sensors.len() + 1);
        let body = probe_line(&sensor, true);
        lock(&state).waiting.insert(sensor.clone(), Instant::now());
        match uploader.send(body).await {
            Ok(answer) if answer.accepted == 1 => {
                sent.accepted += 1;
                sent.sensors.push(sensor);
            }
            _ => {
                sent.failed += 1;
                lock(&state).waiting.remove(&sensor);
                // Numbers go on, so that a failed probe that was stored after all is not mistaken for the next.
                sent.sensors.push(sensor);
            }
        }
    }
}

/// Gives every probe sensor a normal reading. Returns how many were accepted.
async fn resolve(mut uploader: Uploader, sensors: &[String]) -> Result<u64, UploadError> {
    let mut accepted = 0;
    for part in sensors.chunks(RESOLVE_BATCH) {
        let body: Vec<u8> = part.iter().flat_map(|sensor| probe_line(sensor, false)).collect();
        accepted += uploader.send(body.into()).await?.accepted;
    }
    Ok(accepted)
}

/// A reading of a probe sensor: far above critical, or the usual value.
fn probe_line(sensor: &str, alerting: bool) -> Bytes {
    let (value, unit) = match SensorTypeDefaults::of(SENSOR_TYPE) {
        Some(usual) if alerting => (usual.critical + (usual.critical - usual.base), Some(usual.unit)),
        Some(usual) => (usual.base, Some(usual.unit)),
        None => (0.0, None),
    };
    let identity =
        LineIdentity { sensor_id: sensor, sensor_type: SENSOR_TYPE, unit, ..LineIdentity::default() };
    let mut line = Vec::with_capacity(160);
    LineTemplate::new(identity).write(crate::now(), value, &mut line);
    line.into()
}
