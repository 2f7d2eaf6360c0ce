use std::borrow::Cow;

use farol_event::{Location, Reading};

use super::*;
use crate::PartitionState;

const RULES: &str = r#"
[[rule]]
name = "hot"
select = '{}'
above = 40
clear_for = "10s"
[[rule]]
name = "rise"
select = '{}'
rate_above = 100
window = "20s"
[[rule]]
name = "silent"
select = '{}'
absent_for = "5m"
"#;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn empty() -> PartitionState {
    PartitionState::new("sensor-data".into(), 1, Arc::new(RuleSet::parse([("rules.toml", RULES)]).unwrap()))
}

fn apply(state: &mut PartitionState, offset: i64, seconds: i64, value: f64) -> usize {
    let reading = Reading {
        timestamp: at(seconds),
        sensor_id: Cow::Borrowed("temp-1"),
        sensor_type: Cow::Borrowed("temperature"),
        location: Location { zone: Some("zone-a".into()), ..Default::default() },
        value,
        unit: Some("°C".into()),
        alert_level: None,
        quality: None,
        metadata: None,
        unknown: Vec::new(),
    };
    state.apply_reading(&reading, offset, at(seconds)).unwrap().len()
}

/// A series with something to remember of every kind: an alert that is clearing, samples, an arrival.
fn eventful() -> PartitionState {
    let mut state = empty();
    assert_eq!(apply(&mut state, 7, 0, 41.0), 1);
    assert_eq!(apply(&mut state, 9, 10, 30.0), 0);
    state
}

#[test]
fn version_1_is_written_and_read_as_ever() {
    let golden = include_bytes!("../../tests/golden/series_state_v1.bin");
    assert_eq!(eventful().series_state("temp-1").unwrap(), golden, "the layout of version 1 may not change");
    let mut state = empty();
    state.restore(golden, at(0)).unwrap();
    assert_eq!(state.settle(at(0)), []);
    assert_eq!((state.active_count(), state.applied_through("temp-1")), (1, Some(9)));
    assert_eq!(apply(&mut state, 11, 20, 30.0), 1, "resolves after ten clear seconds");
}

#[test]
fn a_series_that_is_well_takes_little() {
    let mut state = empty();
    let rules =
        RuleSet::parse([("rules.toml", "[[rule]]\nname = \"hot\"\nselect = '{}'\nabove = 40\n")]).unwrap();
    state.rules_changed(Arc::new(rules), at(0));
    apply(&mut state, 1_000_000, 0, 30.0);
    assert!(state.series_state("temp-1").unwrap().len() < 64);
}

#[test]
fn other_versions_and_damage_are_refused_clearly() {
    let mut state = empty();
    let mut bytes = eventful().series_state("temp-1").unwrap();
    assert_eq!(
        state.restore(&[], at(0)).unwrap_err().to_string(),
        "the saved state is damaged at byte 0: version is cut short"
    );
    bytes[0] = 3;
    assert_eq!(state.restore(&bytes, at(0)), Err(RestoreError::UnknownVersion(3)));
    bytes[0] = 1;
    bytes.push(0);
    assert!(state.restore(&bytes, at(0)).unwrap_err().to_string().contains("more bytes"));
    assert_eq!(state.series_count(), 0);
}

#[test]
fn restoring_again_replaces_what_was_restored() {
    let (mut state, mut later) = (empty(), eventful());
    state.restore(&later.series_state("temp-1").unwrap(), at(0)).unwrap();
    apply(&mut later, 20, 30, 30.0);
    state.restore(&later.series_state("temp-1").unwrap(), at(0)).unwrap();
    assert_eq!((state.series_count(), state.active_count()), (1, 0));
    assert_eq!(state.series_state("temp-1"), later.series_state("temp-1"));
}

#[test]
fn alerts_of_rules_that_are_gone_are_kept_until_they_are_settled() {
    let bytes = eventful().series_state("temp-1").unwrap();
    let none = Arc::new(RuleSet::default());
    let mut state = PartitionState::new("sensor-data".into(), 1, Arc::clone(&none));
    state.restore(&bytes, at(0)).unwrap();
    assert_eq!((state.unsettled(), state.active_count()), (1, 1));
    // Saved and restored once more before anybody settled it.
    let again = state.series_state("temp-1").unwrap();
    let mut state = PartitionState::new("sensor-data".into(), 1, none);
    state.restore(&again, at(0)).unwrap();
    let ended = state.settle(at(60));
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].alert.rule_definition["above"], 40.0);
    assert_eq!(ended[0].alert.labels["zone"], "zone-a");
    assert!(ended[0].evidence.as_ref().unwrap().explanation.contains("removed"));
    assert!(state.dirty() == 1 && state.unsettled() == 0);
}
