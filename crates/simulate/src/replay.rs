//! A recorded series sent to a running Farol, with its own timestamps.
//!
//! # Flow
//! A thread reads the file and hands samples over in chunks (at most [`CHUNKS_AHEAD`] wait); the sender waits until a
//! sample is due, makes NDJSON batches of what is, and sends one batch at a time. The first sample is due at once, the
//! others when the series' clock, running [`Speed::Factor`] times as fast as the wall clock, reaches them; a sample older
//! than its predecessor is due at once.
//!
//! # What is sent twice, and when
//! A batch is sent again after a busy server (429, 502, 503, 504) or a lost connection, with growing pauses, for up to
//! [`ReplayOptions::retry_for`]. A batch that was acknowledged is never sent again. If the connection breaks *between* the
//! server's storing a batch and its answer's arrival, that one batch is stored twice: delivery is at least once, the window
//! is one batch, and [`ReplaySummary::resent_after_lost_answer`] tells how often it was open. Timestamps are the same both
//! times.
//!
//! # Failures
//! Rows that are no samples, and readings that the server rejects, are reported with their line, counted, and left out;
//! more than [`ReplayOptions::max_errors`] end the replay. A server that can't be reached at the start ends it at once. A replay that ends early says from which row on to go on
//! (`skip_rows`).

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_event::{SensorTypeDefaults, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{ClientError, ServerUrl};
use crate::line::{LineIdentity, LineTemplate};
use crate::progress::{Progress, ProgressState, UPDATE_INTERVAL, grouped, rate, spoken};
use crate::series::{ColumnChoice, Sample, SeriesError, SeriesItem, SeriesReader};
use crate::upload::{IngestAnswer, UploadError, Uploader, retry};

mod reader;

use reader::{Chunk, read_series};

/// How many chunks of samples wait between the reading thread and the sender.
pub const CHUNKS_AHEAD: usize = 4;
/// The largest accepted batch.
pub const MAX_BATCH: usize = 10_000;
/// How many bad rows or rejected readings are told one by one.
pub const MAX_NOTES: u64 = 20;

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The CSV file.
    pub file: PathBuf,
    /// Which columns, if they are not to be detected.
    pub columns: ColumnChoice,
    /// The server.
    pub server: ServerUrl,
    /// The sensor that the series becomes.
    pub sensor_id: String,
    /// Its type.
    pub sensor_type: String,
    /// Its unit; the type's usual one if `None`.
    pub unit: Option<String>,
    /// Section of the plant.
    pub factory_section: Option<String>,
    /// The machine that carries it.
    pub machine_id: Option<String>,
    /// Zone within the section.
    pub zone: Option<String>,
    /// How fast.
    pub speed: Speed,
    /// Readings in one request, from 1 to [`MAX_BATCH`].
    pub batch: usize,
    /// Bad rows and rejected readings after which the replay stops.
    pub max_errors: u64,
    /// Rows (bad ones included) to leave out at the start, to go on with an interrupted replay.
    pub skip_rows: u64,
    /// How long one batch is tried again before the replay gives up.
    pub retry_for: Duration,
    /// The name that the server shows as producer.
    pub producer: String,
}

impl ReplayOptions {
    /// With the usual values for everything that has one: as fast as acknowledged, batches of 1000, up to 100 errors, a
    /// minute of retries.
    pub fn new(
        file: impl Into<PathBuf>,
        server: ServerUrl,
        sensor_id: impl Into<String>,
        sensor_type: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            columns: ColumnChoice::default(),
            server,
            sensor_id: sensor_id.into(),
            sensor_type: sensor_type.into(),
            unit: None,
            factory_section: None,
            machine_id: None,
            zone: None,
            speed: Speed::Max,
            batch: 1000,
            max_errors: 100,
            skip_rows: 0,
            retry_for: Duration::from_secs(60),
            producer: "replay".into(),
        }
    }
}

/// How fast a series is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the server acknowledges.
    Max,
    /// Seconds of the series per second of the wall clock; positive and finite.
    Factor(f64),
}

/// A text that is no [`Speed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a speed: use a positive number of series seconds per second such as 3600, or max")]
pub struct SpeedError(String);

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self::Factor(factor)),
            _ => Err(SpeedError(text.chars().take(64).collect())),
        }
    }
}

impl Speed {
    /// How long after the first sample, on the wall clock, a sample is due.
    pub fn due(self, first: Timestamp, sample: Timestamp) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            Self::Factor(factor) => {
                let seconds = sample.since(first).as_secs_f64() / factor;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }
}

/// Why a replay ended early. What was acknowledged until then stays stored.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file could not be opened.
    #[error("opening {path}: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be read as a series, or not to its end.
    #[error("{path}: {source}")]
    Series {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: SeriesError,
    },
    /// An option is not acceptable.
    #[error("{0}")]
    Option(String),
    /// Too many bad rows and rejected readings.
    #[error("stopped after {errors} bad rows or rejected readings; the last one: {last}")]
    TooManyErrors {
        /// How many.
        errors: u64,
        /// The last one, with its line.
        last: String,
    },
    /// The server could not be reached even once: most likely none runs there.
    #[error(
        "can't reach {server} ({source}): start Farol there with `farol run`, or name another with --url"
    )]
    Unreachable {
        /// Where.
        server: ServerUrl,
        /// What the system said.
        source: ClientError,
    },
    /// The server refused a batch, or was not to be had for too long.
    #[error(
        "the batch of lines {first_line} to {last_line}: {source}; everything before it is stored, go on with --skip-rows {rows_done}"
    )]
    Upload {
        /// The line of the batch's first reading.
        first_line: u64,
        /// The line of the batch's last reading.
        last_line: u64,
        /// Rows before the batch.
        rows_done: u64,
        /// The last try's error.
        source: UploadError,
    },
    /// The thread that reads the file died.
    #[error("reading {path} ended unexpectedly")]
    ReaderDied {
        /// Which file.
        path: PathBuf,
    },
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct ReplaySummary {
    /// Rows of the file that were dealt with, header and blank lines not counted.
    pub rows: u64,
    /// Rows that were skipped because the options said so.
    pub skipped_rows: u64,
    /// Rows that were no samples.
    pub bad_rows: u64,
    /// Readings that were sent, each counted once.
    pub sent: u64,
    /// Readings that the server says are durable.
    pub accepted: u64,
    /// Readings that the server rejected.
    pub rejected: u64,
    /// How often a batch was sent again.
    pub retries: u64,
    /// How often a batch was sent again although its first sending may have been stored.
    pub resent_after_lost_answer: u64,
    /// Samples that are older than the one before them.
    pub out_of_order: u64,
    /// Whether times without an offset were taken as UTC.
    pub utc_assumed: bool,
    /// The first sample's time.
    pub first_timestamp: Option<Timestamp>,
    /// The newest sample's time.
    pub last_timestamp: Option<Timestamp>,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// Whether it was stopped before the end of the file.
    pub interrupted: bool,
}

impl std::fmt::Display for ReplaySummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per_second = if self.duration_s > 0.0 { self.accepted as f64 / self.duration_s } else { 0.0 };
        let took = Duration::try_from_secs_f64(self.duration_s).unwrap_or_default();
        writeln!(
            f,
            "{} readings sent, {} accepted, {} rejected in {} ({}/s)",
            grouped(self.sent),
            grouped(self.accepted),
            grouped(self.rejected),
            spoken(took),
            rate(per_second)
        )?;
        if let (Some(first), Some(last)) = (self.first_timestamp, self.last_timestamp) {
            let assumed = if self.utc_assumed { " (no offset given: taken as UTC)" } else { "" };
            writeln!(f, "from {first} to {last}{assumed}")?;
        }
        if self.skipped_rows > 0 {
            writeln!(f, "{} rows skipped, as asked", grouped(self.skipped_rows))?;
        }
        if self.bad_rows > 0 {
            writeln!(f, "{} bad rows left out", grouped(self.bad_rows))?;
        }
        if self.out_of_order > 0 {
            writeln!(f, "{} samples are older than the one before them", grouped(self.out_of_order))?;
        }
        if self.retries > 0 {
            writeln!(
                f,
                "{} times a batch was sent again, {} of them after a lost answer: such a batch may be stored twice",
                self.retries, self.resent_after_lost_answer
            )?;
        }
        if self.interrupted {
            let rows = self.rows + self.skipped_rows;
            writeln!(f, "stopped before the end of the file; go on with --skip-rows {rows}")?;
        }
        Ok(())
    }
}

/// Replays a file. `shutdown` ends it after the batch under way; that is no error.
///
/// # Errors
/// See [`ReplayError`].
pub async fn run(
    options: ReplayOptions,
    progress: Arc<dyn Progress>,
    shutdown: CancellationToken,
) -> Result<ReplaySummary, ReplayError> {
    let mut replay = Replay::new(options, Arc::clone(&progress), shutdown)?;
    let result = replay.run().await;
    progress.finish();
    result.map(|()| replay.summary)
}

struct Replay {
    options: ReplayOptions,
    progress: Arc<dyn Progress>,
    shutdown: CancellationToken,
    uploader: Uploader,
    template: LineTemplate,
    summary: ReplaySummary,
    batch: Batch,
    start: Instant,
    last_update: Instant,
    /// Share of the file that was read when the newest chunk was.
    share: f64,
}

/// Readings that are due and not sent yet.
#[derive(Default)]
struct Batch {
    body: Vec<u8>,
    lines: Vec<u64>,
    /// Rows of the file up to and including the batch's last one, bad ones included.
    rows: u64,
}

impl Replay {
    fn new(
        options: ReplayOptions,
        progress: Arc<dyn Progress>,
        shutdown: CancellationToken,
    ) -> Result<Self, ReplayError> {
        if !(1..=MAX_BATCH).contains(&options.batch) {
            return Err(ReplayError::Option(format!("a batch must have 1 to {MAX_BATCH} readings")));
        }
        if options.sensor_id.is_empty() || options.sensor_type.is_empty() {
            return Err(ReplayError::Option("sensor id and sensor type must not be empty".into()));
        }
        let uploader = Uploader::new(options.server.clone(), "application/x-ndjson", &options.producer)
            .map_err(|e: ClientError| ReplayError::Option(e.to_string()))?;
        let usual_unit = SensorTypeDefaults::of(&options.sensor_type).map(|defaults| defaults.unit);
        let template = LineTemplate::new(LineIdentity {
            sensor_id: &options.sensor_id,
            sensor_type: &options.sensor_type,
            factory_section: options.factory_section.as_deref(),
            machine_id: options.machine_id.as_deref(),
            zone: options.zone.as_deref(),
            unit: options.unit.as_deref().or(usual_unit),
        });
        let now = Instant::now();
        Ok(Self {
            options,
            progress,
            shutdown,
            uploader,
            template,
            summary: ReplaySummary::default(),
            batch: Batch::default(),
            start: now,
            last_update: now,
            share: 0.0,
        })
    }

    async fn run(&mut self) -> Result<(), ReplayError> {
        let path = self.options.file.clone();
        let file = File::open(&path).map_err(|source| ReplayError::Open { path: path.clone(), source })?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        // A server that goes away is waited for; one that was never there is a mistake in the address.
        self.uploader
            .connect()
            .await
            .map_err(|source| ReplayError::Unreachable { server: self.options.server.clone(), source })?;
        let (chunks, mut received) = mpsc::channel(CHUNKS_AHEAD);
        let columns = self.options.columns.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let series = SeriesReader::open(BufReader::with_capacity(64 * 1024, file), &columns)?;
            read_series(series, length, &chunks)
        });
        let sent = self.send_chunks(&mut received).await;
        // The reading thread ends when nobody takes its chunks any more.
        drop(received);
        let read = reading.await;
        self.summary.duration_s = self.start.elapsed().as_secs_f64();
        sent?;
        match read {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(ReplayError::Series { path, source }),
            Err(_) => Err(ReplayError::ReaderDied { path }),
        }
    }

    async fn send_chunks(&mut self, received: &mut mpsc::Receiver<Chunk>) -> Result<(), ReplayError> {
        while let Some(chunk) = received.recv().await {
            self.note_assumed_utc(chunk.utc_assumed);
            let (before, rows) = (self.share, chunk.items.len() as f64);
            for (index, item) in chunk.items.into_iter().enumerate() {
                self.share = before + (chunk.share - before) * index as f64 / rows;
                if self.shutdown.is_cancelled() {
                    break;
                }
                self.take(item).await?;
            }
            self.share = chunk.share;
            if self.shutdown.is_cancelled() {
                self.summary.interrupted = true;
                break;
            }
        }
        self.flush().await
    }

    /// Deals with one row: leaves it out, counts it as bad, or puts it into the batch when it is due.
    async fn take(&mut self, item: SeriesItem) -> Result<(), ReplayError> {
        if self.summary.skipped_rows < self.options.skip_rows {
            self.summary.skipped_rows += 1;
            self.batch.rows += 1;
            return Ok(());
        }
        match item {
            SeriesItem::BadRow { line, problem } => {
                self.summary.rows += 1;
                self.batch.rows += 1;
                self.summary.bad_rows += 1;
                self.count_error(format!("line {line}: {problem}"))
            }
            SeriesItem::Sample(sample) => {
                self.wait_until_due(&sample).await?;
                if self.shutdown.is_cancelled() {
                    return Ok(());
                }
                self.summary.rows += 1;
                self.batch.rows += 1;
                self.template.write(sample.timestamp, sample.value, &mut self.batch.body);
                self.batch.lines.push(sample.line);
                if self.batch.lines.len() >= self.options.batch {
                    self.flush().await?;
                }
                Ok(())
            }
        }
    }

    async fn wait_until_due(&mut self, sample: &Sample) -> Result<(), ReplayError> {
        let first = match self.summary.first_timestamp {
            Some(first) => first,
            None => {
                self.start = Instant::now();
                *self.summary.first_timestamp.insert(sample.timestamp)
            }
        };
        match self.summary.last_timestamp {
            Some(newest) if sample.timestamp < newest => self.summary.out_of_order += 1,
            _ => self.summary.last_timestamp = Some(sample.timestamp),
        }
        let due = self.options.speed.due(first, sample.timestamp);
        if due <= self.start.elapsed() {
            return Ok(());
        }
        self.flush().await?;
        let Some(wake) = self.start.checked_add(due) else {
            return Err(ReplayError::Option(format!(
                "line {} is due in more than an age at this speed",
                sample.line
            )));
        };
        while Instant::now() < wake && !self.shutdown.is_cancelled() {
            let pause = (wake - Instant::now()).min(UPDATE_INTERVAL);
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.show_progress();
        }
        Ok(())
    }

    /// Sends what is due and waits until it is acknowledged.
    async fn flush(&mut self) -> Result<(), ReplayError> {
        if self.batch.lines.is_empty() {
            return Ok(());
        }
        let rows = self.batch.rows;
        let lines = std::mem::take(&mut self.batch.lines);
        let body = Bytes::from(std::mem::take(&mut self.batch.body));
        let answer = match self.send_until_answered(body).await {
            Ok(answer) => answer,
            Err(source) => {
                let first_line = lines.first().copied().unwrap_or(0);
                let last_line = lines.last().copied().unwrap_or(0);
                let rows_done = rows.saturating_sub(lines.len() as u64);
                return Err(ReplayError::Upload { first_line, last_line, rows_done, source });
            }
        };
        self.summary.sent += lines.len() as u64;
        self.summary.accepted += answer.accepted;
        self.summary.rejected += answer.rejected.len() as u64;
        self.show_progress();
        for rejected in answer.rejected {
            let line = lines.get(rejected.index).copied().unwrap_or(0);
            self.count_error(format!("line {line}: the server rejected the reading: {}", rejected.error))?;
        }
        Ok(())
    }

    async fn send_until_answered(&mut self, body: Bytes) -> Result<IngestAnswer, UploadError> {
        let mut tries = retry(self.options.retry_for).tries();
        loop {
            let sent = self.uploader.send(body.clone()).await;
            let (pause, error) = match (tries.after(&sent), sent) {
                (Some(pause), Err(error)) if !self.shutdown.is_cancelled() => (pause, error),
                (_, sent) => return sent,
            };
            let limit = spoken(self.options.retry_for);
            self.progress.note(&match &error {
                UploadError::Client(ClientError::Connect { source, .. }) => {
                    let server = &self.options.server;
                    format!("can't reach {server}: {source}; trying for {limit}, again in {}", spoken(pause))
                }
                error => format!("{error}; trying for {limit}, again in {}", spoken(pause)),
            });
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(error),
                () = tokio::time::sleep(pause) => {}
            }
            self.summary.retries += 1;
            self.summary.resent_after_lost_answer += u64::from(error.may_have_arrived());
        }
    }

    fn note_assumed_utc(&mut self, assumed: bool) {
        if assumed && !self.summary.utc_assumed {
            self.summary.utc_assumed = true;
            self.progress.note("the file's times name no offset: they are taken as UTC");
        }
    }

    fn count_error(&mut self, text: String) -> Result<(), ReplayError> {
        let errors = self.summary.bad_rows + self.summary.rejected;
        if errors <= MAX_NOTES {
            self.progress.note(&text);
        } else if errors == MAX_NOTES + 1 {
            self.progress.note("further bad rows and rejected readings are only counted");
        }
        if errors > self.options.max_errors {
            return Err(ReplayError::TooManyErrors { errors, last: text });
        }
        Ok(())
    }

    fn show_progress(&mut self) {
        if self.last_update.elapsed() < UPDATE_INTERVAL {
            return;
        }
        self.last_update = Instant::now();
        let errors = self.summary.bad_rows + self.summary.rejected;
        let detail = if errors > 0 { format!("{} left out", grouped(errors)) } else { String::new() };
        let state =
            ProgressState::measured(self.summary.accepted, Some(self.share), self.start.elapsed(), detail);
        self.progress.update(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_divides_the_distance_between_samples() {
        let at = |seconds: i64| Timestamp::from_micros(1_386_018_900_000_000 + seconds * 1_000_000).unwrap();
        let table = [("3600", 7200, 2.0), ("1", 300, 300.0), ("0.5", 10, 20.0), ("max", 1_000_000, 0.0)];
        for (speed, distance, seconds) in table {
            let speed: Speed = speed.parse().unwrap();
            assert_eq!(speed.due(at(0), at(distance)), Duration::from_secs_f64(seconds), "{speed:?}");
            assert_eq!(speed.due(at(0), at(-distance)), Duration::ZERO, "an older sample is due at once");
        }
        assert_eq!(Speed::Factor(f64::MIN_POSITIVE).due(at(0), at(1_000_000)), Duration::MAX);
    }

    #[test]
    fn speeds_that_are_none_are_refused() {
        for text in ["0", "-1", "nan", "inf", "", "fast"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
