use proptest::prelude::*;

use super::*;

fn arrival() -> Timestamp {
    "2025-09-16T22:00:00Z".parse().unwrap()
}

fn error(json: &str) -> String {
    Reading::parse(json.as_bytes(), arrival()).unwrap_err().to_string()
}

#[test]
fn documented_example_is_parsed_whole() {
    let json = include_str!("../../tests/golden/reading.json");
    let reading = Reading::parse(json.as_bytes(), arrival()).unwrap();
    assert_eq!(reading.timestamp.to_string(), "2025-09-16T21:41:41.011144Z");
    assert_eq!(reading.sensor_id, "temp-sensor-001");
    assert_eq!(reading.sensor_type, "temperature");
    assert_eq!(reading.location.machine_id.as_deref(), Some("machine-001"));
    assert_eq!(reading.value, 42.48);
    assert_eq!(reading.unit.as_deref(), Some("°C"));
    assert_eq!(reading.alert_level, Some(AlertLevel::Critical));
    assert_eq!(reading.quality, Some(1.0));
    assert_eq!(reading.to_json(), serde_json::from_str::<serde_json::Value>(json).unwrap());
}

#[test]
fn only_sensor_id_and_value_are_required() {
    let reading = Reading::parse(br#"{"sensor_id":"a","value":1}"#, arrival()).unwrap();
    assert_eq!(reading.timestamp, arrival());
    assert_eq!(reading.sensor_type, UNKNOWN_SENSOR_TYPE);
    assert!(error(r#"{"value":1}"#).contains("missing field `sensor_id`"));
    assert!(error(r#"{"sensor_id":"a"}"#).contains("missing field `value`"));
}

#[test]
fn unknown_fields_are_kept_in_order() {
    let reading =
        Reading::parse(br#"{"zeta":[1,2],"sensor_id":"a","value":1,"alpha":{"x":null}}"#, arrival()).unwrap();
    let names: Vec<_> = reading.unknown.iter().map(|(n, _)| n.as_ref()).collect();
    assert_eq!(names, ["zeta", "alpha"]);
    assert_eq!(reading.to_json()["alpha"], serde_json::json!({"x": null}));
}

#[test]
fn each_mistake_is_named() {
    assert!(error("{").contains("EOF"));
    assert!(error("[1]").contains("a JSON object"));
    assert!(error(r#"{"sensor_id":"","value":1}"#).contains("must not be empty"));
    assert!(error(r#"{"sensor_id":7,"value":1}"#).contains("`sensor_id`: invalid type"));
    assert!(error(r#"{"sensor_id":"a","value":"hot"}"#).contains("`value`: invalid type"));
    assert!(error(r#"{"sensor_id":"a","value":NaN}"#).contains("expected value"));
    assert!(error(r#"{"sensor_id":"a","value":1e999}"#).contains("`value`: number out of range"));
    assert!(error(r#"{"sensor_id":"a","value":1,"value":2}"#).contains("duplicate field `value`"));
    assert!(error(r#"{"sensor_id":"a","value":1,"quality":1.5}"#).contains("between 0 and 1"));
    assert!(error(r#"{"sensor_id":"a","value":1,"metadata":3}"#).contains("`metadata` must be"));
    assert!(
        error(r#"{"sensor_id":"a","value":1,"location":["hall","m1",null]}"#)
            .contains("`location`: invalid type")
    );
    assert!(error(r#"{"sensor_id":"a","value":1,"alert_level":"meh"}"#).contains("`alert_level`"));
    assert!(error(r#"{"sensor_id":"a","value":1,"timestamp":"yesterday"}"#).contains("RFC 3339"));
    assert!(
        error(r#"{"sensor_id":"a","value":1,"timestamp":"1812-01-01T00:00:00Z"}"#).contains("before 1970")
    );
    assert!(error(r#"{"sensor_id":"a","value":1,"timestamp":"2999-01-01T00:00:00Z"}"#).contains("future"));
    assert!(error("{\"sensor_id\":\"a\\u0007\",\"value\":1}").contains("control characters"));
    assert!(error(r#"{"sensor_id":"..","value":1}"#).contains("must not be `.` or `..`"));
    let long = format!(r#"{{"sensor_id":"{}","value":1}}"#, "x".repeat(300));
    assert!(error(&long).contains("256"));
    let huge = format!(r#"{{"sensor_id":"a","value":1,"note":"{}"}}"#, "x".repeat(MAX_READING_BYTES));
    assert!(error(&huge).contains("65536"));
}

#[test]
fn nulls_count_as_absent() {
    let json = br#"{"sensor_id":"a","value":1,"timestamp":null,"unit":null,"quality":null,"metadata":null,"location":null}"#;
    let reading = Reading::parse(json, arrival()).unwrap();
    assert!(reading.unit.is_none() && reading.quality.is_none() && reading.metadata.is_none());
}

/// Texts as senders write them, mostly: fields in any order, few with something odd in them.
fn reading_text() -> impl Strategy<Value = String> {
    let text = || {
        prop_oneof![
            8 => "\"[a-z0-9 °µ.-]{1,12}\"",
            1 => "\"([a-z]|\\\\[nu\"]|\\\\u00e9|\u{7}|\u{7f}|\u{85}){0,6}\"",
            1 => Just("null".to_owned()),
            1 => "-?[0-9]{1,3}",
        ]
    };
    let number = || {
        prop_oneof![
            8 => "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,3})?",
            1 => "-?[0-9]{1,30}(\\.[0-9]{0,3})?([eE][+-]?)?",
            1 => Just("null".to_owned()),
        ]
    };
    let any = || {
        prop_oneof![
            "-?[0-9]{1,22}(\\.[0-9]{1,3})?",
            text(),
            Just("[1, {\"a\":[]}]".to_owned()),
            Just("{\"b\" : \"}\"}".to_owned()),
            Just("true".to_owned()),
            Just("[1,]".to_owned()),
            Just("01".to_owned()),
        ]
    };
    let time = prop_oneof![
        8 => "\"20[0-9]{2}-0[1-9]-[0-2][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z\"",
        1 => "\"20[0-9]{2}-0[1-9]-[0-2][0-9][T ][01][0-9]:[0-5][0-9]:[0-5][0-9][+-]0[0-9]:30\"",
        1 => text(),
    ];
    let level =
        prop::sample::select(vec!["\"normal\"", "\"warning\"", "\"critical\"", "\"Normal\"", "1", "null"]);
    let place = (prop::sample::select(vec!["factory_section", "machine_id", "zone", "other"]), text())
        .prop_map(|(name, text)| format!("{{\"{name}\": {text}}}"));
    let field = prop_oneof![
        time.prop_map(|v| format!("\"timestamp\":{v}")),
        text().prop_map(|v| format!("\"sensor_type\":{v}")),
        text().prop_map(|v| format!("\"unit\" : {v}")),
        number().prop_map(|v| format!("\"quality\":{v}")),
        level.prop_map(|v| format!("\"alert_level\":{v}")),
        place.prop_map(|v| format!("\"location\":{v}")),
        any().prop_map(|v| format!("\"metadata\":{v}")),
        ("[a-z]{1,3}", any()).prop_map(|(name, v)| format!("\"{name}\":{v} ")),
        text().prop_map(|v| format!("\"sensor_id\":{v}")),
    ];
    let required = (text(), number())
        .prop_map(|(id, value)| vec![format!("\"sensor_id\":{id}"), format!("\"value\":{value}")]);
    let fields = (required, prop::collection::vec(field, 0..6)).prop_map(|(mut all, more)| {
        all.extend(more);
        all
    });
    let end = prop_oneof![9 => Just("}"), 1 => prop::sample::select(vec!["", ",}", "}}", "} \n", "} x"])];
    (fields.prop_shuffle(), end).prop_map(|(fields, end)| format!("{{{}{end}", fields.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_plain_reading_is_read_as_the_general_parser_reads_it(text in reading_text()) {
        if let Some(raw) = plain::parse(&text) {
            let general = Reading::parse_any_form(&text, arrival());
            prop_assert_eq!(format!("{:?}", raw.check(arrival())), format!("{general:?}"));
        }
    }
}

#[test]
fn what_senders_usually_write_is_plain() {
    let golden = include_str!("../../tests/golden/reading.json");
    let with_more = r#"{"timestamp":"2025-09-16T21:41:41.011144Z","sensor_id":"load-000001","sensor_type":"temperature",
        "value":25.13,"unit":"°C","seq":7,"metadata":{"a":[1]}}"#;
    for text in [golden, with_more, r#"{"sensor_id":"a","value":-1e3}"#] {
        assert!(plain::parse(text).is_some(), "{text}");
    }
    for text in [r#"{"sensor_id":"a\n","value":1}"#, r#"{"sensor_id":"a","value":01}"#, "{}", ""] {
        assert!(plain::parse(text).is_none(), "{text}");
    }
}
