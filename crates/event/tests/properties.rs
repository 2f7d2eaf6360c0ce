//! Everything that serialises parses back, and arbitrary bytes never panic.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use farol_event::service::{Metric, PolicyMeasured};
use farol_event::severity::AlertLevel;
use farol_event::{
    Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Event, EventType, Evidence, Location,
    Position, Reading, ServiceFact, Severity, Timestamp, TransitionKind,
};
use proptest::prelude::*;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Instants from 1970 to 9999, where readings and events lie.
fn instant() -> impl Strategy<Value = Timestamp> {
    (0i64..253_402_207_200_000_000).prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

/// Text as labels and attributes may have: not empty, no control characters.
fn text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,12}".prop_filter("nothing can be called so", |text| !matches!(text.as_str(), "." | ".."))
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("JSON has no other numbers", |value| value.is_finite())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        finite().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(".{0,6}", json(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn transition() -> impl Strategy<Value = AlertTransition> {
    let kind = prop::sample::select(vec![
        TransitionKind::Pending,
        TransitionKind::Fired,
        TransitionKind::Resolved,
        TransitionKind::Dismissed,
        TransitionKind::Acknowledged,
    ]);
    let position = (text(), any::<i32>(), any::<i64>()).prop_map(|(topic, partition, offset)| Position {
        topic: topic.into(),
        partition,
        offset,
    });
    let evidence = (prop::collection::vec(position, 0..3), prop::option::of(finite()), ".{0,20}")
        .prop_map(|(positions, value, explanation)| Evidence { positions, value, explanation });
    let acknowledgement = || {
        (text(), instant(), prop::option::of(".{0,9}")).prop_map(|(by, at, comment)| Acknowledgement {
            by,
            at,
            comment,
        })
    };
    let labels = prop::collection::btree_map(text(), text(), 0..3);
    let parts = (text(), object(), text(), labels, prop::sample::select(&Severity::ALL[..]), ".{0,20}");
    let life = (
        prop::sample::select(&AlertStatus::ALL[..]),
        prop::option::of(finite()),
        instant(),
        prop::option::of(instant()),
        prop::option::of(instant()),
        prop::option::of(acknowledgement()),
    );
    let alert = (any::<u128>(), parts, life).prop_map(|(id, parts, life)| {
        let (rule, definition, series, labels, severity, summary) = parts;
        let (status, value, began_at, fired_at, ended_at, acknowledgement) = life;
        let (id, rule_definition) = (AlertId(Uuid::from_u128(id)), Value::Object(definition));
        Alert {
            id,
            rule,
            rule_definition,
            series,
            labels,
            severity,
            status,
            summary,
            value,
            began_at,
            fired_at,
            ended_at,
            acknowledgement,
        }
    });
    (kind, instant(), prop::option::of(evidence), prop::option::of(acknowledgement()), alert).prop_map(
        |(kind, at, evidence, acknowledgement, alert)| AlertTransition {
            kind,
            at,
            evidence,
            acknowledgement,
            alert,
        },
    )
}

fn extension() -> impl Strategy<Value = (String, Value)> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from)
    ];
    // `x` in front keeps clear of the names that CloudEvents and Farol give a meaning to.
    ("x[a-z0-9]{0,8}", value)
}

fn event() -> impl Strategy<Value = Event> {
    let optional = || prop::option::of(text());
    let attributes = (text(), instant(), text(), text(), 1u32.., prop::option::of(any::<u128>()));
    let more =
        (optional(), optional(), optional(), optional(), prop::collection::vec(extension(), 0..4), object());
    (attributes, more).prop_map(|(attributes, more)| {
        let (id, time, event_type, source, dataversion, correlation) = attributes;
        let (traceparent, subject, datacontenttype, dataschema, extensions, data) = more;
        let empty = BTreeMap::<String, Value>::new();
        Event {
            id,
            dataversion,
            correlationid: correlation.map(Uuid::from_u128),
            traceparent,
            subject,
            datacontenttype,
            dataschema,
            extensions: extensions.into_iter().collect(),
            data,
            ..Event::new(Uuid::nil(), time, EventType::new(event_type), source, &empty)
        }
    })
}

proptest! {
    #[test]
    fn readings_parse_back(
        (at, sensor_id, sensor_type, unit) in (instant(), text(), text(), prop::option::of(text())),
        (section, machine, zone) in (prop::option::of(text()), prop::option::of(text()), prop::option::of(text())),
        value in finite(),
        level in prop::option::of(prop::sample::select(vec![AlertLevel::Normal, AlertLevel::Warning, AlertLevel::Critical])),
        quality in prop::option::of(0.0f64..=1.0),
        metadata in prop::option::of(object()),
        unknown in prop::collection::btree_map("x.{0,6}", json(), 0..4),
    ) {
        let raw = |value: &Value| serde_json::value::to_raw_value(value).unwrap();
        let metadata = metadata.map(|m| raw(&Value::Object(m)));
        let unknown: Vec<_> = unknown.iter().map(|(name, value)| (name.clone(), raw(value))).collect();
        let original = Reading {
            timestamp: at,
            sensor_id: Cow::Owned(sensor_id),
            sensor_type: Cow::Owned(sensor_type),
            location: Location {
                factory_section: section.map(Cow::Owned),
                machine_id: machine.map(Cow::Owned),
                zone: zone.map(Cow::Owned),
            },
            value,
            unit: unit.map(Cow::Owned),
            alert_level: level,
            quality,
            metadata: metadata.as_deref(),
            unknown: unknown.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_ref())).collect(),
        };
        let json = original.to_json();
        let text = json.to_string();
        let parsed = Reading::parse(text.as_bytes(), at).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        prop_assert_eq!(parsed.timestamp, original.timestamp);
        prop_assert_eq!(parsed.value.to_bits(), original.value.to_bits(), "exactly the same number");
        prop_assert_eq!(&parsed.location, &original.location);
        prop_assert_eq!(parsed.to_json(), json);
    }

    #[test]
    fn events_parse_back(event in event()) {
        let json = event.to_json();
        let parsed = Event::parse_kept(&json);
        prop_assert_eq!(parsed.map_err(|e| TestCaseError::fail(e.to_string()))?, event);
    }

    #[test]
    fn metrics_parse_back(
        service in text().prop_filter("a service has a name", |name| !name.trim().is_empty()), name in text(), value in finite(), unit in prop::option::of(text()),
        tags in prop::collection::btree_map(text(), text(), 0..4), at in instant(),
    ) {
        let metric = Metric { name, value, unit, tags };
        let event = Event::new(Uuid::nil(), at, EventType::METRIC_COLLECTED, service, &metric);
        let parsed = Event::parse_kept(&event.to_json()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(ServiceFact::of(&parsed), Some(Ok(ServiceFact::Metric(metric))));
    }

    #[test]
    fn policies_parse_back(
        (caller, name, kind) in (text(), text(), text()), service in prop::option::of(text()), state in prop::option::of(text()),
        counters in prop::collection::btree_map(text(), finite(), 0..4), settings in object(),
    ) {
        let settings = settings.into_iter().collect();
        let policy = PolicyMeasured { caller, name, kind, service, state, counters, settings };
        let event = Event::new(Uuid::nil(), Timestamp::EPOCH, EventType::POLICY_MEASURED, "s", &policy);
        prop_assert_eq!(ServiceFact::of(&event), Some(Ok(ServiceFact::PolicyMeasured(policy))));
    }

    #[test]
    fn data_of_any_shape_in_any_known_event_never_panics(
        event_type in prop::sample::select(EventType::KNOWN), mut data in object(),
        field in prop::sample::select(vec!["nome", "valor", "tags", "reason", "check", "to", "caller", "counters", "until"]),
        value in json(),
    ) {
        data.insert(field.into(), value);
        let event = Event::new(Uuid::nil(), Timestamp::EPOCH, event_type, "s", &data);
        match ServiceFact::of(&event) {
            None => prop_assert!(!ServiceFact::is_told_by(&event.event_type)),
            Some(Ok(ServiceFact::Metric(metric))) => prop_assert!(metric.value.is_finite() && !metric.name.is_empty()),
            Some(Ok(_)) => {}
            Some(Err(error)) => prop_assert!(!error.problem.is_empty()),
        }
    }

    #[test]
    fn alert_transitions_parse_back(transition in transition()) {
        let json = serde_json::to_vec(&transition).unwrap();
        prop_assert_eq!(serde_json::from_slice::<AlertTransition>(&json).unwrap(), transition);
    }

    #[test]
    fn timestamps_print_and_parse_back(micros in -62_167_219_200_000_000i64..=253_402_207_200_000_000) {
        let instant = Timestamp::from_micros(micros).unwrap();
        prop_assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
    }

    #[test]
    fn timestamps_sort_as_their_texts_do(a in instant(), b in instant()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn arbitrary_timestamps_never_panic(
        text in "\\PC{0,40}",
        shaped in "-?[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        micros in any::<i64>(),
        seconds in any::<u64>(),
    ) {
        let _ = text.parse::<Timestamp>();
        let _ = shaped.parse::<Timestamp>();
        let clamped = Timestamp::from_millis_clamped(micros);
        let moved = clamped.saturating_add(std::time::Duration::from_secs(seconds));
        prop_assert!(moved >= clamped && moved.to_string().parse::<Timestamp>().is_ok());
        let back = clamped.saturating_sub(std::time::Duration::from_secs(seconds));
        prop_assert!(back <= clamped && back.to_string().parse::<Timestamp>().is_ok());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Reading::parse(&bytes, Timestamp::EPOCH);
        let _ = Event::parse(&bytes, Timestamp::EPOCH);
        let _ = serde_json::from_slice::<AlertTransition>(&bytes);
    }

    #[test]
    fn damaged_json_never_panics(
        which in 0usize..3, place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let goldens = [
            include_bytes!("golden/reading.json").as_slice(),
            include_bytes!("golden/event.json").as_slice(),
            include_bytes!("golden/alert_transition.json").as_slice(),
        ];
        let mut bytes = goldens.get(which).unwrap().to_vec();
        let place = place.index(bytes.len());
        *bytes.get_mut(place).unwrap() = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(reading) = Reading::parse(&bytes, Timestamp::EPOCH) {
            prop_assert!(reading.value.is_finite() && !reading.sensor_id.is_empty());
        }
        let _ = Event::parse(&bytes, Timestamp::EPOCH);
        let _ = serde_json::from_slice::<AlertTransition>(&bytes);
    }

    #[test]
    fn values_of_any_json_type_in_any_field_never_panic(
        field in prop::sample::select(vec![
            "timestamp", "sensor_id", "sensor_type", "location", "value", "unit", "alert_level", "quality", "metadata", "x",
        ]),
        value in json(),
    ) {
        let mut object = Map::from_iter([("sensor_id".to_owned(), "a".into()), ("value".to_owned(), 1.into())]);
        object.insert(field.into(), value);
        let text = Value::Object(object).to_string();
        match Reading::parse(text.as_bytes(), Timestamp::EPOCH) {
            Ok(reading) => {
                let again = reading.to_json().to_string();
                prop_assert!(Reading::parse(again.as_bytes(), Timestamp::EPOCH).is_ok(), "{again}");
            }
            Err(problem) => prop_assert!(!problem.to_string().is_empty()),
        }
    }
}

/// The feature of the HTTP API's document: every type that it shows has a schema.
#[cfg(feature = "openapi")]
#[test]
fn what_the_api_shows_has_a_schema() {
    use utoipa::ToSchema;
    let names = [Event::name(), Alert::name(), AlertTransition::name(), Evidence::name(), Position::name()];
    assert_eq!(names, ["Event", "Alert", "AlertTransition", "Evidence", "Position"]);
}
