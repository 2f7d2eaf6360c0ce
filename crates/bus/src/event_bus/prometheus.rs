//! Event buses as Prometheus metrics, collected at each scrape (feature `prometheus`).
//!
//! `farol_event_bus_delivered_records_total{bus="checkout",subscription="orders"} 60`, and so on for every one of
//! [`MEASURES`]. The number of series is bounded by [`MAX_NAMES`](super::numbers::MAX_NAMES) for each event bus.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::numbers::{MEASURES, Numbers};

/// Shows event buses to Prometheus:
/// `prometheus.register_collector(Box::new(SubscriptionCollector::new([event_bus.numbers()])))`.
///
/// One collector for all event buses of a program: the format wants the samples of one name together. Two event buses of one name are
/// told apart by nothing, so give each its own (`EventBusSettings::client_id`).
#[derive(Debug, Clone)]
pub struct SubscriptionCollector {
    buses: Vec<Numbers>,
}

impl SubscriptionCollector {
    /// Of these event buses.
    pub fn new(buses: impl IntoIterator<Item = Numbers>) -> Self {
        Self { buses: buses.into_iter().collect() }
    }
}

impl Collector for SubscriptionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let buses: BTreeMap<&str, _> = self.buses.iter().map(|bus| (bus.bus(), bus.by_name())).collect();
        for measure in MEASURES {
            let kind = if measure.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(measure.name, measure.help, None, kind)?;
            for (bus, subscriptions) in &buses {
                for (subscription, numbers) in subscriptions {
                    let labels = [("bus", *bus), ("subscription", subscription.as_str())];
                    let mut series = metric.encode_family(&labels)?;
                    let value = (measure.of)(numbers);
                    if measure.is_counter {
                        series.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
                    } else {
                        series.encode_gauge(&value)?;
                    }
                }
            }
        }
        Ok(())
    }
}
