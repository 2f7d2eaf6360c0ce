//! What a run found, as JSON and as text.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::connection::ConnectionResult;
pub use super::connection::LoadTally;
use super::{LoadOptions, Rate};
use crate::progress::{grouped, rate, spoken};

/// What a run sent, what became of it, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadSummary {
    /// Readings per second that were asked for; `None` for as many as possible.
    pub target_per_s: Option<f64>,
    /// Connections that were used.
    pub connections: usize,
    /// Readings in one request.
    pub batch: usize,
    /// Sensors that the readings were of.
    pub sensors: usize,
    /// From the first request's instant to the last answer's, in seconds.
    pub duration_s: f64,
    /// What became of the readings.
    #[serde(flatten)]
    pub tally: LoadTally,
    /// Accepted readings per second.
    pub accepted_per_s: f64,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Megabytes (10^6) of bodies per second.
    pub body_mb_per_s: f64,
    /// Latency of answered requests.
    pub latency: LatencySummary,
    /// How late requests of a fixed rate were sent although their connection was free: the generator's own doing.
    pub lateness: LatencySummary,
    /// Processor time that the generator's process used per accepted reading, in microseconds, where the system tells.
    pub generator_cpu_us_per_reading: Option<f64>,
    /// What the server counted.
    pub server: ServerCounts,
    /// From reading to alert, if measured.
    pub alert_latency: Option<AlertLatency>,
    /// The first few reasons for rejections.
    pub rejections: Vec<String>,
    /// Why the server's log took no records, if it refused some.
    pub log_refusal: Option<String>,
}

/// Percentiles of durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

/// What the server says it gained during the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ServerCounts {
    /// By its count of accepted readings, if told, and if it did not start anew meanwhile.
    pub accepted: Option<u64>,
    /// By the records in the readings' topic, if told.
    pub stored: Option<u64>,
    /// Whether that fits what it acknowledged.
    pub agreement: Agreement,
}

/// Whether the server's count fits its acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// At least what was acknowledged and at most that and the unanswered ones.
    Agrees,
    /// Fewer: acknowledged readings are missing; or more: somebody else sent readings too.
    Differs,
    /// The server did not tell.
    Unknown,
}

/// From reading to alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertLatency {
    /// Probes that were accepted.
    pub probes: u64,
    /// Probes that were not.
    pub failed: u64,
    /// Accepted probes whose alert did not come.
    pub missing: u64,
    /// Normal readings that were sent at the end to resolve the probes' alerts.
    pub resolving_readings: u64,
    /// How often the stream said that it left events out.
    pub stream_gaps: u64,
    /// Why the stream ended early, if it did.
    pub stream_error: Option<String>,
    /// The delays.
    pub delay: LatencySummary,
}

impl AlertLatency {
    /// Readings that the probes added to the run's own.
    pub(super) fn readings(&self) -> u64 {
        self.probes + self.resolving_readings
    }
}

impl LatencySummary {
    /// Of a histogram in microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            p999_ms: ms(histogram.value_at_quantile(0.999)),
            max_ms: ms(histogram.max()),
        }
    }
}

pub(super) fn summarise(
    options: &LoadOptions,
    connections: usize,
    elapsed: Duration,
    cpu_s: Option<f64>,
    total: &ConnectionResult,
    server: ServerCounts,
    alert_latency: Option<AlertLatency>,
) -> LoadSummary {
    let tally = total.tally;
    let seconds = elapsed.as_secs_f64().max(1e-9);
    LoadSummary {
        target_per_s: match options.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate),
        },
        connections,
        batch: options.batch,
        sensors: options.sensors,
        duration_s: seconds,
        tally,
        accepted_per_s: tally.accepted as f64 / seconds,
        requests_per_s: tally.requests as f64 / seconds,
        body_mb_per_s: tally.body_bytes as f64 / seconds / 1e6,
        latency: LatencySummary::of(&total.latency),
        lateness: LatencySummary::of(&total.lateness),
        generator_cpu_us_per_reading: cpu_s
            .filter(|_| tally.accepted > 0)
            .map(|cpu_s| cpu_s * 1e6 / tally.accepted as f64),
        server,
        alert_latency,
        rejections: total.rejections.clone(),
        log_refusal: total.log_refusal.clone(),
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none measured");
        }
        let Self { p50_ms, p99_ms, p999_ms, max_ms, .. } = self;
        write!(f, "p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, p99.9 {p999_ms:.2} ms, max {max_ms:.2} ms")
    }
}

impl fmt::Display for LoadSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let took = Duration::try_from_secs_f64(self.duration_s).unwrap_or_default();
        writeln!(
            f,
            "{} readings of {} sensors in {}, {} connections, {} readings a request",
            grouped(tally.sent),
            grouped(self.sensors as u64),
            spoken(took),
            self.connections,
            self.batch
        )?;
        let target = self.target_per_s.map_or_else(String::new, |target| format!(" of {}/s", rate(target)));
        writeln!(
            f,
            "accepted    {} ({}/s{target}; {} requests/s, {:.1} MB/s)",
            grouped(tally.accepted),
            rate(self.accepted_per_s),
            rate(self.requests_per_s),
            self.body_mb_per_s
        )?;
        writeln!(
            f,
            "otherwise   {} rejected, {} overloaded, {} unanswered, {} unsent; {} connections lost",
            grouped(tally.rejected),
            grouped(tally.overloaded),
            grouped(tally.unanswered),
            grouped(tally.unsent),
            tally.disconnects
        )?;
        for rejection in &self.rejections {
            writeln!(f, "            rejected: {rejection}")?;
        }
        if let Some(reason) = &self.log_refusal {
            writeln!(f, "NOT STORED  {}: {reason}", grouped(tally.not_stored))?;
        }
        writeln!(f, "latency     {}", self.latency)?;
        if self.lateness.count > 0 {
            writeln!(f, "generator   late by {}", self.lateness)?;
        }
        if let Some(micros) = self.generator_cpu_us_per_reading {
            writeln!(f, "generator   {micros:.2} µs of processor time a reading")?;
        }
        writeln!(f, "{}", self.server_line())?;
        if let Some(alerts) = &self.alert_latency {
            writeln!(f, "to alert    {}", alerts.delay)?;
            writeln!(
                f,
                "            {} probes, {} without an alert, {} not accepted, {} gaps in the stream",
                alerts.probes, alerts.missing, alerts.failed, alerts.stream_gaps
            )?;
            if let Some(error) = &alerts.stream_error {
                writeln!(f, "            the stream ended early: {error}")?;
            }
        }
        Ok(())
    }
}

impl LoadSummary {
    /// What makes the run a failure, if something does: readings that the server could not store, or that it acknowledged
    /// and doesn't have.
    pub fn failure(&self) -> Option<String> {
        if let Some(reason) = &self.log_refusal {
            let count = grouped(self.tally.not_stored);
            return Some(format!("the server could not store {count} readings: {reason}"));
        }
        let missing = self.missing().filter(|_| self.server.agreement == Agreement::Differs)?;
        Some(format!("{} acknowledged readings are missing on the server", grouped(missing)))
    }

    /// How many acknowledged readings the server's count lacks.
    fn missing(&self) -> Option<u64> {
        let gained = self.server.stored.or(self.server.accepted).unwrap_or(0);
        self.acknowledged().checked_sub(gained).filter(|missing| *missing > 0)
    }

    /// Readings of the run and of its probes.
    fn acknowledged(&self) -> u64 {
        self.tally.accepted + self.alert_latency.as_ref().map_or(0, AlertLatency::readings)
    }

    fn server_line(&self) -> String {
        let told = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), grouped);
        let counts = format!("stored {}, counted {}", told(self.server.stored), told(self.server.accepted));
        match self.server.agreement {
            Agreement::Agrees => format!("server      {counts}: agrees with the acknowledgements"),
            Agreement::Unknown => "server      does not tell what it stored".to_owned(),
            Agreement::Differs => {
                let gained = self.server.stored.or(self.server.accepted).unwrap_or(0);
                let acknowledged = self.acknowledged();
                let verdict = if let Some(missing) = self.missing() {
                    format!("{} acknowledged readings are MISSING", grouped(missing))
                } else {
                    let surplus = gained - acknowledged - self.tally.unanswered.min(gained - acknowledged);
                    format!("{} more than acknowledged: somebody else sends readings too", grouped(surplus))
                };
                format!("server      {counts}: DIFFERS, {verdict}")
            }
        }
    }
}
