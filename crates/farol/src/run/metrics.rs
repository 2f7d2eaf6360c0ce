//! The numbers of log, consumer groups, views and event buses, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use farol_broker::kafka::KafkaStats;
use farol_bus::embedded::{BrokerStats, EmbeddedBus, GroupPartitionStats, GroupStats};
use farol_bus::event_bus::Numbers;
use farol_bus::event_bus::numbers::MEASURES;
use farol_event::Timestamp;
use farol_http::{MetricsSource, Sample, SampleValue};
use farol_log::{DURATION_BUCKETS, DurationCounts};
use farol_pipeline::{RebalanceCounts, ViewsProgress};
use farol_resilience::Registry;
use farol_view::Store;
use parking_lot::Mutex;

/// What is running, as numbers.
pub struct RunningNumbers {
    pub bus: Arc<EmbeddedBus>,
    pub store: Store,
    pub views: ViewsProgress,
    pub rebalances: Arc<RebalanceCounts>,
    /// The server for Kafka clients, if it is there.
    pub kafka: Option<Arc<dyn Fn() -> KafkaStats + Send + Sync>>,
    /// The policies of Farol's own calls.
    pub policies: Registry,
    /// The event buses of this process.
    pub event_buses: EventBuses,
}

/// The event buses of this process that are shown, by name. Those of one name follow one another: the newest is shown.
#[derive(Clone, Default)]
pub struct EventBuses(Arc<Mutex<BTreeMap<String, Numbers>>>);

impl EventBuses {
    /// From now on these numbers are shown.
    pub fn show(&self, numbers: Numbers) {
        self.0.lock().insert(numbers.bus().to_owned(), numbers);
    }

    fn samples(&self) -> Vec<Sample> {
        let buses: Vec<_> =
            self.0.lock().iter().map(|(bus, numbers)| (bus.clone(), numbers.by_name())).collect();
        let mut samples = Vec::new();
        for measure in MEASURES {
            for (bus, subscriptions) in &buses {
                samples.extend(subscriptions.iter().map(|(subscription, numbers)| {
                    let value = (measure.of)(numbers);
                    let value = if measure.is_counter {
                        SampleValue::Counter(value)
                    } else {
                        SampleValue::Gauge(value as f64)
                    };
                    sample(measure.name, measure.help, value)
                        .with("bus", bus)
                        .with("subscription", subscription)
                }));
            }
        }
        samples
    }
}

impl MetricsSource for RunningNumbers {
    fn samples(&self) -> Vec<Sample> {
        let stats = self.bus.stats();
        let mut samples = log(&stats);
        samples.extend(topics(&stats));
        samples.extend(groups(&stats));
        samples.extend(rebalances(&self.rebalances));
        samples.extend(self.group_lag_seconds(&stats));
        samples.extend(producers(&stats));
        samples.extend(self.view_samples());
        samples.extend(policies(&self.policies));
        samples.extend(self.event_buses.samples());
        samples.extend(self.kafka.iter().flat_map(|numbers| kafka(&numbers())));
        samples
    }
}

impl RunningNumbers {
    fn view_samples(&self) -> Vec<Sample> {
        let stats = self.store.stats();
        let mut samples: Vec<Sample> = self
            .views
            .snapshot()
            .into_iter()
            .map(|(view, progress)| {
                let lag = SampleValue::Gauge(progress.lag_records as f64);
                sample(
                    "farol_view_lag_records",
                    "Records between a view's position and the end of its topics",
                    lag,
                )
                .with("view", view)
            })
            .collect();
        samples.extend(stats.iter().map(|(view, stats)| {
            let applied = SampleValue::Counter(stats.applied);
            sample("farol_view_applied_records", "Records folded into a view", applied)
                .with("view", view.as_str())
        }));
        samples.extend(stats.iter().map(|(view, stats)| {
            let errors = SampleValue::Counter(stats.errors);
            sample("farol_view_errors", "Calls to the store that failed", errors).with("view", view.as_str())
        }));
        for (view, stats) in &stats {
            samples.extend(stats.skipped.iter().map(|(reason, count)| {
                let skipped = SampleValue::Counter(*count);
                sample("farol_view_skipped_records", "Records that a view could not read", skipped)
                    .with("view", view.as_str())
                    .with("reason", reason)
            }));
        }
        samples
    }
}

/// Partitions whose lag in seconds is told: each takes a look into the log.
const MAX_AGES: usize = 1000;

impl RunningNumbers {
    /// How long ago the batch was made that each group would read next.
    fn group_lag_seconds(&self, stats: &BrokerStats) -> Vec<Sample> {
        let now = Timestamp::from_system_time(SystemTime::now());
        let partitions = stats.groups.iter().flat_map(|group| {
            group
                .partitions
                .iter()
                .map(move |partition| (group, partition))
                .filter(|(_, p)| p.committed.is_some())
        });
        let age = |(group, progress): (&GroupStats, &GroupPartitionStats)| {
            let seconds = if progress.lag == 0 {
                0.0
            } else {
                let reader = self.bus.broker().reader(&progress.partition).ok()?;
                let next = progress.committed?.max(reader.start_offset());
                let located = reader.partition().locate(next, 0, i64::MAX).ok()?;
                now.since(Timestamp::from_millis_clamped(located.first_timestamp_ms?)).as_secs_f64()
            };
            let lag = SampleValue::Gauge(seconds);
            let sample = sample(
                "farol_group_lag_seconds",
                "Age of the oldest batch that a consumer group has not committed yet",
                lag,
            );
            Some(sample.with("group", &group.group).with("partition", &progress.partition.to_string()))
        };
        partitions.take(MAX_AGES).filter_map(age).collect()
    }
}

fn producers(stats: &BrokerStats) -> Vec<Sample> {
    let gauge = |name, help, value: usize| sample(name, help, SampleValue::Gauge(value as f64));
    let counter = |name, help, value| sample(name, help, SampleValue::Counter(value));
    vec![
        gauge(
            "farol_producers",
            "Idempotent and transactional producers that partitions remember, once for each",
            stats.producers.producers,
        ),
        counter(
            "farol_producers_evicted",
            "Producers that a partition forgot for want of room",
            stats.producers.evicted,
        ),
        gauge(
            "farol_open_transactions",
            "Transactions of Kafka clients that are open",
            stats.open_transactions,
        ),
        counter(
            "farol_timed_out_transactions",
            "Transactions of Kafka clients that were aborted because their time was up",
            stats.timed_out_transactions,
        ),
    ]
}

fn log(stats: &BrokerStats) -> Vec<Sample> {
    let log = &stats.log;
    let refusing = if stats.poisoned().is_some() { 1.0 } else { 0.0 };
    vec![
        sample("farol_log_appended_records", "Records acknowledged", SampleValue::Counter(log.records)),
        sample("farol_log_appended_bytes", "Bytes of acknowledged batches", SampleValue::Counter(log.bytes)),
        sample(
            "farol_log_failed_requests",
            "Appends refused or failed",
            SampleValue::Counter(log.requests_failed),
        ),
        sample(
            "farol_log_group_commits",
            "Groups of appends that shared a sync",
            SampleValue::Counter(log.groups),
        ),
        sample("farol_log_sync_seconds", "How long syncs of the journal took", durations(&log.syncs)),
        sample(
            "farol_log_queued_bytes",
            "Bytes that wait for the commit",
            SampleValue::Gauge(log.queued_bytes as f64),
        ),
        sample(
            "farol_log_refuses",
            "1 when appends are refused after a failed write",
            SampleValue::Gauge(refusing),
        ),
        sample(
            "farol_log_fenced_commits",
            "Commits of members that had lost their partitions",
            SampleValue::Counter(stats.fenced_commits),
        ),
    ]
}

fn kafka(stats: &KafkaStats) -> Vec<Sample> {
    let gauge = |name, help, value: usize| sample(name, help, SampleValue::Gauge(value as f64));
    let counter = |name, help, value| sample(name, help, SampleValue::Counter(value));
    let ended = |reason: &'static str, count| {
        const HELP: &str = "Connections of Kafka clients that were refused or ended by the server";
        sample("farol_kafka_ended_connections", HELP, SampleValue::Counter(count)).with("reason", reason)
    };
    let mut samples = vec![
        gauge("farol_kafka_connections", "Open connections of Kafka clients", stats.connections),
        counter(
            "farol_kafka_taken_connections",
            "Connections of Kafka clients that were taken",
            stats.connections_taken,
        ),
        counter("farol_kafka_received_bytes", "Bytes of requests of Kafka clients", stats.bytes_in),
        counter("farol_kafka_sent_bytes", "Bytes of answers to Kafka clients", stats.bytes_out),
        gauge(
            "farol_kafka_in_flight_bytes",
            "Bytes of large requests that aren't answered and of records that aren't sent",
            stats.in_flight_bytes,
        ),
        ended("too many", stats.connections_refused),
        ended("invalid request", stats.invalid_requests),
        ended("not authenticated", stats.authentications_refused),
        ended("stalled request", stats.stalled_requests),
        ended("stalled answer", stats.stalled_answers),
        ended("no room for an answer", stats.answers_refused),
        ended("idle", stats.idle),
        ended("made room", stats.made_room),
    ];
    samples.extend(stats.apis.iter().map(|api| {
        let requests = SampleValue::Counter(api.requests);
        sample("farol_kafka_requests", "Requests of Kafka clients", requests).with("api", &api.name)
    }));
    samples.extend(stats.apis.iter().map(|api| {
        sample(
            "farol_kafka_request_duration_seconds",
            "From a Kafka client's whole request to the last byte of its answer; waits for records or members count too",
            durations(&api.durations),
        )
        .with("api", &api.name)
    }));
    samples.extend(stats.errors.iter().map(|error| {
        const HELP: &str =
            "Failures told to Kafka clients: of requests, and of each topic, partition, group or member";
        let told = SampleValue::Counter(error.told);
        sample("farol_kafka_errors", HELP, told).with("api", &error.api).with("error", &error.name)
    }));
    samples
}

fn topics(stats: &BrokerStats) -> Vec<Sample> {
    let records = stats.topics.iter().map(|topic| {
        let records = SampleValue::Gauge(topic.records() as f64);
        sample("farol_topic_records", "Records stored", records).with("topic", &topic.name)
    });
    let bytes = stats.topics.iter().map(|topic| {
        let bytes = SampleValue::Gauge(topic.bytes() as f64);
        sample("farol_topic_bytes", "Bytes on disk", bytes).with("topic", &topic.name)
    });
    records.chain(bytes).collect()
}

fn groups(stats: &BrokerStats) -> Vec<Sample> {
    let lag = stats.groups.iter().flat_map(|group| {
        group.partitions.iter().map(|partition| {
            let lag = SampleValue::Gauge(partition.lag as f64);
            sample("farol_group_lag_records", "Records that a consumer group has not committed yet", lag)
                .with("group", &group.group)
                .with("partition", &partition.partition.to_string())
        })
    });
    let generations = stats.groups.iter().map(|group| {
        let generation = SampleValue::Gauge(f64::from(group.generation));
        sample(
            "farol_group_generation",
            "Generation of a consumer group; rises at every rebalance",
            generation,
        )
        .with("group", &group.group)
    });
    lag.chain(generations).collect()
}

fn rebalances(counts: &RebalanceCounts) -> [Sample; 2] {
    let merged = SampleValue::Counter(counts.merged());
    let untold = SampleValue::Counter(counts.untold());
    [
        sample("farol_rebalances_merged", "Rebalances told together with later ones of their group", merged),
        sample("farol_rebalances_untold", "Rebalances of which no event tells", untold),
    ]
}

/// The policies of Farol's own calls: what they counted, how they stand.
fn policies(policies: &Registry) -> Vec<Sample> {
    let mut samples = Vec::new();
    for policy in policies.snapshots() {
        let of = |sample: Sample| sample.with("kind", policy.kind.as_str()).with("policy", &policy.name);
        for counter in &policy.counters {
            let value = SampleValue::Counter(counter.value);
            samples.push(if counter.metric == "calls" {
                let help = "Calls under the policies of Farol's own calls, by how each policy saw them end";
                of(sample("farol_outgoing_calls", help, value)).with("outcome", counter.name())
            } else {
                let help = "What else the policies of Farol's own calls have counted; a call may count several times";
                of(sample("farol_outgoing_counts", help, value)).with("of", counter.name())
            });
        }
        for gauge in &policy.gauges {
            let help = "How the policies of Farol's own calls stand";
            let value = SampleValue::Gauge(gauge.value);
            samples.push(of(sample("farol_outgoing_policy", help, value)).with("measure", gauge.name));
        }
        for state in policy.states {
            let help = "1 for the state that a policy of Farol's own calls is in, 0 for the others";
            let value = SampleValue::Gauge(if policy.state == Some(*state) { 1.0 } else { 0.0 });
            samples.push(of(sample("farol_outgoing_state", help, value)).with("state", state));
        }
    }
    // The format wants the samples of one name together.
    samples.sort_by_key(|sample| sample.name);
    samples
}

fn durations(counts: &DurationCounts) -> SampleValue {
    let bounds = DURATION_BUCKETS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
    SampleValue::Histogram { buckets: bounds.zip(counts.buckets).collect(), sum: counts.total.as_secs_f64() }
}

fn sample(name: &'static str, help: &'static str, value: SampleValue) -> Sample {
    Sample { name, help, labels: Vec::new(), value }
}

/// Adds a label.
trait With {
    fn with(self, label: &'static str, value: &str) -> Self;
}

impl With for Sample {
    fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }
}
