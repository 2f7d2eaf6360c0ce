//! Prometheus metrics: what this crate counts itself, and what other parts give by [`MetricsSource`].
//!
//! The text is OpenMetrics 1.0. Label values come from fixed lists (routes as they are written in the router, methods,
//! statuses, reasons) or from what is watched (`services`), so that no client can grow the number of series beyond a
//! bound.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::ingest::body::BodyBudget;
use crate::ingest::rejection::Reason;
use crate::process;

pub(crate) mod services;

/// The media type of the text.
pub(crate) const METRICS_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the request-duration buckets, in seconds. A durable append is an fsync: from half a millisecond up.
const DURATION_BUCKETS: [f64; 13] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A part of Farol that has numbers to show. Called at every scrape; must answer from memory.
pub trait MetricsSource: Send + Sync + 'static {
    /// The numbers as they are now. Samples of one name must stand together and agree in help and kind.
    fn samples(&self) -> Vec<Sample>;
}

/// One number, or one distribution, under one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name without `_total` or unit suffixes added by the format: `farol_log_appended_records`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: SampleValue,
}

/// What a [`Sample`] carries.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    /// Only ever rises while the process lives.
    Counter(u64),
    /// Rises and falls.
    Gauge(f64),
    /// A distribution.
    Histogram {
        /// Upper bound and count of each bucket, not cumulative, in order; the last bound is infinity.
        buckets: Vec<(f64, u64)>,
        /// The sum of all observations.
        sum: f64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    stream: &'static str,
}

/// The counters of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    readings_accepted: Counter,
    readings_rejected: Family<ReasonLabels, Counter>,
    events_accepted: Counter,
    events_rejected: Family<ReasonLabels, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    streams: Gauge,
    frames: Family<StreamLabels, Counter>,
    frames_missed: Family<StreamLabels, Counter>,
}

impl Metrics {
    /// Fresh counters, and what the sources give.
    pub(crate) fn new(sources: Vec<Arc<dyn MetricsSource>>, bodies: BodyBudget) -> Self {
        let durations =
            Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations,
            readings_accepted: Counter::default(),
            readings_rejected: Family::default(),
            events_accepted: Counter::default(),
            events_rejected: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            streams: Gauge::default(),
            frames: Family::default(),
            frames_missed: Family::default(),
        };
        // Every reason exists from the start: a counter that appears with its first event hides that event from rate().
        for reason in Reason::ALL {
            let labels = ReasonLabels { reason: reason.as_str() };
            drop(metrics.readings_rejected.get_or_create(&labels));
            drop(metrics.events_rejected.get_or_create(&labels));
        }
        metrics.register();
        metrics.registry.register_collector(Box::new(ProcessCollector { bodies }));
        for source in sources {
            metrics.registry.register_collector(Box::new(SourceCollector(source)));
        }
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("farol_http_requests", "HTTP requests answered", self.requests.clone());
        r.register_with_unit(
            "farol_http_request_duration",
            "From a request's headers to its answer's",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("farol_http_readings_accepted", "Readings stored durably", self.readings_accepted.clone());
        r.register("farol_http_readings_rejected", "Readings refused", self.readings_rejected.clone());
        r.register("farol_http_events_accepted", "Events stored durably", self.events_accepted.clone());
        r.register("farol_http_events_rejected", "Events refused", self.events_rejected.clone());
        r.register("farol_http_connections", "Open connections", self.connections.clone());
        r.register(
            "farol_http_connections_refused",
            "Connections refused because as many were open as may be",
            self.connections_refused.clone(),
        );
        r.register("farol_http_streams", "Open event streams", self.streams.clone());
        r.register("farol_http_stream_frames", "Frames made for event streams", self.frames.clone());
        r.register(
            "farol_http_stream_frames_missed",
            "Frames that slow stream clients did not get, over all clients",
            self.frames_missed.clone(),
        );
    }

    /// The text of a scrape, with `services` at its end.
    pub(crate) fn text(&self, services: Vec<Sample>) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let mut at_the_end = Registry::default();
        at_the_end.register_collector(Box::new(Given(services)));
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &at_the_end))
            .and_then(|()| encode_eof(&mut text));
        match written {
            Ok(()) => text,
            Err(fmt::Error) => "# a metric could not be written\n# EOF\n".to_owned(),
        }
    }

    pub(crate) fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::HEAD => "HEAD",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            Method::PATCH => "PATCH",
            _ => "other",
        };
        let labels = RequestLabels { method, route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { route: labels.route }).observe(took.as_secs_f64());
    }

    pub(crate) fn readings_accepted(&self, count: u64) {
        self.readings_accepted.inc_by(count);
    }

    pub(crate) fn readings_rejected(&self, reason: Reason, count: u64) {
        if count > 0 {
            self.readings_rejected.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc_by(count);
        }
    }

    /// Readings refused since the start, for every reason together.
    pub(crate) fn readings_rejected_total(&self) -> u64 {
        let of = |reason: Reason| {
            self.readings_rejected.get_or_create(&ReasonLabels { reason: reason.as_str() }).get()
        };
        Reason::ALL.into_iter().map(of).sum()
    }

    pub(crate) fn events_accepted(&self, count: u64) {
        self.events_accepted.inc_by(count);
    }

    pub(crate) fn events_rejected(&self, reason: Reason, count: u64) {
        if count > 0 {
            self.events_rejected.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc_by(count);
        }
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(crate) fn stream_opened(&self) {
        self.streams.inc();
    }

    pub(crate) fn stream_closed(&self) {
        self.streams.dec();
    }

    pub(crate) fn frame(&self, stream: &'static str) {
        self.frames.get_or_create(&StreamLabels { stream }).inc();
    }

    pub(crate) fn frames_missed(&self, stream: &'static str, count: u64) {
        self.frames_missed.get_or_create(&StreamLabels { stream }).inc_by(count);
    }
}

/// The process itself, under the names that every Prometheus client library uses, and the memory held by bodies.
#[derive(Debug)]
struct ProcessCollector {
    bodies: BodyBudget,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usage = process::usage();
        let mut samples = vec![Sample {
            name: "farol_http_body_bytes_held",
            help: "Bytes of request bodies held in memory",
            labels: Vec::new(),
            value: SampleValue::Gauge(as_float(self.bodies.held() as u64)),
        }];
        samples.extend(usage.memory_bytes.map(|bytes| Sample {
            name: "process_resident_memory_bytes",
            help: "Resident memory",
            labels: Vec::new(),
            value: SampleValue::Gauge(as_float(bytes)),
        }));
        write(&samples, &mut encoder)?;
        if let Some(seconds) = usage.cpu_s {
            let mut metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time",
                None,
                MetricType::Counter,
            )?;
            metric.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        Ok(())
    }
}

/// A number for a metric; counts above 2^53 lose their last digits, as everywhere in Prometheus.
#[expect(clippy::cast_precision_loss, reason = "the format's numbers are floats")]
fn as_float(count: u64) -> f64 {
    count as f64
}

struct SourceCollector(Arc<dyn MetricsSource>);

impl fmt::Debug for SourceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceCollector")
    }
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        write(&self.0.samples(), &mut encoder)
    }
}

/// Samples that were asked for before.
#[derive(Debug)]
struct Given(Vec<Sample>);

impl Collector for Given {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        write(&self.0, &mut encoder)
    }
}

/// Writes samples, one description for each run of the same name.
fn write(samples: &[Sample], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    for family in samples.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = family.first() else { continue };
        let kind = match first.value {
            SampleValue::Counter(_) => MetricType::Counter,
            SampleValue::Gauge(_) => MetricType::Gauge,
            SampleValue::Histogram { .. } => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(first.name, first.help, None, kind)?;
        for sample in family {
            // An empty set of labels would be written as `{}`, which some readers of the format don't take.
            if sample.labels.is_empty() {
                write_value(&sample.value, &mut metric)?;
            } else {
                write_value(&sample.value, &mut metric.encode_family(&sample.labels)?)?;
            }
        }
    }
    Ok(())
}

fn write_value(value: &SampleValue, series: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        SampleValue::Counter(count) => series.encode_counter::<NoLabelSet, u64, f64>(count, None),
        SampleValue::Gauge(value) => series.encode_gauge(value),
        SampleValue::Histogram { buckets, sum } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            series.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl MetricsSource for Fixed {
        fn samples(&self) -> Vec<Sample> {
            let records = |topic: &str, count| Sample {
                name: "farol_log_records",
                help: "Records appended",
                labels: vec![("topic", topic.to_owned())],
                value: SampleValue::Counter(count),
            };
            vec![
                records("sensor-data", 7),
                records("odd\"name\n", 1),
                Sample {
                    name: "farol_log_sync_seconds",
                    help: "How long syncs took",
                    labels: Vec::new(),
                    value: SampleValue::Histogram { buckets: vec![(0.1, 2), (f64::INFINITY, 1)], sum: 1.5 },
                },
            ]
        }
    }

    #[test]
    fn the_text_has_own_and_foreign_numbers() {
        let metrics = Metrics::new(vec![Arc::new(Fixed)], BodyBudget::new(1));
        metrics.request(&Method::POST, "/api/readings", StatusCode::ACCEPTED, Duration::from_millis(2));
        metrics.readings_accepted(5);
        metrics.readings_rejected(Reason::Timestamp, 2);
        let text = metrics.text(Vec::new());
        for line in [
            "farol_http_requests_total{method=\"POST\",route=\"/api/readings\",status=\"202\"} 1",
            "farol_http_request_duration_seconds_count{route=\"/api/readings\"} 1",
            "farol_http_readings_accepted_total 5",
            "farol_http_readings_rejected_total{reason=\"timestamp\"} 2",
            "farol_http_readings_rejected_total{reason=\"malformed\"} 0",
            "farol_log_records_total{topic=\"sensor-data\"} 7",
            "farol_log_records_total{topic=\"odd\\\"name\\n\"} 1",
            "farol_log_sync_seconds_bucket{le=\"+Inf\"} 3",
            "farol_log_sync_seconds_sum 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "`{line}` is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(metrics.readings_rejected_total(), 2);
    }
}
