use std::sync::Arc;

use farol_event::{AlertTransition, TransitionKind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{PartitionState, RuleSet, defaults};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn event(event_type: EventType, seconds: i64, data: &Value) -> Event {
    Event::new(Uuid::nil(), at(seconds), event_type, "shop", data)
}

fn metric(seconds: i64, name: &str, value: f64) -> Event {
    event(EventType::METRIC_COLLECTED, seconds, &json!({"nome": name, "valor": value, "unidade": "%"}))
}

/// A partition of `system-events` under the default rules.
struct Partition {
    state: PartitionState,
    offset: i64,
}

impl Partition {
    fn new(rules: RuleSet) -> Self {
        Self { state: PartitionState::new("system-events".into(), 1, Arc::new(rules)), offset: 0 }
    }

    fn apply(&mut self, event: &Event) -> Vec<AlertTransition> {
        self.offset += 1;
        match ServiceNews::of(event).unwrap().unwrap() {
            ServiceNews::Sample(sample) => {
                self.state.apply(&sample.measurement(), self.offset, event.time).unwrap()
            }
            ServiceNews::Ended { service, how } => {
                self.state.service_ended(&service, how, self.offset, event.time).0
            }
        }
    }

    /// The same partition in the hands of the next owner.
    fn handed_over(self, rules: RuleSet) -> Self {
        let mut next = Self::new(rules);
        let mut state = self.state;
        for saved in state.take_dirty(usize::MAX, usize::MAX) {
            next.state.restore(&saved.bytes, at(0)).unwrap();
        }
        Self { offset: self.offset, ..next }
    }
}

#[test]
fn series_are_named_as_prometheus_names_them_and_never_alike() {
    let name = |service: &str, metric: &str, tags: &[(&str, &str)]| {
        series_name(&ServiceLabels {
            service: service.into(),
            metric: metric.into(),
            tags: tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        })
    };
    assert_eq!(name("shop", "cpu_percent", &[]), r#"cpu_percent{service="shop"}"#);
    assert_eq!(
        name("shop", "rt", &[("endpoint", "/pay"), ("a b", "\"\\")]),
        r#"rt{service="shop","a b"="\"\\",endpoint="/pay"}"#
    );
    assert_eq!(name("s", "tempo médio", &[]), r#"{"tempo médio",service="s"}"#);
    let all = [
        name("a", "b", &[("c", "d")]),
        name("a\",c=\"d", "b", &[]),
        name("a", "b{c=\"d\"", &[]),
        name("a", "b", &[("service", "x")]),
        name("a", "b", &[("c", "d\",e=\"f")]),
        name("a", "b", &[("c", "d"), ("e", "f")]),
    ];
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
}

#[test]
fn the_founding_documents_triggers_fire_and_resolve_with_evidence() {
    let mut partition = Partition::new(defaults::rules());
    assert!(partition.apply(&metric(0, "cpu_percent", 90.0)).is_empty(), "90 is not above 90");
    let fired = partition.apply(&metric(5, "cpu_percent", 95.5));
    let [fired] = fired.as_slice() else { panic!("{fired:?}") };
    assert_eq!((fired.kind, fired.alert.rule.as_str()), (TransitionKind::Fired, "service-cpu"));
    assert_eq!(fired.alert.severity, farol_event::Severity::Critical);
    assert_eq!(fired.alert.series, r#"cpu_percent{service="shop"}"#);
    assert_eq!(fired.alert.summary, "shop: processor at 95.5%, above 90%");
    let labels: Vec<(&str, &str)> =
        fired.alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("metric", "cpu_percent"), ("service", "shop"), ("unit", "%")]);
    let evidence = fired.evidence.as_ref().unwrap();
    assert_eq!(evidence.positions[0].to_string(), "system-events/1@2");
    assert_eq!(evidence.value, Some(95.5));
    let resolved = partition.apply(&metric(10, "cpu_percent", 40.0));
    assert_eq!(resolved[0].kind, TransitionKind::Resolved);

    let slow = partition.apply(&metric(11, "response_time_ms", 5001.0));
    assert_eq!(
        (slow[0].alert.rule.as_str(), slow[0].alert.severity),
        ("service-response-time", farol_event::Severity::Warning)
    );
}

#[test]
fn an_outage_is_one_alert_however_often_and_in_whatever_order_of_clocks_it_is_told() {
    let mut partition = Partition::new(defaults::rules());
    let down = |seconds| event(EventType::SYSTEM_UNAVAILABLE, seconds, &json!({"reason": "no answer"}));
    let up = |seconds| event(EventType::SYSTEM_RECOVERED, seconds, &json!({}));
    assert!(partition.apply(&up(0)).is_empty(), "nothing had been down");
    let fired = partition.apply(&down(10));
    assert_eq!((fired.len(), fired[0].alert.summary.as_str()), (1, "shop is unavailable"));
    assert!(partition.apply(&down(20)).is_empty());
    // The next owner knows of it, and a clock that went back keeps no outage open.
    let mut partition = partition.handed_over(defaults::rules());
    assert!(partition.apply(&down(21)).is_empty());
    let ended = partition.apply(&up(15));
    assert_eq!(
        (ended.len(), ended[0].kind, ended[0].alert.id),
        (1, TransitionKind::Resolved, fired[0].alert.id)
    );
    assert!(partition.apply(&up(30)).is_empty());
    let again = partition.apply(&down(40));
    assert_ne!(again[0].alert.id, fired[0].alert.id, "another outage");
}

#[test]
fn a_machine_may_be_busy_for_two_minutes() {
    let mut partition = Partition::new(defaults::rules());
    let busy = |seconds| {
        let data = json!({"nome": "cpu_percent", "valor": 99, "unidade": "%", "tags": {"kind": "host"}});
        event(EventType::METRIC_COLLECTED, seconds, &data)
    };
    assert_eq!(partition.apply(&busy(0))[0].kind, TransitionKind::Pending);
    assert!(partition.apply(&busy(119)).is_empty());
    assert_eq!(partition.apply(&busy(120))[0].kind, TransitionKind::Fired);
}

#[test]
fn rules_are_about_sensors_or_about_services_never_both() {
    let text = r#"
[[rule]]
name = "every-sensor"
select = '{}'
above = 10
[[rule]]
name = "tagged"
select = '{service=~".*", endpoint="/pay"}'
above = 10
labels = { team = "billing" }
"#;
    let rules = || RuleSet::parse([("rules.toml", text)]).unwrap();
    let mut partition = Partition::new(rules());
    assert!(partition.apply(&metric(0, "x", 50.0)).is_empty(), "a sensor rule, and another tag");
    let data = json!({"nome": "x", "valor": 50, "tags": {"endpoint": "/pay", "unit": "odd"}});
    let fired = partition.apply(&event(EventType::METRIC_COLLECTED, 1, &data));
    assert_eq!(fired[0].alert.labels["endpoint"], "/pay");
    assert_eq!(fired[0].alert.labels["team"], "billing");
    // Labels survive the hand-over, and the end of the rule.
    let mut next = partition.handed_over(RuleSet::default());
    let ended = next.state.settle(at(9));
    assert_eq!(ended[0].alert.labels, fired[0].alert.labels);

    let reading = Reading::parse(br#"{"sensor_id":"a","value":50}"#, at(0)).unwrap();
    let mut sensors = PartitionState::new("sensor-data".into(), 1, Arc::new(rules()));
    let found = sensors.apply_reading(&reading, 1, at(0)).unwrap();
    assert_eq!((found.len(), found[0].alert.rule.as_str()), (1, "every-sensor"));
}

#[test]
fn alerts_of_a_service_that_stops_or_is_removed_end_and_its_series_are_forgotten() {
    for (event_type, ended, left) in [(EventType::SERVICE_STOPPED, 2, 1), (EventType::SERVICE_REMOVED, 3, 0)]
    {
        let mut partition = Partition::new(defaults::rules());
        partition.apply(&metric(0, "cpu_percent", 99.0));
        partition.apply(&metric(1, "response_time_ms", 9000.0));
        partition.apply(&metric(2, "quiet", 1.0));
        partition.apply(&event(EventType::SYSTEM_UNAVAILABLE, 3, &json!({})));
        let other = Event { source: "shop-2".to_owned(), ..metric(4, "cpu_percent", 99.0) };
        partition.apply(&other);

        let told = partition.apply(&event(event_type.clone(), 5, &json!({})));
        assert_eq!(told.len(), ended, "{event_type}: {told:?}");
        for transition in &told {
            assert_eq!((transition.kind, transition.at), (TransitionKind::Resolved, at(5)));
            let evidence = transition.evidence.as_ref().unwrap();
            assert!(evidence.explanation.starts_with("The service "), "{evidence:?}");
            assert_eq!(evidence.positions[0].to_string(), "system-events/1@6");
        }
        assert_eq!(partition.state.active_count(), left + 1, "{event_type}: and that of another service");
        assert_eq!(partition.state.series_count(), left + 1);
        // Read again after a crash, it changes nothing that came later.
        let again = partition.apply(&metric(6, "cpu_percent", 99.0));
        assert_eq!(again[0].kind, TransitionKind::Fired);
        let (repeated, forgotten) = partition.state.service_ended("shop", ServiceEnd::Removed, 3, at(7));
        assert_eq!((repeated.len(), forgotten.len()), (0, 0));
    }
}

#[test]
fn only_what_claims_to_be_judged_is_looked_at() {
    for event_type in [EventType::SERVICE_STARTED, EventType::CONSUMER_HEARTBEAT, EventType::ALERT_FIRED] {
        assert_eq!(ServiceNews::of(&event(event_type, 0, &json!({"nome": 3}))), Ok(None));
    }
    assert!(ServiceNews::of(&event(EventType::METRIC_COLLECTED, 0, &json!({"nome": "x"}))).is_err());
}

#[test]
fn version_2_is_written_and_read_as_ever() {
    let text = "[[rule]]\nname = \"busy\"\nselect = '{metric=\"cpu_percent\"}'\nabove = 90\nlabels = { team = \"web\" }\n";
    let rules = || RuleSet::parse([("rules.toml", text)]).unwrap();
    let mut partition = Partition::new(rules());
    let data = json!({"nome": "cpu_percent", "valor": 95, "unidade": "%", "tags": {"core": 3}});
    partition.apply(&event(EventType::METRIC_COLLECTED, 0, &data));
    let bytes = partition.state.series_state(r#"cpu_percent{service="shop",core="3"}"#).unwrap();
    let golden = include_bytes!("../../tests/golden/series_state_v2.bin");
    assert_eq!(bytes, golden, "the layout of version 2 may not change");
    let mut restored = Partition::new(rules());
    restored.state.restore(golden, at(0)).unwrap();
    assert_eq!(restored.state.active_count(), 1);
    restored.offset = 9;
    let resolved = restored.apply(&event(
        EventType::METRIC_COLLECTED,
        5,
        &json!({"nome": "cpu_percent", "valor": 5, "unidade": "%", "tags": {"core": 3}}),
    ));
    assert_eq!(resolved[0].alert.labels["core"], "3");
}
