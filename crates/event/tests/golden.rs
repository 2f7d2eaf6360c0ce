//! The JSON of what flows, byte for byte: other people's programs rely on it.

#![allow(clippy::unwrap_used)]

use farol_event::service::{
    BreakerMoved, CheckChanged, Maintenance, Metric, PolicyMeasured, Reason, ServiceDescription,
    SimulationApplied, SimulationChanged,
};
use farol_event::{AlertId, AlertTransition, Event, EventType, ServiceFact, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

#[test]
fn an_event_is_read_and_written_as_documented() {
    let golden = include_str!("golden/event.json");
    let event = Event::parse_kept(golden.as_bytes()).unwrap();
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

/// Reads the data of an event of this type, as a service fact and by itself, and writes it again byte for byte.
fn is_read_and_written<T: DeserializeOwned + Serialize>(event_type: &str, golden: &str) {
    let data: T = serde_json::from_str(golden).unwrap();
    assert_eq!(serde_json::to_string_pretty(&data).unwrap(), golden.trim_end(), "{event_type}");
    let event = Event::new(Uuid::nil(), Timestamp::EPOCH, EventType::new(event_type), "shop", &data);
    assert!(matches!(ServiceFact::of(&event), Some(Ok(_))), "{event_type} tells of a service");
    assert!(EventType::KNOWN.contains(&event.event_type), "{event_type} is one of Farol's own types");
}

macro_rules! service_goldens {
    ($($data:ty = $event_type:literal,)*) => {
        $(is_read_and_written::<$data>($event_type, include_str!(concat!("golden/service/", $event_type, ".json")));)*
    };
}

#[test]
fn what_is_told_of_services_is_read_and_written_as_documented() {
    service_goldens! {
        ServiceDescription = "servico_iniciado",
        Metric = "metrica_coletada",
        Reason = "sistema_indisponivel",
        Maintenance = "servico_em_manutencao",
        CheckChanged = "verificacao_alterada",
        BreakerMoved = "disjuntor_aberto",
        PolicyMeasured = "politica_medida",
        SimulationChanged = "simulacao_alterada",
        SimulationApplied = "simulacao_aplicada",
    }
}
