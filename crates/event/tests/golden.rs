//! The JSON of what flows, byte for byte: other people's programs rely on it.

use farol_event::{AlertId, AlertTransition, Event, Timestamp};

#[test]
fn an_event_is_read_and_written_as_documented() {
    let golden = include_str!("golden/event.json");
    let event = Event::parse(golden.as_bytes(), Timestamp::EPOCH).unwrap();
    assert_eq!(event.event_type.as_str(), "servico_iniciado");
    assert_eq!((event.dataversion, event.extensions.len()), (2, 2));
    assert_eq!(serde_json::to_string_pretty(&event).unwrap(), golden.trim_end());
}

#[test]
fn an_alert_transition_is_read_and_written_as_documented() {
    let golden = include_str!("golden/alert_transition.json");
    let transition: AlertTransition = serde_json::from_str(golden).unwrap();
    assert_eq!(transition.alert.began_at.to_string(), "2025-09-16T21:41:41.011144Z");
    assert_eq!(serde_json::to_string_pretty(&transition).unwrap(), golden.trim_end());
    let alert = &transition.alert;
    assert_eq!(
        alert.id,
        AlertId::derive(&alert.rule, &alert.series, alert.began_at),
        "ids are the same for ever"
    );
}

#[test]
fn parts_that_are_absent_may_be_missing() {
    let golden = include_str!("golden/alert_transition.json");
    let mut json: serde_json::Value = serde_json::from_str(golden).unwrap();
    json.as_object_mut().unwrap().remove("evidence");
    let alert = json["alert"].as_object_mut().unwrap();
    for part in ["value", "fired_at", "acknowledgement"] {
        alert.remove(part);
    }
    let transition: AlertTransition = serde_json::from_value(json).unwrap();
    assert!(transition.evidence.is_none() && transition.alert.fired_at.is_none());
}
