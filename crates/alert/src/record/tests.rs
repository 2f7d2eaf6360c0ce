use TransitionKind::{Acknowledged, Dismissed, Fired, Pending, Resolved};
use proptest::prelude::*;

use super::*;
use crate::fixture::{at, transition};

#[test]
fn every_kind_travels_as_an_event_and_back() {
    for (kind, text) in [
        (Pending, "alerta_pendente"),
        (Fired, "alerta_gerado"),
        (Resolved, "alerta_resolvido"),
        (Dismissed, "alerta_descartado"),
        (Acknowledged, "alerta_reconhecido"),
    ] {
        let original = transition(kind, 0, 5);
        let correlation = Uuid::from_u128(7);
        let event = to_event(&original, Some(correlation));
        assert_eq!((event.event_type.as_str(), event.source.as_str(), event.time), (text, "temp-1", at(5)));
        assert_eq!(event.correlationid, Some(correlation));
        let read = Event::parse_kept(&event.to_json()).unwrap();
        assert_eq!(from_event(&read).unwrap(), original);
    }
}

#[test]
fn ids_are_the_same_for_ever() {
    let id = |kind, seconds| to_event(&transition(kind, 0, seconds), None).id;
    assert_eq!(id(Fired, 5), "686cd4a3-c7a2-5249-ad4b-af6523498fa8");
    assert_ne!(id(Fired, 5), id(Fired, 6));
    assert_ne!(id(Fired, 5), id(Resolved, 5));
}

#[test]
fn other_events_are_refused() {
    let event = to_event(&transition(Fired, 0, 5), None);
    let error = |event: Event| from_event(&event).unwrap_err().to_string();
    let other = Event { event_type: EventType::SERVICE_STARTED, ..event.clone() };
    assert!(error(other).contains("`servico_iniciado`, which is not about an alert"));
    let newer = Event { dataversion: 2, ..event.clone() };
    assert!(error(newer).contains("`dataversion` 2"));
    let contradiction = Event { event_type: EventType::ALERT_RESOLVED, ..event.clone() };
    assert!(error(contradiction).contains("its data says `Fired`"));
    let mut broken = event;
    broken.data.remove("alert");
    assert!(error(broken).contains("missing field `alert`"));
}

proptest! {
    #[test]
    fn arbitrary_data_never_panics(json in "\\{\"(kind|at|alert)\":(\"fired\"|3|null|\\{\\})\\}") {
        let mut event = to_event(&transition(Fired, 0, 5), None);
        if let Ok(serde_json::Value::Object(data)) = serde_json::from_str(&json) {
            event.data = data;
            prop_assert!(from_event(&event).is_err());
        }
    }
}
