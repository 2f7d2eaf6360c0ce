//! Every policy in one registry: its snapshot, and what Prometheus sees of it.
#![cfg(all(feature = "prometheus", feature = "serde"))]

use std::collections::BTreeSet;
use std::time::Duration;

use farol_resilience::metrics::PolicyCollector;
use farol_resilience::{
    AdaptiveLimiter, Bulkhead, CircuitBreaker, Fallback, Pipeline, RateLimiter, Registry, Retry, RetryBudget,
    Timeout,
};
use prometheus_client::encoding::text::encode;

/// A registry with one policy of every kind, through all of which one call has gone that failed and was answered for.
fn used() -> Registry {
    let registry = Registry::new();
    let budget = RetryBudget::builder("all").min_per_second(0).ratio(1.0).build();
    registry.register(budget.clone()).expect("the name is free");
    let pipeline = Pipeline::outermost(Fallback::value("all", 7))
        .then(Retry::idempotent("all").initial_delay(Duration::ZERO).budget(budget).build())
        .then(CircuitBreaker::new("all"))
        .then(RateLimiter::new("all", 10, Duration::from_secs(1)))
        .then(AdaptiveLimiter::new("all"))
        .then(Bulkhead::new("all"))
        .then(Timeout::new("all", Duration::from_secs(60)));
    pipeline.register(&registry).expect("the names are free");
    assert_eq!(pipeline.call_blocking(|| Err("reset")), Ok(7));
    registry
}

#[test]
fn a_policy_of_every_kind_is_counted_for_prometheus() {
    let mut prometheus = prometheus_client::registry::Registry::default();
    prometheus.register_collector(Box::new(PolicyCollector::new(used())));
    let mut text = String::new();
    encode(&mut text, &prometheus).unwrap();
    for sample in [
        r#"resilience_fallback_calls_total{name="all",kind="answered"} 1"#,
        // One call pays for one retry: the second was refused.
        r#"resilience_retry_retries_total{name="all"} 1"#,
        r#"resilience_retry_calls_total{name="all",kind="failed_with_retry"} 1"#,
        r#"resilience_retry_given_up_total{name="all",kind="no_budget_left"} 1"#,
        r#"resilience_retry_budget_retries_total{name="all",kind="granted"} 1"#,
        r#"resilience_retry_budget_retries_total{name="all",kind="refused"} 1"#,
        r#"resilience_circuit_breaker_calls_total{name="all",kind="failed"} 2"#,
        r#"resilience_rate_limiter_calls_total{name="all",kind="permitted"} 2"#,
        r#"resilience_adaptive_limiter_calls_total{name="all",kind="dropped"} 2"#,
        r#"resilience_bulkhead_calls_total{name="all",kind="permitted"} 2"#,
        r#"resilience_bulkhead_max_concurrent_calls{name="all"} 10.0"#,
        r#"resilience_timeout_calls_total{name="all",kind="in_time"} 2"#,
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} is missing in\n{text}");
    }
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families.iter().collect::<BTreeSet<_>>().len(), families.len(), "each family stands once");
}

#[test]
fn the_numbers_of_a_snapshot_have_names_of_their_own() {
    for snapshot in used().snapshots() {
        let names: Vec<&str> =
            snapshot.counters.iter().map(farol_resilience::snapshot::Counter::name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}: {names:?}", snapshot.kind);
        let json = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(json["counters"].as_object().map(serde_json::Map::len), Some(names.len()));
        assert_eq!(json["name"], "all");
    }
}
