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
