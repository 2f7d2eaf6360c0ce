//! A policy as it stands at one moment, for pages, metrics and events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What sort of policy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PolicyKind {
    /// Stops calls to a service that fails.
    CircuitBreaker,
    /// Tries a failed call again.
    Retry,
    /// Bounds the retries of many callers.
    RetryBudget,
    /// Bounds how many calls are under way.
    Bulkhead,
    /// Bounds calls per time.
    RateLimiter,
    /// Bounds how long a call takes.
    Timeout,
    /// Answers in place of a call that failed.
    Fallback,
    /// Bounds how many calls are under way, by how the service answers.
    AdaptiveLimiter,
}

impl PolicyKind {
    /// `circuit_breaker`, `retry`…
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitBreaker => "circuit_breaker",
            Self::Retry => "retry",
            Self::RetryBudget => "retry_budget",
            Self::Bulkhead => "bulkhead",
            Self::RateLimiter => "rate_limiter",
            Self::Timeout => "timeout",
            Self::Fallback => "fallback",
            Self::AdaptiveLimiter => "adaptive_limiter",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy at one moment.
///
/// Numbers are read one after the other while calls go on: each is right, their sums may be off by calls under way.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PolicySnapshot {
    /// What sort of policy.
    pub kind: PolicyKind,
    /// Its name, unique among its kind in a registry.
    pub name: Arc<str>,
    /// Its state, one of `states`; `None` for policies that have none.
    pub state: Option<&'static str>,
    /// The states that it can be in.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub states: &'static [&'static str],
    /// What only rises.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_map"))]
    pub counters: Vec<Counter>,
    /// What rises and falls.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_map"))]
    pub gauges: Vec<Gauge>,
    /// How it is set up, as text for people: name and value.
    pub settings: BTreeMap<&'static str, String>,
}

impl PolicySnapshot {
    /// A snapshot of a policy without state and numbers.
    pub fn new(kind: PolicyKind, name: Arc<str>) -> Self {
        Self {
            kind,
            name,
            state: None,
            states: &[],
            counters: Vec::new(),
            gauges: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    /// With its state, one of `states`.
    pub fn state(mut self, state: &'static str, states: &'static [&'static str]) -> Self {
        self.state = Some(state);
        self.states = states;
        self
    }

    /// With one more counter.
    pub fn counter(mut self, counter: Counter) -> Self {
        self.counters.push(counter);
        self
    }

    /// With one more gauge.
    pub fn gauge(mut self, name: &'static str, help: &'static str, value: f64) -> Self {
        self.gauges.push(Gauge { name, help, value });
        self
    }

    /// With one more setting.
    pub fn setting(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.settings.insert(name, value.to_string());
        self
    }

    /// The counter of this name ([`Counter::name`]).
    pub fn count(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|counter| counter.name() == name).map(|counter| counter.value)
    }
}

/// A number that only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// What is counted: `calls`. In Prometheus `resilience_<kind of policy>_<metric>_total`.
    pub metric: &'static str,
    /// Which of them, if `metric` is divided: `failed`. In Prometheus the label `kind`.
    pub kind: Option<&'static str>,
    /// One sentence about `metric`, without a full stop.
    pub help: &'static str,
    /// The number.
    pub value: u64,
}

impl Counter {
    /// A number that stands alone.
    pub const fn total(metric: &'static str, help: &'static str, value: u64) -> Self {
        Self { metric, kind: None, help, value }
    }

    /// One kind of a number that is divided; the kinds of one metric must be pushed one after the other.
    pub const fn of_kind(metric: &'static str, kind: &'static str, help: &'static str, value: u64) -> Self {
        Self { metric, kind: Some(kind), help, value }
    }

    /// Its name in a snapshot: `kind`, or else `metric`. Unique in one snapshot.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Some(kind) => kind,
            None => self.metric,
        }
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauge {
    /// What it is, with its unit: `failure_ratio`. In Prometheus `resilience_<kind of policy>_<name>`.
    pub name: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
    /// The number.
    pub value: f64,
}

/// Named numbers as an object: `{"successful": 3, "failed": 1}`.
#[cfg(feature = "serde")]
fn as_map<S: serde::Serializer, N: Named>(numbers: &[N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().map(Named::entry))
}

#[cfg(feature = "serde")]
trait Named {
    type Value: serde::Serialize;
    fn entry(&self) -> (&'static str, Self::Value);
}

#[cfg(feature = "serde")]
impl Named for Counter {
    type Value = u64;
    fn entry(&self) -> (&'static str, u64) {
        (self.name(), self.value)
    }
}

#[cfg(feature = "serde")]
impl Named for Gauge {
    type Value = f64;
    fn entry(&self) -> (&'static str, f64) {
        (self.name, self.value)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_one_json_object_with_its_numbers_by_name() {
        let snapshot = PolicySnapshot::new(PolicyKind::CircuitBreaker, "payments".into())
            .state("open", &["closed", "open"])
            .counter(Counter::of_kind("calls", "failed", "Calls", 3))
            .counter(Counter::total("not_permitted_calls", "Calls refused", 1))
            .gauge("failure_ratio", "Failed calls of all", 0.5)
            .setting("open_for", "60s");
        assert_eq!(
            serde_json::to_value(&snapshot).unwrap(),
            serde_json::json!({
                "kind": "circuit_breaker", "name": "payments", "state": "open",
                "counters": {"failed": 3, "not_permitted_calls": 1}, "gauges": {"failure_ratio": 0.5},
                "settings": {"open_for": "60s"},
            })
        );
        assert_eq!(snapshot.count("failed"), Some(3));
    }
}
