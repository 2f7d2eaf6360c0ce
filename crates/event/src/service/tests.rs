use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::timestamp::Timestamp;

fn fact(event_type: EventType, data: &Value) -> Option<Result<ServiceFact, ServiceFactError>> {
    ServiceFact::of(&Event::new(Uuid::nil(), Timestamp::EPOCH, event_type, "shop", data))
}

fn metric(data: &Value) -> Result<Metric, String> {
    match fact(EventType::METRIC_COLLECTED, data).expect("a metric tells of a service") {
        Ok(ServiceFact::Metric(metric)) => Ok(metric),
        Ok(other) => panic!("no metric but {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_metric_is_read_in_the_founding_documents_words_or_in_english() {
    let expected = Metric::new("cpu_percent", 91.5, "%").with_tag("core", "3").with_tag("ok", "true");
    let tags = json!({"core": 3, "ok": true, "nothing": null});
    for data in [
        json!({"nome": "cpu_percent", "valor": 91.5, "unidade": "%", "tags": tags, "timestamp": "ignored"}),
        json!({"name": "cpu_percent", "value": 91.5, "unit": "%", "tags": tags}),
        json!({"nome": "cpu_percent", "value": 91.5, "unit": "%", "tags": tags}),
    ] {
        assert_eq!(metric(&data).as_ref(), Ok(&expected), "{data}");
    }
    let bare = metric(&json!({"nome": "x", "valor": 1, "unidade": null, "tags": null})).unwrap();
    assert_eq!((bare.value, bare.unit, bare.tags.len()), (1.0, None, 0));
}

#[test]
fn a_metric_that_says_nothing_certain_is_refused_with_the_reason() {
    let many: Map<String, Value> = (0..=MAX_TAGS).map(|n| (format!("t{n}"), "x".into())).collect();
    for (data, reason) in [
        (json!({}), "nome"),
        (json!({"nome": "x"}), "valor"),
        (json!({"nome": "", "valor": 1}), "empty"),
        (json!({"nome": "x\u{7}", "valor": 1}), "control characters"),
        (json!({"nome": "x".repeat(MAX_NAME_BYTES + 1), "valor": 1}), "more than 256 bytes"),
        (json!({"nome": "x", "valor": "12"}), "invalid type: string"),
        (json!({"nome": "x", "valor": null}), "invalid type: null"),
        (json!({"nome": "x", "valor": true}), "invalid type: boolean"),
        (json!({"nome": "x", "valor": 1, "value": 2}), "duplicate field"),
        (json!({"nome": "x", "valor": 1, "tags": ["a"]}), "an object of texts"),
        (json!({"nome": "x", "valor": 1, "tags": {"a": {"b": 1}}}), "a text, number or boolean"),
        (json!({"nome": "x", "valor": 1, "tags": many}), "more than 32"),
    ] {
        let error = metric(&data).unwrap_err();
        assert!(error.contains(reason), "{data}: {error}");
        assert!(error.starts_with("a `metrica_coletada` event whose "), "{error}");
    }
}

#[test]
fn a_source_that_is_too_long_names_no_service() {
    let source = "s".repeat(MAX_SERVICE_NAME_BYTES + 1);
    let event = Event::new(Uuid::nil(), Timestamp::EPOCH, EventType::SERVICE_HEARTBEAT, source, &json!({}));
    assert!(ServiceFact::of(&event).unwrap().unwrap_err().problem.contains("256 bytes"));
}

#[test]
fn a_blank_source_names_no_service() {
    for blank in [" ", "  \u{a0}\u{3000}"] {
        let event =
            Event::new(Uuid::nil(), Timestamp::EPOCH, EventType::SERVICE_HEARTBEAT, blank, &json!({}));
        assert!(ServiceFact::of(&event).unwrap().unwrap_err().problem.contains("blank"), "{blank:?}");
    }
}

#[test]
fn a_source_that_no_address_can_have_for_a_name_is_refused() {
    let heartbeat = |source: &str| {
        let data = json!({});
        ServiceFact::of(&Event::new(
            Uuid::nil(),
            Timestamp::EPOCH,
            EventType::SERVICE_HEARTBEAT,
            source,
            &data,
        ))
    };
    for refused in [".", ".."] {
        let error = heartbeat(refused).unwrap().unwrap_err();
        assert!(error.to_string().contains("no address can have"), "{error}");
    }
    for taken in ["...", ".a", "a/..", "../a", "a b?c#d%2e é"] {
        assert_eq!(heartbeat(taken), Some(Ok(ServiceFact::Heartbeat)), "{taken}");
    }
}

#[test]
fn farols_account_of_itself_and_user_defined_events_tell_of_no_service() {
    for event_type in [
        EventType::CONSUMER_HEARTBEAT,
        EventType::PRODUCER_HEARTBEAT,
        EventType::ALERT_FIRED,
        EventType::NOTIFICATION_ATTEMPTED,
        EventType::RULES_CHANGED,
        EventType::new("own.type"),
    ] {
        assert_eq!(fact(event_type, &json!({"nome": "x", "valor": 1})), None);
    }
}

#[test]
fn a_breakers_data_must_not_contradict_its_type() {
    let data = json!({"caller": "web", "name": "db", "from": "closed", "to": "open"});
    assert!(matches!(
        fact(EventType::BREAKER_OPENED, &data),
        Some(Ok(ServiceFact::BreakerMoved(BreakerMoved { to: BreakerState::Open, .. })))
    ));
    let error = fact(EventType::BREAKER_CLOSED, &data).unwrap().unwrap_err();
    assert!(error.problem.contains("not `closed`"), "{error}");
    for state in [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed] {
        let data = json!({"caller": "web", "name": "db", "from": "open", "to": state});
        assert!(matches!(fact(state.event_type(), &data), Some(Ok(_))), "{state}");
    }
}

#[test]
fn a_check_is_critical_unless_it_says_otherwise() {
    let data = json!({"check": "http", "from": "up", "to": "down", "reason": "status 500"});
    let Some(Ok(ServiceFact::CheckChanged(changed))) = fact(EventType::CHECK_CHANGED, &data) else {
        panic!("no check");
    };
    assert!(changed.critical && changed.to == CheckState::Down);
    assert!(
        fact(EventType::CHECK_CHANGED, &json!({"check": "", "from": "up", "to": "down"})).unwrap().is_err()
    );
}

#[test]
fn a_simulation_has_bounds() {
    for (data, fits) in [
        (json!({}), true),
        (json!({"failure_rate": 1.0, "latency_ms": MAX_LATENCY_MS, "down": false}), true),
        (json!({"failure_rate": 1.1}), false),
        (json!({"latency_ms": MAX_LATENCY_MS + 1}), false),
        (json!({"latency_variation_ms": -1}), false),
        (json!({"until": "tomorrow"}), false),
    ] {
        assert_eq!(fact(EventType::SIMULATION_CHANGED, &data).unwrap().is_ok(), fits, "{data}");
    }
}

#[test]
fn counters_have_a_bound() {
    let counters: Map<String, Value> = (0..=MAX_COUNTERS).map(|n| (format!("c{n}"), n.into())).collect();
    let data = json!({"caller": "web", "name": "pool", "kind": "bulkhead", "counters": counters});
    assert!(fact(EventType::POLICY_MEASURED, &data).unwrap().is_err());
}
