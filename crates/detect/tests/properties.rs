//! What holds for the detector whatever readings come.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use farol_alert::AlertBook;
use farol_detect::condition::Verdict;
use farol_detect::{Condition, PartitionState, RuleSet};
use farol_event::{AlertTransition, Location, Reading, Timestamp, TransitionKind};
use proptest::prelude::*;

const SENSORS: [&str; 3] = ["a", "b", "c"];

/// Rules of every kind; a test takes any subset of them.
const RULES: [&str; 10] = [
    "name = \"above\"\nselect = '{}'\nabove = 5",
    "name = \"hysteresis\"\nselect = '{}'\nabove = 6\nclear = 3",
    "name = \"held\"\nselect = '{machine_id=\"m-1\"}'\nabove = 4\nclear = 2\nfor = \"20s\"\nclear_for = \"15s\"",
    "name = \"below\"\nselect = '{sensor_id=~\"a|b\"}'\nbelow = -5\nclear_for = \"1s\"",
    "name = \"outside\"\nselect = '{}'\noutside = [-7, 7]\nclear = [-6, 6]\nmin_quality = 0.5",
    "name = \"rate\"\nselect = '{}'\nrate_above = 20",
    "name = \"fall\"\nselect = '{}'\nrate_below = -5\nwindow = \"30s\"\nclear = 0\nfor = \"5s\"",
    "name = \"silent\"\nselect = '{}'\nabsent_for = \"30s\"",
    "name = \"silent-longer\"\nselect = '{sensor_id!=\"c\"}'\nabsent_for = \"1m\"\nmin_quality = 0.5",
    "name = \"held-long\"\nselect = '{machine_id!~\"m-2\"}'\nbelow = 0\nfor = \"1m\"\nclear = 1",
];

#[derive(Debug, Clone)]
enum Input {
    Reading {
        sensor: usize,
        arrival: Timestamp,
        offset: i64,
        at: Timestamp,
        value: f64,
        quality: Option<f64>,
        machine: &'static str,
    },
    Tick(Timestamp),
}

/// Inputs in the order of a log: offsets and arrivals go up, readings may be late, repeated in time, or ahead.
fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let reading = (
        0..SENSORS.len(),
        0i64..25,
        prop_oneof![6 => Just(0i64), 3 => 0i64..40, 1 => -100i64..0],
        -9i32..=9,
        prop_oneof![4 => Just(None), 1 => Just(Some(0.2)), 1 => Just(Some(0.9))],
        prop_oneof![12 => Just("m-1"), 1 => Just("m-2")],
    );
    let step = prop_oneof![8 => reading.prop_map(Some), 1 => Just(None)];
    prop::collection::vec((step, 0i64..60), 0..120).prop_map(|steps| {
        let mut now = 1_700_000_000i64;
        let mut offset = 10;
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000).unwrap();
        let step = |(step, pause): (Option<_>, i64)| match step {
            Some((sensor, pause, lag, value, quality, machine)) => {
                now += pause;
                offset += 1;
                let (arrival, value) = (at(now), f64::from(value));
                Input::Reading { sensor, arrival, offset, at: at(now - lag), value, quality, machine }
            }
            None => {
                now += pause;
                Input::Tick(at(now))
            }
        };
        steps.into_iter().map(step).collect()
    })
}

fn rules() -> impl Strategy<Value = Arc<RuleSet>> {
    prop::sample::subsequence(&RULES[..], 1..=RULES.len()).prop_map(|texts| rule_set(&texts))
}

fn rule_set(texts: &[&str]) -> Arc<RuleSet> {
    let text: String = texts.iter().map(|rule| format!("[[rule]]\n{rule}\n")).collect();
    Arc::new(RuleSet::parse([("rules.toml", text.as_str())]).unwrap_or_else(|e| panic!("{e}")))
}

fn state(rules: &Arc<RuleSet>) -> PartitionState {
    PartitionState::new("sensor-data".into(), 0, Arc::clone(rules))
}

fn give(state: &mut PartitionState, input: &Input) -> Vec<AlertTransition> {
    match input {
        Input::Tick(now) => state.tick(*now),
        Input::Reading { sensor, arrival, offset, at, value, quality, machine } => {
            let reading = Reading {
                timestamp: *at,
                sensor_id: Cow::Borrowed(SENSORS[*sensor]),
                sensor_type: Cow::Borrowed("temperature"),
                location: Location { machine_id: Some(Cow::Borrowed(machine)), ..Default::default() },
                value: *value,
                unit: Some(Cow::Borrowed("°C")),
                alert_level: None,
                quality: *quality,
                metadata: None,
                unknown: Vec::new(),
            };
            state.apply_reading(&reading, *offset, *arrival).unwrap()
        }
    }
}

fn run(rules: &Arc<RuleSet>, inputs: &[Input]) -> Vec<AlertTransition> {
    let mut state = state(rules);
    inputs.iter().flat_map(|input| give(&mut state, input)).collect()
}

fn by_series(transitions: &[AlertTransition]) -> BTreeMap<&str, Vec<&AlertTransition>> {
    let mut map: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for transition in transitions {
        map.entry(&transition.alert.series).or_default().push(transition);
    }
    map
}

fn values(inputs: &[Input]) -> BTreeMap<i64, f64> {
    let value = |input: &Input| match input {
        Input::Reading { offset, value, .. } => Some((*offset, *value)),
        Input::Tick(_) => None,
    };
    inputs.iter().filter_map(value).collect()
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    // Fewer cases than usual, each of them long; a failure prints its seed. PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transitions_are_legal_and_never_two_alerts_are_active(rules in rules(), inputs in inputs()) {
        let mut book = AlertBook::new();
        for transition in run(&rules, &inputs) {
            let before = book.get(transition.alert.id).cloned();
            let after = book.apply(&transition).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(after, &transition.alert, "the alert that travels is the alert as it folds");
            prop_assert_ne!(before.as_ref(), Some(after), "no transition is told twice");
        }
    }

    #[test]
    fn the_same_input_makes_the_same_alerts(rules in rules(), inputs in inputs()) {
        prop_assert_eq!(run(&rules, &inputs), run(&rules, &inputs));
    }

    #[test]
    fn evidence_exists_and_says_what_it_claims(rules in rules(), inputs in inputs()) {
        let given = values(&inputs);
        for transition in run(&rules, &inputs) {
            let evidence = transition.evidence.as_ref().unwrap();
            for position in &evidence.positions {
                prop_assert!(given.contains_key(&position.offset), "{position} was never read");
            }
            let rule = rules.get(&transition.alert.rule).unwrap();
            let moved = evidence.explanation.contains("no longer selects");
            match *rule.condition() {
                _ if moved => {}
                Condition::Absent(_) => prop_assert_eq!(evidence.value, None),
                Condition::Value(band) | Condition::Rate { band, .. } => {
                    let value = evidence.value.unwrap();
                    if matches!(rule.condition(), Condition::Value(_)) {
                        prop_assert_eq!(given[&evidence.positions.last().unwrap().offset], value);
                    } else {
                        prop_assert!(evidence.positions.len() >= 2);
                    }
                    match transition.kind {
                        TransitionKind::Pending | TransitionKind::Fired => {
                            prop_assert_eq!(band.judge(value), Verdict::Breached);
                            let began = given[&evidence.positions[0].offset];
                            let fired_later = rule.hold().is_zero() || transition.kind == TransitionKind::Pending;
                            let compared_alone = matches!(rule.condition(), Condition::Value(_));
                            prop_assert!(fired_later || !compared_alone || band.judge(began) == Verdict::Breached);
                            if transition.kind == TransitionKind::Fired {
                                prop_assert!(transition.at.since(transition.alert.began_at) >= rule.hold());
                            }
                        }
                        // Hysteresis: never between the thresholds.
                        TransitionKind::Resolved => prop_assert_eq!(band.judge(value), Verdict::Clear),
                        TransitionKind::Dismissed => prop_assert_ne!(band.judge(value), Verdict::Breached),
                        TransitionKind::Acknowledged => prop_assert!(false, "the detector acknowledges nothing"),
                    }
                }
            }
        }
    }

    #[test]
    fn stopping_and_going_on_from_saved_state_changes_nothing(
        rules in rules(),
        inputs in inputs(),
        stop in any::<prop::sample::Index>(),
    ) {
        let stop = stop.index(inputs.len() + 1);
        let mut before = state(&rules);
        let mut told: Vec<_> = inputs[..stop].iter().flat_map(|input| give(&mut before, input)).collect();
        let mut after = state(&rules);
        for sensor in SENSORS {
            if let Some(bytes) = before.series_state(sensor) {
                after.restore(&bytes, Timestamp::EPOCH).unwrap();
                prop_assert_eq!(after.series_state(sensor), Some(bytes));
            }
        }
        prop_assert_eq!(after.settle(Timestamp::EPOCH), []);
        prop_assert_eq!(after.active_count(), before.active_count());
        told.extend(inputs[stop..].iter().flat_map(|input| give(&mut after, input)));
        prop_assert_eq!(told, run(&rules, &inputs));
    }

    /// Series are saved with their transitions, the others only at the last checkpoint; after the crash, reading starts
    /// again at the checkpoint.
    #[test]
    fn reading_again_after_a_crash_tells_nothing_twice_and_loses_nothing(
        rules in rules(),
        inputs in inputs(),
        points in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let (one, other) = (points.0.index(inputs.len() + 1), points.1.index(inputs.len() + 1));
        let (checkpoint, crash) = (one.min(other), one.max(other));
        let mut saved: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut before = state(&rules);
        let mut told = Vec::new();
        for (i, input) in inputs[..crash].iter().enumerate() {
            if i == checkpoint {
                saved.extend(before.take_dirty(usize::MAX, usize::MAX).into_iter().map(|s| (s.sensor_id, s.bytes)));
            }
            let new = give(&mut before, input);
            for transition in &new {
                let series = transition.alert.series.clone();
                saved.insert(series.clone(), before.series_state(&series).unwrap());
            }
            told.extend(new);
        }
        if checkpoint == crash {
            saved.extend(before.take_dirty(usize::MAX, usize::MAX).into_iter().map(|s| (s.sensor_id, s.bytes)));
        }
        let mut after = state(&rules);
        for bytes in saved.values() {
            after.restore(bytes, Timestamp::EPOCH).unwrap();
        }
        prop_assert_eq!(after.settle(Timestamp::EPOCH), []);
        let readings = |input: &&Input| matches!(input, Input::Reading { .. });
        for input in inputs[checkpoint..crash].iter().filter(readings) {
            prop_assert_eq!(give(&mut after, input), [], "read again: {:?}", input);
        }
        told.extend(inputs[crash..].iter().flat_map(|input| give(&mut after, input)));
        prop_assert_eq!(told, run(&rules, &inputs));
    }

    #[test]
    fn it_does_not_matter_when_anybody_looks_at_the_clock(rules in rules(), inputs in inputs()) {
        let end = Input::Tick(Timestamp::from_micros(1_800_000_000_000_000).unwrap());
        let seldom: Vec<_> = inputs.iter().filter(|i| matches!(i, Input::Reading { .. })).chain([&end]).cloned().collect();
        let often: Vec<_> = inputs.iter().chain([&end]).cloned().collect();
        let (seldom, often) = (run(&rules, &seldom), run(&rules, &often));
        prop_assert_eq!(by_series(&seldom), by_series(&often));
    }

    #[test]
    fn series_do_not_matter_to_each_other(rules in rules(), inputs in inputs()) {
        let all = run(&rules, &inputs);
        for (i, id) in SENSORS.iter().enumerate() {
            let own = |input: &&Input| !matches!(input, Input::Reading { sensor, .. } if *sensor != i);
            let alone: Vec<_> = inputs.iter().filter(own).cloned().collect();
            let alone = run(&rules, &alone);
            let (alone, together) = (by_series(&alone), by_series(&all));
            prop_assert_eq!(alone.get(id), together.get(id));
        }
    }

    #[test]
    fn rules_can_change_at_any_time(
        first in rules(),
        second in rules(),
        inputs in inputs(),
        when in any::<prop::sample::Index>(),
    ) {
        let when = when.index(inputs.len() + 1);
        let now = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
        let mut book = AlertBook::new();
        let mut live = state(&first);
        let mut told: Vec<_> = inputs[..when].iter().flat_map(|input| give(&mut live, input)).collect();
        let saved: Vec<_> = SENSORS.iter().filter_map(|sensor| live.series_state(sensor)).collect();
        let ended = live.rules_changed(Arc::clone(&second), now);
        // The same change, found when the state is loaded by a program that has the new rules.
        let mut loaded = state(&second);
        for bytes in &saved {
            loaded.restore(bytes, now).unwrap();
        }
        prop_assert_eq!(&loaded.settle(now), &ended);
        prop_assert!(ended.iter().all(|t| second.get(&t.alert.rule).is_none()), "rules that stay keep their alerts");
        told.extend(ended);
        told.extend(inputs[when..].iter().flat_map(|input| give(&mut live, input)));
        for transition in told {
            book.apply(&transition).map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
    }

    #[test]
    fn arbitrary_rule_files_never_panic(text in "\\PC{0,200}") {
        let _ = RuleSet::parse([("rules.toml", text.as_str())]);
    }

    #[test]
    fn rule_files_with_arbitrary_entries_never_panic(
        entries in prop::collection::vec((
            prop::sample::select(vec![
                "name", "select", "above", "below", "outside", "rate_above", "rate_below", "rate_per", "window",
                "absent_for", "clear", "for", "clear_for", "min_quality", "severity", "labels", "summary", "enabled",
            ]),
            prop_oneof![
                Just("1".to_owned()), Just("-0x1f".to_owned()), Just("nan".to_owned()), Just("-inf".to_owned()),
                Just("1e400".to_owned()), Just("[1, 2]".to_owned()), Just("[2, nan]".to_owned()), Just("'{}'".to_owned()),
                Just("'5m'".to_owned()), Just("'{sensor_id=~\"(((\"}'".to_owned()), Just("true".to_owned()),
                Just("{ a = 'b' }".to_owned()), Just("1979-05-27".to_owned()), "\"[a-z{}]{0,9}\"".prop_map(|s| s),
            ],
        ), 0..12),
    ) {
        let text: String = entries.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let text = format!("[[rule]]\n{text}");
        if let Err(problems) = RuleSet::parse([("rules.toml", text.as_str())]) {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.iter().all(|p| !p.problem.is_empty()));
        }
    }

    #[test]
    fn arbitrary_saved_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut state = state(&rule_set(&RULES));
        let _ = state.restore(&bytes, Timestamp::EPOCH);
        let mut versioned = vec![1, 0];
        versioned.extend(&bytes);
        let _ = state.restore(&versioned, Timestamp::EPOCH);
    }

    #[test]
    fn damaged_saved_bytes_never_panic(
        inputs in inputs(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let rules = rule_set(&RULES);
        let mut original = state(&rules);
        for input in &inputs {
            give(&mut original, input);
        }
        for sensor in SENSORS {
            let Some(bytes) = original.series_state(sensor) else { continue };
            let cut = cut.index(bytes.len());
            prop_assert!(state(&rules).restore(&bytes[..cut], Timestamp::EPOCH).is_err());
            let mut damaged = bytes;
            for (place, value) in &damage {
                let place = place.index(damaged.len());
                damaged[place] = *value;
            }
            let mut restored = state(&rules);
            if restored.restore(&damaged, Timestamp::EPOCH).is_ok() {
                for input in &inputs {
                    give(&mut restored, input);
                }
            }
        }
    }
}
