//! The load generator: as many readings as wanted over HTTP, and what became of them.
//!
//! # What it is and isn't
//! It measures a running Farol from the outside, sharing its processors if it must, so a reading has to cost it very
//! little: lines are assembled from prepared parts ([`lines`]), connections are kept open, one request is under way on
//! each. It checks nothing about the content of what the server stored, only its counts.
//!
//! # Flow
//! One task per connection, each with its own sensors (so that a sensor's readings keep their order) and its own share of
//! the rate. [`Rate::PerSecond`] fixes the instant of every request beforehand ([`schedule`]); a request that waited for
//! its connection is measured from the instant at which it *should* have been sent, so a server that stalls can't hide
//! the requests that it kept from being sent (no coordinated omission). With [`Rate::Max`] latency is from sending.
//!
//! # What is counted
//! Every reading ends in exactly one of: accepted, rejected, overloaded (429/503), not stored (503 of a full disk), unanswered (sent, connection lost or time
//! limit reached: may be stored), unsent (never left). The server's own count must lie between accepted and accepted +
//! unanswered, see [`server`].
//!
//! # Failures
//! A connection that breaks under a request ends its task, or with [`LoadOptions::reconnect`] is opened again every
//! [`RECONNECT_PAUSE`]; one that the server closed while it was idle is opened again once in any case. Readings are never
//! sent twice. An answer that is no Farol's ends the run.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{ClientError, ServerUrl};
use crate::progress::{Progress, ProgressState, UPDATE_INTERVAL, grouped};
use crate::sensor::MAX_SENSORS;
use crate::upload::UploadError;

mod acknowledged;
mod connection;
pub mod lines;
mod probe;
pub mod schedule;
pub mod server;
mod summary;

pub use summary::{Agreement, AlertLatency, LatencySummary, LoadSummary, ServerCounts};

use acknowledged::AcknowledgedFile;
use connection::{ConnectionResult, ConnectionTask};
use schedule::Schedule;

/// How long a connection task waits before it tries to connect again.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection task waits after a 429 or 503 without `Retry-After`.
pub const OVERLOAD_PAUSE: Duration = Duration::from_millis(50);
/// The most connections.
pub const MAX_CONNECTIONS: usize = 10_000;
/// The most readings in one request.
pub const MAX_BATCH: usize = 50_000;
/// The longest latency that is told apart from longer ones.
pub const MAX_LATENCY: Duration = Duration::from_secs(600);

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The server.
    pub server: ServerUrl,
    /// Readings per second over all connections, or as many as are acknowledged.
    pub rate: Rate,
    /// Connections, from 1; never more than sensors.
    pub connections: usize,
    /// Readings in one request. With 1, single JSON readings are sent instead of NDJSON.
    pub batch: usize,
    /// When to stop; [`CancellationToken`] stops it earlier.
    pub stop: StopAfter,
    /// How many sensors the readings are of.
    pub sensors: usize,
    /// The sensors' ids are this and a number.
    pub sensor_prefix: String,
    /// Share of the readings, 0..=1, that are above the critical threshold, in excursions of
    /// [`lines::EXCURSION_READINGS`].
    pub alerts_fraction: f64,
    /// Whether lost connections are opened again.
    pub reconnect: bool,
    /// How long an answer may take.
    pub answer_limit: Duration,
    /// Write `seq,sensor_id,timestamp` of every acknowledged reading here.
    pub acknowledged: Option<PathBuf>,
    /// Measure the delay from a reading to its alert on `/api/stream`, with this many probes per second.
    pub alert_probes_per_second: Option<f64>,
    /// The topic whose records are counted on the server.
    pub sensor_topic: String,
    /// The name that the server shows as producer.
    pub producer: String,
}

impl LoadOptions {
    /// With the usual values: as fast as possible for ten seconds over 4 connections, batches of 1000, 1000 sensors.
    pub fn new(server: ServerUrl) -> Self {
        Self {
            server,
            rate: Rate::Max,
            connections: 4,
            batch: 1000,
            stop: StopAfter::Duration(Duration::from_secs(10)),
            sensors: 1000,
            sensor_prefix: "load".into(),
            alerts_fraction: 0.0,
            reconnect: false,
            answer_limit: Duration::from_secs(30),
            acknowledged: None,
            alert_probes_per_second: None,
            sensor_topic: "sensor-data".into(),
            producer: "load".into(),
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let refuse = |problem: String| Err(LoadError::Option(problem));
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return refuse(format!("there must be 1 to {MAX_CONNECTIONS} connections"));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return refuse(format!("a batch must have 1 to {MAX_BATCH} readings"));
        }
        if !(1..=MAX_SENSORS).contains(&self.sensors) {
            return refuse(format!("there must be 1 to {MAX_SENSORS} sensors"));
        }
        if !(0.0..=1.0).contains(&self.alerts_fraction) {
            return refuse("the share of readings that alert must be between 0 and 1".into());
        }
        if self.sensor_prefix.len() > 200 || self.sensor_prefix.chars().any(char::is_control) {
            return refuse(
                "the sensors' prefix must have at most 200 bytes and no control characters".into(),
            );
        }
        if self
            .alert_probes_per_second
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0 && rate <= 1000.0))
        {
            return refuse("there must be more than 0 and at most 1000 alert probes per second".into());
        }
        Ok(())
    }
}

/// How many readings per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// As many as are acknowledged.
    Max,
    /// This many, positive and finite.
    PerSecond(f64),
}

/// A text that is no [`Rate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate: use a positive number of readings per second, or max")]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => Err(RateError(text.chars().take(64).collect())),
        }
    }
}

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAfter {
    /// After this time.
    Duration(Duration),
    /// After this many readings.
    Readings(u64),
}

/// Why a run could not be made or ended without a summary.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option is not acceptable.
    #[error("{0}")]
    Option(String),
    /// No connection could be opened at the start.
    #[error(transparent)]
    Connect(ClientError),
    /// The server refused a request as a whole, or is no Farol.
    #[error(transparent)]
    Refused(UploadError),
    /// The alert stream could not be opened.
    #[error("opening the alert stream: {0}")]
    Stream(String),
    /// The file of acknowledged readings could not be written.
    #[error("writing {path}: {source}")]
    Acknowledged {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A task of the generator died.
    #[error("a task of the load generator died: {0}")]
    TaskDied(String),
}

/// What all connections share.
struct Shared {
    options: LoadOptions,
    /// When the first request is due.
    start: Instant,
    /// When no more requests are begun.
    deadline: Option<Instant>,
    /// Readings that may still be begun.
    budget: AtomicU64,
    /// Counts for the progress display only; the summary adds up the connections' own.
    accepted: AtomicU64,
    failed: AtomicU64,
    shutdown: CancellationToken,
    progress: Arc<dyn Progress>,
    acknowledged: Option<AcknowledgedFile>,
}

impl Shared {
    /// Takes up to `wanted` readings out of the budget.
    fn reserve(&self, wanted: u64) -> u64 {
        let mut granted = 0;
        // Relaxed: the number itself is all that is shared.
        let _ = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            granted = left.min(wanted);
            Some(left - granted)
        });
        granted
    }

    fn is_over(&self) -> bool {
        self.shutdown.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Runs the load. `shutdown` ends it early; that is no error.
///
/// # Errors
/// See [`LoadError`]. Failures of single requests are counted in the summary instead.
pub async fn run(
    options: LoadOptions,
    progress: Arc<dyn Progress>,
    shutdown: CancellationToken,
) -> Result<LoadSummary, LoadError> {
    options.check()?;
    let result = run_checked(options, Arc::clone(&progress), shutdown).await;
    progress.finish();
    result
}

async fn run_checked(
    options: LoadOptions,
    progress: Arc<dyn Progress>,
    shutdown: CancellationToken,
) -> Result<LoadSummary, LoadError> {
    let connections = options.connections.min(options.sensors);
    let before = server::read_counts(&options.server, &options.sensor_topic).await;
    // Every connection is opened before the clock starts; one that can't be opened now is a mistake in the address.
    let mut tasks = Vec::with_capacity(connections);
    for index in 0..connections {
        tasks.push(ConnectionTask::open(&options, index, connections).await.map_err(LoadError::Connect)?);
    }
    let probes = match options.alert_probes_per_second {
        Some(rate) => {
            Some(probe::start(&options.server, rate, &options.producer, shutdown.child_token()).await?)
        }
        None => None,
    };
    let acknowledged = match &options.acknowledged {
        Some(path) => Some(AcknowledgedFile::create(path.clone())?),
        None => None,
    };
    let (duration, budget) = match options.stop {
        StopAfter::Duration(duration) => (Some(duration), u64::MAX),
        StopAfter::Readings(count) => (None, count),
    };
    let cpu_before = process_cpu_seconds();
    let start = Instant::now();
    let shared = Arc::new(Shared {
        start,
        deadline: duration.and_then(|duration| start.checked_add(duration)),
        budget: AtomicU64::new(budget),
        accepted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        shutdown,
        progress,
        acknowledged,
        options,
    });
    let total = gather(&shared, tasks).await;
    let elapsed = start.elapsed();
    let cpu_s = cpu_before.and_then(|before| Some(process_cpu_seconds()? - before));
    let alert_latency = match probes {
        Some(probes) => Some(probes.finish().await),
        None => None,
    };
    let total = total?;
    let shared =
        Arc::into_inner(shared).ok_or_else(|| LoadError::TaskDied("a connection is still at work".into()))?;
    if let Some(file) = shared.acknowledged {
        file.finish().await?;
    }
    let probe_readings = alert_latency.as_ref().map_or(0, AlertLatency::readings);
    let server_counts = server::compare(
        &shared.options,
        before,
        total.tally.accepted + probe_readings,
        total.tally.unanswered,
    )
    .await;
    Ok(summary::summarise(&shared.options, connections, elapsed, cpu_s, &total, server_counts, alert_latency))
}

/// Runs the connections to their end and adds up what they counted.
async fn gather(shared: &Arc<Shared>, tasks: Vec<ConnectionTask>) -> Result<ConnectionResult, LoadError> {
    let count = tasks.len();
    let mut running = JoinSet::new();
    for (index, task) in tasks.into_iter().enumerate() {
        let schedule = match shared.options.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(Schedule::new(rate / shared.options.batch as f64, index, count)),
        };
        let shared = Arc::clone(shared);
        running.spawn(async move { task.run(&shared, schedule).await });
    }
    let mut total = ConnectionResult::new();
    let mut refusal = None;
    let mut ticks = tokio::time::interval(UPDATE_INTERVAL);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => break,
                Some(Ok(Ok(result))) => total.add(&result),
                Some(Ok(Err(error))) => {
                    shared.shutdown.cancel();
                    refusal = Some(error);
                }
                Some(Err(died)) => {
                    shared.shutdown.cancel();
                    refusal = Some(LoadError::TaskDied(died.to_string()));
                }
            },
            _ = ticks.tick() => show_progress(shared),
        }
    }
    match refusal {
        Some(error) => Err(error),
        None => Ok(total),
    }
}

fn show_progress(shared: &Shared) {
    let elapsed = shared.start.elapsed();
    let accepted = shared.accepted.load(Ordering::Relaxed);
    let failed = shared.failed.load(Ordering::Relaxed);
    let share = match shared.options.stop {
        StopAfter::Duration(duration) => elapsed.as_secs_f64() / duration.as_secs_f64(),
        StopAfter::Readings(count) => (accepted + failed) as f64 / count as f64,
    };
    let detail = if failed > 0 { format!("{} not accepted", grouped(failed)) } else { String::new() };
    shared.progress.update(&ProgressState::measured(accepted, Some(share), elapsed, detail));
}

/// Processor time that this process has used, where the system tells (Linux). Whoever runs more than a load in one process
/// gets the sum.
fn process_cpu_seconds() -> Option<f64> {
    // proc(5): fields 14 and 15 of stat, in ticks of 1/100 s; the second field is in parentheses and may contain blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}
