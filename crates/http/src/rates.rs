//! What happened in each of the last seconds: readings, rejections, alerts.
//!
//! Readings are counted at the ends of the topic's partitions, so that those count that came by other doors than HTTP
//! (simulators, Kafka clients). Rejections are those of this server's door. Alerts are those that fired, as the stream
//! hub saw them pass.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farol_bus::{Bus, BusError, OffsetSpec, TopicPartition};
use farol_event::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::metrics::Metrics;

/// How many seconds are kept.
pub const HISTORY_SECONDS: usize = 300;
/// Over how many seconds a rate is the mean: one would jump with every batch.
const RATE_SECONDS: usize = 5;

/// One second.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SecondRates {
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Readings stored.
    #[schema(minimum = 0)]
    pub readings: u64,
    /// Readings refused.
    #[schema(minimum = 0)]
    pub rejected: u64,
    /// Alerts that fired.
    #[schema(minimum = 0)]
    pub alerts: u64,
}

/// What happened lately.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RealTimeMetrics {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Readings stored a second, over the last five.
    #[schema(minimum = 0)]
    pub readings_per_s: f64,
    /// Readings refused a second, over the last five.
    #[schema(minimum = 0)]
    pub rejected_per_s: f64,
    /// Readings stored since the start.
    #[schema(minimum = 0)]
    pub accepted_total: u64,
    /// Readings refused since the start.
    #[schema(minimum = 0)]
    pub rejected_total: u64,
    /// Alerts that fired in the last sixty seconds.
    #[schema(minimum = 0)]
    pub alerts_last_minute: u64,
    /// Second by second, oldest first.
    #[schema(max_items = 300)]
    pub history: Vec<SecondRates>,
}

/// The last seconds.
#[derive(Debug, Default)]
pub struct Rates {
    alerts: AtomicU64,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    history: VecDeque<SecondRates>,
    accepted_total: u64,
    rejected_total: u64,
    alerts_total: u64,
}

impl Rates {
    /// Counts an alert that fired.
    pub(crate) fn alert_fired(&self) {
        self.alerts.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes down the totals at the end of a second.
    fn record(&self, at: Timestamp, accepted_total: u64, rejected_total: u64) {
        let alerts_total = self.alerts.load(Ordering::Relaxed);
        let mut recorded = self.recorded.lock();
        let second = SecondRates {
            at,
            readings: accepted_total.saturating_sub(recorded.accepted_total),
            rejected: rejected_total.saturating_sub(recorded.rejected_total),
            alerts: alerts_total.saturating_sub(recorded.alerts_total),
        };
        if recorded.history.len() == HISTORY_SECONDS {
            recorded.history.pop_front();
        }
        recorded.history.push_back(second);
        recorded.accepted_total = accepted_total;
        recorded.rejected_total = rejected_total;
        recorded.alerts_total = alerts_total;
    }

    /// Readings stored and refused a second, lately.
    pub fn per_second(&self) -> (f64, f64) {
        let recorded = self.recorded.lock();
        let newest = || recorded.history.iter().rev().take(RATE_SECONDS);
        (mean(newest().map(|s| s.readings)), mean(newest().map(|s| s.rejected)))
    }

    /// Everything.
    pub fn snapshot(&self, at: Timestamp) -> RealTimeMetrics {
        let (readings_per_s, rejected_per_s) = self.per_second();
        let recorded = self.recorded.lock();
        RealTimeMetrics {
            at,
            readings_per_s,
            rejected_per_s,
            accepted_total: recorded.accepted_total,
            rejected_total: recorded.rejected_total,
            alerts_last_minute: recorded.history.iter().rev().take(60).map(|s| s.alerts).sum(),
            history: recorded.history.iter().cloned().collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn mean(counts: impl Iterator<Item = u64>) -> f64 {
    let (sum, seconds) = counts.fold((0_u64, 0_u64), |(sum, n), count| (sum.saturating_add(count), n + 1));
    if seconds == 0 { 0.0 } else { sum as f64 / seconds as f64 }
}

/// Where the topic of readings ends before the first request is taken, to count from; `None` if that isn't known yet.
pub(crate) async fn starting_end(bus: &dyn Bus, topic: &str) -> Option<u64> {
    end_of_topic(bus, topic).await.ok()
}

/// Takes down the totals every second until `shutdown`, counted from `first` on.
pub(crate) async fn follow(
    rates: Arc<Rates>,
    metrics: Arc<Metrics>,
    bus: Arc<dyn Bus>,
    topic: Arc<str>,
    mut first: Option<u64>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut accepted = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match end_of_topic(bus.as_ref(), &topic).await {
            // An end that moved back means that the topic was made anew: count from there.
            Ok(end) => accepted = end.saturating_sub(*first.get_or_insert(end)),
            // Nothing is lost by missing one second: the next reading of the ends makes up for it.
            Err(error) => {
                tracing::debug!(%error, "the ends of the readings' partitions are not known at present")
            }
        }
        rates.record(
            Timestamp::from_system_time(std::time::SystemTime::now()),
            accepted,
            metrics.readings_rejected_total(),
        );
    }
}

/// The sum of the end offsets of a topic's partitions.
async fn end_of_topic(bus: &dyn Bus, topic: &str) -> Result<u64, BusError> {
    let topics = bus.topics().await?;
    let Some(description) = topics.into_iter().find(|t| *t.name == *topic) else { return Ok(0) };
    let partitions: Vec<_> =
        (0..description.partitions).map(|p| TopicPartition::new(Arc::clone(&description.name), p)).collect();
    let ends = bus.offsets(&partitions, OffsetSpec::Latest).await?;
    Ok(ends.into_values().map(|end| u64::try_from(end).unwrap_or(0)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_differences_of_totals_and_the_oldest_go() {
        let rates = Rates::default();
        rates.alert_fired();
        for second in 1..=310_i64 {
            let total = u64::try_from(second).unwrap() * 10;
            rates.record(Timestamp::from_millis_clamped(second * 1000), total, 3);
        }
        let snapshot = rates.snapshot(Timestamp::EPOCH);
        assert_eq!(snapshot.history.len(), HISTORY_SECONDS);
        assert!(snapshot.history.iter().all(|s| s.readings == 10));
        assert_eq!(snapshot.accepted_total, 3100);
        assert_eq!(snapshot.rejected_total, 3);
        assert!((snapshot.readings_per_s - 10.0).abs() < 1e-9);
        assert_eq!(snapshot.alerts_last_minute, 0, "the alert was in the first second");
    }
}
