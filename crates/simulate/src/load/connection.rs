//! One connection of a run: build a batch, wait until it is due, send it, count what became of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::{ClientError, Connection, RequestTemplate};
use crate::progress::grouped;
use crate::upload::{IngestAnswer, READINGS_PATH, UploadError, read_answer};

use super::lines::{LineBuilder, SentReading};
use super::schedule::{Schedule, latency_origin};
use super::{LoadError, LoadOptions, MAX_LATENCY, OVERLOAD_PAUSE, RECONNECT_PAUSE, Shared};

/// What became of readings. Each is in exactly one of the fields after `sent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LoadTally {
    /// Requests that were begun.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Readings that were begun to be sent.
    pub sent: u64,
    /// Durable, says the server.
    pub accepted: u64,
    /// Refused one by one.
    pub rejected: u64,
    /// Refused because the server was busy.
    pub overloaded: u64,
    /// Refused because the server's log takes no records: the disk is full, or a write failed.
    pub not_stored: u64,
    /// Sent, but the connection broke or the time limit passed: may be stored.
    pub unanswered: u64,
    /// Never left, because there was no connection.
    pub unsent: u64,
    /// Connections that were lost, those that the server closed while they were idle included.
    pub disconnects: u64,
}

impl LoadTally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.body_bytes += other.body_bytes;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.overloaded += other.overloaded;
        self.not_stored += other.not_stored;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.disconnects += other.disconnects;
    }
}

/// What one connection, or all of them, counted and measured. Times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct ConnectionResult {
    pub tally: LoadTally,
    /// Latency of answered requests.
    pub latency: Histogram<u64>,
    /// How late requests of a fixed rate were sent although their connection was free.
    pub lateness: Histogram<u64>,
    /// The first few rejections, for people.
    pub rejections: Vec<String>,
    /// Why the server's log took no records, at the newest refusal.
    pub log_refusal: Option<String>,
}

const REJECTIONS_KEPT: usize = 5;

impl ConnectionResult {
    pub(super) fn new() -> Self {
        Self {
            tally: LoadTally::default(),
            latency: histogram(),
            lateness: histogram(),
            rejections: Vec::new(),
            log_refusal: None,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.lateness.add(&other.lateness).expect("both have the same bounds");
        let room = REJECTIONS_KEPT.saturating_sub(self.rejections.len());
        self.rejections.extend(other.rejections.iter().take(room).cloned());
        self.log_refusal = self.log_refusal.take().or_else(|| other.log_refusal.clone());
    }
}

/// Microseconds from 1 to [`MAX_LATENCY`], three significant digits.
pub(super) fn histogram() -> Histogram<u64> {
    let longest = u64::try_from(MAX_LATENCY.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).expect("the bounds are constants that fit")
}

/// Counts a duration, the longest one if it is longer.
pub(super) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
}

/// A connection that is open and has its sensors.
pub(super) struct ConnectionTask {
    connection: Option<Connection>,
    template: RequestTemplate,
    lines: LineBuilder,
    sent: Vec<SentReading>,
    result: ConnectionResult,
    /// When the connection's last answer came, counted from the start of the run.
    free_since: Duration,
}

/// Whether a connection task goes on.
enum Next {
    GoOn,
    Stop,
}

impl ConnectionTask {
    pub(super) async fn open(
        options: &LoadOptions,
        index: usize,
        connections: usize,
    ) -> Result<Self, ClientError> {
        let content_type = if options.batch == 1 { "application/json" } else { "application/x-ndjson" };
        let template =
            RequestTemplate::post(&options.server, READINGS_PATH, content_type, &options.producer)?;
        let (prefix, sensors) = (&options.sensor_prefix, options.sensors);
        Ok(Self {
            connection: Some(Connection::open(&options.server).await?),
            template,
            lines: LineBuilder::new(prefix, sensors, index, connections, options.alerts_fraction),
            sent: Vec::new(),
            result: ConnectionResult::new(),
            free_since: Duration::ZERO,
        })
    }

    pub(super) async fn run(
        mut self,
        shared: &Shared,
        mut schedule: Option<Schedule>,
    ) -> Result<ConnectionResult, LoadError> {
        while !shared.is_over() {
            let due = schedule.as_mut().map(Schedule::next_due);
            if let Some(due) = due
                && !wait_until(shared, due).await
            {
                break;
            }
            let count = shared.reserve(shared.options.batch as u64);
            if count == 0 {
                break;
            }
            match self.send(shared, due, count).await? {
                Next::GoOn => {}
                Next::Stop => break,
            }
        }
        Ok(self.result)
    }

    /// One request.
    async fn send(&mut self, shared: &Shared, due: Option<Duration>, count: u64) -> Result<Next, LoadError> {
        self.result.tally.sent += count;
        if self.connection.is_none() && !self.reconnect(shared).await {
            self.result.tally.unsent += count;
            shared.failed.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            return Ok(Next::GoOn);
        }
        let body = self.body(shared, count);
        let sent_at = shared.start.elapsed();
        let origin = due.map_or(sent_at, |due| latency_origin(due, self.free_since, sent_at));
        if let Some(due) = due
            && self.free_since <= due
        {
            record(&mut self.result.lateness, sent_at.saturating_sub(due));
        }
        let answer = self.exchange(shared, body).await;
        self.free_since = shared.start.elapsed();
        match answer {
            Ok(answer) => {
                record(&mut self.result.latency, self.free_since.saturating_sub(origin));
                self.count_answer(shared, count, &answer).await;
                Ok(Next::GoOn)
            }
            Err(error) => self.count_failure(shared, count, error).await,
        }
    }

    fn body(&mut self, shared: &Shared, count: u64) -> Bytes {
        let wanted = shared.acknowledged.is_some();
        self.sent.clear();
        let count = usize::try_from(count).unwrap_or(0);
        let body = self.lines.batch(count, crate::now(), wanted.then_some(&mut self.sent));
        self.result.tally.requests += 1;
        self.result.tally.body_bytes += body.len() as u64;
        body
    }

    async fn exchange(&mut self, shared: &Shared, body: Bytes) -> Result<IngestAnswer, UploadError> {
        let limit = shared.options.answer_limit;
        let mut answer = Err(ClientError::ClosedWhileIdle);
        if let Some(mut connection) = self.connection.take() {
            answer = connection.exchange(&self.template, body.clone(), limit).await;
            self.connection = Some(connection);
        }
        // Servers close connections that were idle for long; nothing was sent on it, so a fresh one is no second sending.
        if matches!(answer, Err(ClientError::ClosedWhileIdle)) {
            self.result.tally.disconnects += 1;
            let mut connection = Connection::open(&shared.options.server).await?;
            answer = connection.exchange(&self.template, body, limit).await;
            self.connection = Some(connection);
        }
        if answer.is_err() {
            self.connection = None;
        }
        read_answer(&answer?)
    }

    async fn count_answer(&mut self, shared: &Shared, count: u64, answer: &IngestAnswer) {
        let rejected = answer.rejected.len() as u64;
        let tally = &mut self.result.tally;
        tally.accepted += answer.accepted;
        tally.rejected += rejected;
        // A server that answers for fewer readings than it was sent has lost some; nothing may hide that.
        tally.unanswered += count.saturating_sub(answer.accepted + rejected);
        let room = REJECTIONS_KEPT.saturating_sub(self.result.rejections.len());
        self.result
            .rejections
            .extend(answer.rejected.iter().take(room).map(|rejected| rejected.error.clone()));
        shared.accepted.fetch_add(answer.accepted, std::sync::atomic::Ordering::Relaxed);
        shared.failed.fetch_add(rejected, std::sync::atomic::Ordering::Relaxed);
        if let Some(file) = &shared.acknowledged {
            let refused: std::collections::HashSet<usize> = answer.rejected.iter().map(|r| r.index).collect();
            let kept = self.sent.iter().enumerate().filter(|(index, _)| !refused.contains(index));
            file.append(kept.map(|(_, reading)| *reading), &self.lines).await;
        }
    }

    async fn count_failure(
        &mut self,
        shared: &Shared,
        count: u64,
        error: UploadError,
    ) -> Result<Next, LoadError> {
        shared.failed.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let tally = &mut self.result.tally;
        match error {
            UploadError::Busy { retry_after, .. } => {
                if error.may_have_arrived() {
                    tally.unanswered += count;
                } else {
                    tally.overloaded += count;
                }
                let pause = retry_after.unwrap_or(OVERLOAD_PAUSE).min(Duration::from_secs(5));
                pause_unless_over(shared, pause).await;
                Ok(Next::GoOn)
            }
            UploadError::LogRefuses { detail, retry_after } => {
                tally.not_stored += count;
                if self.result.log_refusal.is_none() {
                    shared.progress.note(&format!("the server can't store readings: {detail}"));
                }
                self.result.log_refusal = Some(detail);
                let pause = retry_after.unwrap_or(OVERLOAD_PAUSE).min(Duration::from_secs(5));
                pause_unless_over(shared, pause).await;
                Ok(Next::GoOn)
            }
            UploadError::Client(ref lost) if !matches!(lost, ClientError::Request(_)) => {
                if lost.may_have_arrived() {
                    tally.unanswered += count;
                } else {
                    tally.unsent += count;
                }
                // A connection that could not be opened is not one that was lost.
                tally.disconnects += u64::from(lost.may_have_arrived());
                let lost = format!("{lost}; {} readings without an answer", grouped(count));
                if shared.options.reconnect {
                    shared.progress.note(&format!("{lost}; connecting again"));
                    Ok(Next::GoOn)
                } else {
                    shared.progress.note(&format!("{lost}; this connection is given up"));
                    Ok(Next::Stop)
                }
            }
            fatal => Err(LoadError::Refused(fatal)),
        }
    }

    /// Tries once; the pause before is the run's own pace for reconnecting.
    async fn reconnect(&mut self, shared: &Shared) -> bool {
        pause_unless_over(shared, RECONNECT_PAUSE).await;
        self.connection = Connection::open(&shared.options.server).await.ok();
        self.connection.is_some()
    }
}

/// Waits until `due` after the start; false if the run is over before.
async fn wait_until(shared: &Shared, due: Duration) -> bool {
    let Some(wake) = shared.start.checked_add(due) else { return false };
    if shared.deadline.is_some_and(|deadline| wake >= deadline) {
        // Nothing more is due before the end; wait for that, so that all connections end together.
        if let Some(deadline) = shared.deadline {
            pause_unless_over(shared, deadline.saturating_duration_since(Instant::now())).await;
        }
        return false;
    }
    pause_unless_over(shared, wake.saturating_duration_since(Instant::now())).await;
    !shared.shutdown.is_cancelled()
}

async fn pause_unless_over(shared: &Shared, pause: Duration) {
    if pause.is_zero() {
        return;
    }
    tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
