//! A registry of policies as Prometheus metrics, collected at each scrape (feature `prometheus`).
//!
//! Names follow the field's habit: `resilience_circuit_breaker_state{name="payments",state="open"} 1`,
//! `resilience_circuit_breaker_calls_total{name="payments",kind="failed"}`,
//! `resilience_circuit_breaker_not_permitted_calls_total{name="payments"}`. In general
//! `resilience_<kind>_<metric>_total` for counters, `resilience_<kind>_<gauge>` for gauges and
//! `resilience_<kind>_state` for the state, 1 for the one that a policy is in and 0 for the others. The number of series
//! is bounded by the capacity of the registry.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::registry::Registry;
use crate::snapshot::PolicySnapshot;

/// Shows a registry to Prometheus: `prometheus.register_collector(Box::new(PolicyCollector::new(registry)))`.
#[derive(Debug, Clone)]
pub struct PolicyCollector {
    registry: Registry,
}

impl PolicyCollector {
    /// Of this registry.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }
}

impl Collector for PolicyCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for policies in self.registry.snapshots().chunk_by(|a, b| a.kind == b.kind) {
            encode_states(policies, &mut encoder)?;
            encode_counters(policies, &mut encoder)?;
            encode_gauges(policies, &mut encoder)?;
        }
        Ok(())
    }
}

fn encode_states(policies: &[PolicySnapshot], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let Some(first) = policies.iter().find(|policy| policy.state.is_some()) else { return Ok(()) };
    let name = format!("resilience_{}_state", first.kind);
    let mut metric =
        encoder.encode_descriptor(&name, "1 for the state that the policy is in", None, MetricType::Gauge)?;
    for policy in policies {
        for state in policy.states {
            let labels = [("name", policy.name.as_ref()), ("state", state)];
            metric.encode_family(&labels)?.encode_gauge(&i64::from(policy.state == Some(state)))?;
        }
    }
    Ok(())
}

fn encode_counters(
    policies: &[PolicySnapshot],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let all = policies.iter().flat_map(|policy| &policy.counters);
    for described in first_of_each(all, |counter| counter.metric) {
        let name = format!("resilience_{}_{}", kind_of(policies), described.metric);
        let mut metric = encoder.encode_descriptor(&name, described.help, None, MetricType::Counter)?;
        for policy in policies {
            for counter in policy.counters.iter().filter(|counter| counter.metric == described.metric) {
                let name = ("name", policy.name.as_ref());
                match counter.kind {
                    Some(kind) => metric
                        .encode_family(&[name, ("kind", kind)])?
                        .encode_counter::<NoLabelSet, u64, f64>(&counter.value, None)?,
                    None => metric
                        .encode_family(&[name])?
                        .encode_counter::<NoLabelSet, u64, f64>(&counter.value, None)?,
                }
            }
        }
    }
    Ok(())
}

fn encode_gauges(policies: &[PolicySnapshot], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let all = policies.iter().flat_map(|policy| &policy.gauges);
    for described in first_of_each(all, |gauge| gauge.name) {
        let name = format!("resilience_{}_{}", kind_of(policies), described.name);
        let mut metric = encoder.encode_descriptor(&name, described.help, None, MetricType::Gauge)?;
        for policy in policies {
            for gauge in policy.gauges.iter().filter(|gauge| gauge.name == described.name) {
                metric.encode_family(&[("name", policy.name.as_ref())])?.encode_gauge(&gauge.value)?;
            }
        }
    }
    Ok(())
}

/// The kind that all of these are of.
fn kind_of(policies: &[PolicySnapshot]) -> &'static str {
    policies.first().map_or("policy", |policy| policy.kind.as_str())
}

/// One of each name, in the order in which the names first appear. Policies of one kind may have different numbers: a
/// breaker without a window has no rates.
fn first_of_each<'a, N>(
    numbers: impl Iterator<Item = &'a N>,
    name: impl Fn(&N) -> &'static str,
) -> Vec<&'a N> {
    let mut first: Vec<&N> = Vec::new();
    for number in numbers {
        if !first.iter().any(|known| name(known) == name(number)) {
            first.push(number);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::registry::Policy;
    use crate::snapshot::{Counter, PolicyKind};

    struct Fixed(Arc<str>, &'static str);

    impl Policy for Fixed {
        fn kind(&self) -> PolicyKind {
            PolicyKind::CircuitBreaker
        }

        fn name(&self) -> &Arc<str> {
            &self.0
        }

        fn snapshot(&self) -> PolicySnapshot {
            PolicySnapshot::new(self.kind(), self.0.clone())
                .state(self.1, &["closed", "open"])
                .counter(Counter::of_kind("calls", "successful", "Calls by outcome", 3))
                .counter(Counter::of_kind("calls", "failed", "Calls by outcome", 1))
                .counter(Counter::total("not_permitted_calls", "Calls refused", 2))
                .gauge("failure_ratio", "Failed of all", 0.25)
        }
    }

    #[test]
    fn families_stand_together_and_state_is_one_series_per_state() {
        let policies = Registry::new();
        policies.register(Fixed("a".into(), "open")).unwrap();
        policies.register(Fixed("b".into(), "closed")).unwrap();
        let mut prometheus = prometheus_client::registry::Registry::default();
        prometheus.register_collector(Box::new(PolicyCollector::new(policies)));
        let mut text = String::new();
        encode(&mut text, &prometheus).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                r#"resilience_circuit_breaker_state{name="a",state="closed"} 0"#,
                r#"resilience_circuit_breaker_state{name="a",state="open"} 1"#,
                r#"resilience_circuit_breaker_state{name="b",state="closed"} 1"#,
                r#"resilience_circuit_breaker_state{name="b",state="open"} 0"#,
                r#"resilience_circuit_breaker_calls_total{name="a",kind="successful"} 3"#,
                r#"resilience_circuit_breaker_calls_total{name="a",kind="failed"} 1"#,
                r#"resilience_circuit_breaker_calls_total{name="b",kind="successful"} 3"#,
                r#"resilience_circuit_breaker_calls_total{name="b",kind="failed"} 1"#,
                r#"resilience_circuit_breaker_not_permitted_calls_total{name="a"} 2"#,
                r#"resilience_circuit_breaker_not_permitted_calls_total{name="b"} 2"#,
                r#"resilience_circuit_breaker_failure_ratio{name="a"} 0.25"#,
                r#"resilience_circuit_breaker_failure_ratio{name="b"} 0.25"#,
            ]
        );
    }
}
