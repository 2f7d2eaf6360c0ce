use std::borrow::Cow;

use farol_event::{AlertStatus, Location, TransitionKind};

use super::*;

/// A partition under the rules of a text, with readings fed by second.
struct Bench {
    state: PartitionState,
    next_offset: i64,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn reading(sensor_id: &str, seconds: i64, value: f64) -> Reading<'_> {
    Reading {
        timestamp: at(seconds),
        sensor_id: Cow::Borrowed(sensor_id),
        sensor_type: Cow::Borrowed("temperature"),
        location: Location { machine_id: Some(Cow::Borrowed("m-1")), ..Default::default() },
        value,
        unit: Some(Cow::Borrowed("°C")),
        alert_level: None,
        quality: None,
        metadata: None,
        unknown: Vec::new(),
    }
}

/// `fired@12` for each transition, without the alert's own data.
fn told(transitions: &[AlertTransition]) -> Vec<String> {
    let word = |kind| format!("{kind:?}").to_lowercase();
    transitions
        .iter()
        .map(|t| format!("{}@{}", word(t.kind), (t.at.as_micros() - at(0).as_micros()) / 1_000_000))
        .collect()
}

fn rules(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::parse([("rules.toml", text)]).unwrap_or_else(|e| panic!("{e}")))
}

/// One rule for all series: `condition` is the rest of its keys.
fn rule(condition: &str) -> String {
    format!("[[rule]]\nname = \"r\"\nselect = '{{}}'\n{condition}\n")
}

impl Bench {
    fn new(text: &str) -> Self {
        Self { state: PartitionState::new("sensor-data".into(), 2, rules(text)), next_offset: 100 }
    }

    fn give(&mut self, reading: &Reading<'_>, arrival: Timestamp) -> Vec<AlertTransition> {
        self.next_offset += 1;
        self.state.apply_reading(reading, self.next_offset - 1, arrival).unwrap()
    }

    /// Values of sensor `s`, by second; what they caused.
    fn values(&mut self, values: &[(i64, f64)]) -> Vec<AlertTransition> {
        let mut out = Vec::new();
        for (seconds, value) in values {
            out.extend(self.give(&reading("s", *seconds, *value), at(*seconds)));
        }
        out
    }
}

#[test]
fn conditions_fire_and_resolve_as_documented() {
    type Case = (&'static str, &'static [(i64, f64)], &'static [&'static str]);
    let cases: &[Case] = &[
        ("above = 40", &[(0, 40.0), (1, 40.1), (2, 41.0), (3, 40.0)], &["fired@1", "resolved@3"]),
        ("below = 5", &[(0, 5.0), (1, 4.9), (2, 5.0)], &["fired@1", "resolved@2"]),
        ("outside = [10, 20]", &[(0, 10.0), (1, 9.0), (2, 21.0), (3, 20.0)], &["fired@1", "resolved@3"]),
        // Hysteresis: between the thresholds nothing begins and nothing ends.
        (
            "above = 40\nclear = 38",
            &[(0, 39.0), (1, 41.0), (2, 39.0), (3, 41.0), (4, 38.0)],
            &["fired@1", "resolved@4"],
        ),
        (
            "outside = [10, 20]\nclear = [12, 18]",
            &[(0, 9.0), (1, 11.0), (2, 19.0), (3, 12.0)],
            &["fired@0", "resolved@3"],
        ),
        // A duration completes with a reading, at or after its end.
        ("above = 40\nfor = \"10s\"", &[(0, 41.0), (9, 41.0), (12, 41.0)], &["pending@0", "fired@12"]),
        (
            "above = 40\nfor = \"10s\"",
            &[(0, 41.0), (10, 41.0), (11, 0.0)],
            &["pending@0", "fired@10", "resolved@11"],
        ),
        (
            "above = 40\nfor = \"10s\"",
            &[(0, 41.0), (9, 40.0), (12, 41.0)],
            &["pending@0", "dismissed@9", "pending@12"],
        ),
        // While pending, hysteresis doesn't hold the alert.
        ("above = 40\nclear = 30\nfor = \"10s\"", &[(0, 41.0), (5, 39.0)], &["pending@0", "dismissed@5"]),
        (
            "above = 40\nclear_for = \"10s\"",
            &[(0, 41.0), (5, 30.0), (14, 30.0), (15, 30.0)],
            &["fired@0", "resolved@15"],
        ),
        // A value between the thresholds starts the count anew.
        (
            "above = 40\nclear = 38\nclear_for = \"10s\"",
            &[(0, 41.0), (5, 30.0), (10, 39.0), (14, 30.0), (20, 30.0), (24, 30.0)],
            &["fired@0", "resolved@24"],
        ),
        // 2 per 10 s are 12 per minute.
        ("rate_above = 10", &[(0, 20.0), (10, 21.0), (20, 23.0), (30, 24.0)], &["fired@20", "resolved@30"]),
        ("rate_above = 1\nrate_per = \"1s\"", &[(0, 0.0), (2, 1.0), (3, 3.0)], &["fired@3"]),
        ("rate_below = -10", &[(0, 20.0), (10, 18.0), (20, 17.0)], &["fired@10", "resolved@20"]),
        // Over a window, a single jump counts for less.
        ("rate_above = 10\nwindow = \"1m\"", &[(0, 0.0), (30, 9.0), (60, 9.0), (90, 20.0)], &["fired@90"]),
    ];
    for (condition, values, expected) in cases {
        let told = told(&Bench::new(&rule(condition)).values(values));
        assert_eq!(told, *expected, "{condition} with {values:?}");
    }
}

#[test]
fn an_alert_carries_its_evidence() {
    let mut bench = Bench::new(&rule(
        "above = 40\nfor = \"10s\"\nclear = 39\nclear_for = \"5s\"\nseverity = \"critical\"",
    ));
    let out = bench.values(&[(0, 41.5), (5, 42.0), (11, 43.0), (12, 39.0), (20, 38.5)]);
    assert_eq!(told(&out), ["pending@0", "fired@11", "resolved@20"]);
    let offsets = |t: &AlertTransition| -> Vec<i64> {
        let evidence = t.evidence.as_ref().unwrap();
        assert!(evidence.positions.iter().all(|p| &*p.topic == "sensor-data" && p.partition == 2));
        evidence.positions.iter().map(|p| p.offset).collect()
    };
    assert_eq!(offsets(&out[0]), [100]);
    assert_eq!(offsets(&out[1]), [100, 102]);
    assert_eq!(offsets(&out[2]), [103, 104]);
    let explanation = |t: &AlertTransition| t.evidence.as_ref().unwrap().explanation.clone();
    assert_eq!(explanation(&out[0]), "41.5 °C is above 40 °C; the rule asks that it stays so for 10s.");
    assert_eq!(
        explanation(&out[1]),
        "43 °C is above 40 °C, and has been since 2023-11-14T22:13:20.000000Z (11s); the rule asks for 10s."
    );
    assert_eq!(
        explanation(&out[2]),
        "38.5 °C is not above 39 °C, and has been since 2023-11-14T22:13:32.000000Z (8s); the rule asks for 5s."
    );
    let fired = &out[1].alert;
    assert_eq!((fired.status, fired.began_at, fired.fired_at), (AlertStatus::Firing, at(0), Some(at(11))));
    assert_eq!(fired.summary, "s: 43 °C is above 40 °C");
    assert_eq!(fired.value, Some(43.0));
    assert_eq!(fired.rule_definition["above"], 40.0);
    let labels: Vec<_> = fired.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(labels, ["machine_id=m-1", "sensor_id=s", "sensor_type=temperature", "unit=°C"]);
    let resolved = &out[2].alert;
    assert_eq!((resolved.status, resolved.ended_at), (AlertStatus::Resolved, Some(at(20))));
    assert!(out.iter().all(|t| t.alert.id == fired.id));
}

#[test]
fn a_rate_is_explained_with_both_its_ends() {
    let mut bench = Bench::new(&rule("rate_above = 10"));
    let out = bench.values(&[(0, 20.0), (30, 26.0)]);
    let evidence = out[0].evidence.as_ref().unwrap();
    assert_eq!(evidence.value, Some(12.0));
    assert_eq!(evidence.explanation, "12 °C per 1m (from 20 °C to 26 °C in 30s) is above 10 °C per 1m.");
    assert_eq!(evidence.positions.iter().map(|p| p.offset).collect::<Vec<_>>(), [100, 101]);
}

#[test]
fn absence_is_measured_by_arrival_and_ended_by_any_reading() {
    let mut bench = Bench::new(&rule("absent_for = \"5m\""));
    assert_eq!(bench.values(&[(0, 1.0), (100, 1.0)]), []);
    assert_eq!(bench.state.tick(at(399)), []);
    let fired = bench.state.tick(at(500));
    assert_eq!(
        told(&fired),
        ["fired@400"],
        "at the instant at which it was due, not at which it was noticed"
    );
    let evidence = fired[0].evidence.as_ref().unwrap();
    assert_eq!(evidence.explanation, "No reading arrived for 5m after 2023-11-14T22:15:00.000000Z.");
    assert_eq!(evidence.positions[0].offset, 101);
    assert_eq!(bench.state.tick(at(10_000)), [], "it fires once");
    // A late reading (by event time) shows as well that the sensor is there.
    let resolved = bench.give(&reading("s", 50, 1.0), at(600));
    assert_eq!(told(&resolved), ["resolved@600"]);
    assert_eq!(told(&bench.state.tick(at(900))), ["fired@900"]);
}

#[test]
fn absence_that_nobody_noticed_is_told_when_a_reading_comes() {
    let mut bench = Bench::new(&rule("absent_for = \"5m\""));
    bench.values(&[(0, 1.0)]);
    assert_eq!(told(&bench.values(&[(1000, 1.0)])), ["fired@300", "resolved@1000"]);
}

#[test]
fn absence_does_not_count_while_the_door_was_shut() {
    let mut bench = Bench::new(&rule("absent_for = \"5m\""));
    bench.values(&[(0, 1.0)]);
    bench.state.listening_since(at(1000));
    assert_eq!(bench.state.tick(at(1299)), []);
    assert_eq!(told(&bench.state.tick(at(1300))), ["fired@1300"]);
}

#[test]
fn readings_of_poor_quality_are_ignored_by_rules_that_ask_for_better() {
    let mut bench = Bench::new(&rule("above = 40\nmin_quality = 0.5"));
    let with = |seconds, value, quality| Reading { quality, ..reading("s", seconds, value) };
    assert_eq!(bench.give(&with(0, 50.0, Some(0.4)), at(0)), []);
    assert_eq!(told(&bench.give(&with(1, 50.0, Some(0.5)), at(1))), ["fired@1"]);
    assert_eq!(bench.give(&with(2, 10.0, Some(0.0)), at(2)), []);
    assert_eq!(told(&bench.give(&with(3, 10.0, None), at(3))), ["resolved@3"], "no quality counts as 1");
    assert_eq!(bench.state.counters().low_quality, 2);
    let mut absent = Bench::new(&rule("absent_for = \"10s\"\nmin_quality = 0.5"));
    absent.give(&with(0, 1.0, None), at(0));
    assert_eq!(absent.give(&with(9, 1.0, Some(0.1)), at(9)), []);
    assert_eq!(told(&absent.state.tick(at(10))), ["fired@10"]);
}

#[test]
fn late_readings_change_nothing_and_equal_times_are_judged() {
    let mut bench = Bench::new(&rule("above = 40"));
    let out = bench.values(&[(10, 30.0), (9, 50.0), (10, 41.0), (9, 30.0), (10, 30.0)]);
    assert_eq!(told(&out), ["fired@10", "resolved@10"]);
    assert_eq!((bench.state.counters().late, bench.state.counters().judged), (2, 3));
}

#[test]
fn alerts_that_begin_in_the_same_instant_have_different_ids() {
    let mut bench = Bench::new(&rule("above = 40"));
    let out = bench.values(&[(10, 50.0), (10, 30.0), (10, 50.0), (10, 30.0), (10, 50.0), (11, 0.0)]);
    assert_eq!(told(&out), ["fired@10", "resolved@10", "fired@10", "resolved@10", "fired@10", "resolved@11"]);
    assert_ne!(out[0].alert.id, out[2].alert.id);
    assert_ne!(out[2].alert.id, out[4].alert.id);
    assert!(out.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn a_clock_that_runs_ahead_does_not_make_later_readings_late() {
    let mut bench = Bench::new(&rule("above = 40"));
    let far_ahead = reading("s", 7200, 50.0);
    assert_eq!(told(&bench.give(&far_ahead, at(10))), ["fired@10"]);
    assert_eq!(told(&bench.values(&[(11, 30.0)])), ["resolved@11"]);
    assert_eq!(bench.state.counters().clock_ahead, 1);
    let slightly_ahead = reading("s", 72, 50.0);
    assert_eq!(told(&bench.give(&slightly_ahead, at(12))), ["fired@72"], "a minute's lead is believed");
}

#[test]
fn a_record_that_was_applied_before_is_skipped() {
    let mut bench = Bench::new(&rule("above = 40"));
    bench.values(&[(0, 30.0), (1, 50.0)]);
    assert_eq!(bench.state.apply_reading(&reading("s", 2, 30.0), 101, at(2)).unwrap(), []);
    assert_eq!(bench.state.counters().repeated, 1);
    assert_eq!(bench.state.applied_through("s"), Some(101));
    assert_eq!(told(&bench.state.apply_reading(&reading("s", 2, 30.0), 102, at(2)).unwrap()), ["resolved@2"]);
}

#[test]
fn two_rules_about_one_series_have_an_alert_each() {
    let mut bench = Bench::new(
        "[[rule]]\nname = \"warm\"\nselect = '{}'\nabove = 35\n[[rule]]\nname = \"hot\"\nselect = '{}'\nabove = 40\n",
    );
    let out = bench.values(&[(0, 36.0), (1, 41.0), (2, 30.0)]);
    let told: Vec<_> = out.iter().map(|t| format!("{} {:?}", t.alert.rule, t.kind)).collect();
    assert_eq!(told, ["warm Fired", "hot Fired", "warm Resolved", "hot Resolved"]);
}

#[test]
fn summaries_are_made_from_their_template() {
    let text = "above = 40\nlabels = { team = \"x\" }\nsummary = \"{machine_id}: {value} {unit} > {threshold} ({team})\"";
    let out = Bench::new(&rule(text)).values(&[(0, 41.0)]);
    assert_eq!(out[0].alert.summary, "m-1: 41 °C > 40 (x)");
    assert_eq!(out[0].alert.labels["team"], "x");
}

const MACHINE_RULE: &str = "[[rule]]\nname = \"r\"\nselect = '{machine_id=\"m-1\"}'\nabove = 40\n";

#[test]
fn changed_labels_are_matched_anew_and_end_alerts_of_rules_that_no_longer_select() {
    let mut bench = Bench::new(MACHINE_RULE);
    assert_eq!(told(&bench.values(&[(0, 50.0)])), ["fired@0"]);
    let moved = |seconds| Reading {
        location: Location { machine_id: Some("m-2".into()), ..Default::default() },
        ..reading("s", seconds, 50.0)
    };
    let out = bench.give(&moved(1), at(1));
    assert_eq!(told(&out), ["resolved@1"]);
    assert!(out[0].evidence.as_ref().unwrap().explanation.contains("no longer selects"));
    assert_eq!(out[0].alert.labels["machine_id"], "m-1", "the labels with which it began");
    assert_eq!(bench.give(&moved(2), at(2)), []);
    assert_eq!(told(&bench.values(&[(3, 50.0)])), ["fired@3"]);
}

#[test]
fn alerts_of_rules_that_change_end_and_say_why() {
    for (after, why) in [
        ("", "removed"),
        ("[[rule]]\nname = \"r\"\nselect = '{machine_id=\"m-1\"}'\nabove = 45\n", "changed"),
        (
            "[[rule]]\nname = \"r\"\nselect = '{machine_id=\"m-1\"}'\nabove = 40\nenabled = false\n",
            "disabled",
        ),
    ] {
        let mut bench = Bench::new(MACHINE_RULE);
        bench.values(&[(0, 50.0)]);
        let out = bench.state.rules_changed(rules(after), at(60));
        assert_eq!(told(&out), ["resolved@60"], "{why}");
        assert!(out[0].evidence.as_ref().unwrap().explanation.contains(why));
        assert_eq!(out[0].alert.rule_definition["above"], 40.0, "the rule as it stood");
        assert_eq!(bench.state.active_count(), 0);
        let again = bench.values(&[(0, 50.0)]);
        assert_eq!(again.len(), usize::from(why == "changed"), "{why}");
        assert!(
            again.iter().all(|t| t.alert.id != out[0].alert.id),
            "an id of its own, even at the same instant"
        );
    }
    let mut pending = Bench::new(&rule("above = 40\nfor = \"1h\""));
    pending.values(&[(0, 50.0)]);
    assert_eq!(told(&pending.state.rules_changed(rules(""), at(60))), ["dismissed@60"]);
}

#[test]
fn rules_that_stay_keep_their_alerts_wherever_they_stand() {
    let mut bench = Bench::new(MACHINE_RULE);
    bench.values(&[(0, 50.0)]);
    let first = "[[rule]]\nname = \"first\"\nselect = '{}'\nabsent_for = \"5m\"\n";
    assert_eq!(bench.state.rules_changed(rules(&format!("{first}{MACHINE_RULE}")), at(60)), []);
    assert_eq!(
        told(&bench.state.tick(at(10_000))),
        ["fired@360"],
        "a new rule counts absence from when it is in force"
    );
    assert_eq!(told(&bench.values(&[(20_000, 30.0)])), ["resolved@20000", "resolved@20000"]);
}

#[test]
fn many_alerts_whose_rule_is_gone_are_settled_in_bounded_steps() {
    let mut bench = Bench::new(&rule("above = 40"));
    let sensors = MAX_TRANSITIONS_PER_CALL + 10;
    for i in 0..sensors {
        bench.give(&reading(&format!("s-{i}"), 0, 50.0), at(0));
    }
    let first = bench.state.rules_changed(rules(""), at(1));
    assert_eq!((first.len(), bench.state.unsettled()), (MAX_TRANSITIONS_PER_CALL, 10));
    // A reading of a series that is not settled yet settles it first.
    let late_one = format!("s-{}", sensors - 1);
    let unsettled = bench.state.unsettled.keys().next().unwrap().clone();
    assert_eq!(bench.give(&reading(&unsettled, 2, 50.0), at(2)).len(), 1, "{late_one}");
    assert_eq!(bench.state.settle(at(3)).len(), 9);
    assert_eq!(bench.state.settle(at(3)), []);
}

#[test]
fn many_absences_are_told_in_bounded_steps() {
    let mut bench = Bench::new(&rule("absent_for = \"1m\""));
    for i in 0..MAX_TRANSITIONS_PER_CALL + 10 {
        bench.give(&reading(&format!("s-{i}"), 0, 50.0), at(0));
    }
    assert_eq!(bench.state.tick(at(60)).len(), MAX_TRANSITIONS_PER_CALL);
    assert!(bench.state.next_deadline().unwrap() <= at(60));
    assert_eq!(bench.state.tick(at(60)).len(), 10);
    assert_eq!(bench.state.next_deadline(), None);
}

#[test]
fn changed_series_are_taken_once_and_can_be_given_back() {
    let mut bench = Bench::new(&rule("above = 40"));
    for (sensor, seconds) in [("a", 0), ("b", 0), ("a", 1), ("c", 1)] {
        bench.give(&reading(sensor, seconds, 1.0), at(seconds));
    }
    let ids = |taken: &[SeriesState]| taken.iter().map(|s| s.sensor_id.clone()).collect::<Vec<_>>();
    assert_eq!(bench.state.dirty(), 3);
    assert_eq!(ids(&bench.state.take_dirty(2, usize::MAX)), ["a", "b"]);
    bench.state.mark_dirty("a");
    let taken = bench.state.take_dirty(10, usize::MAX);
    assert_eq!(ids(&taken), ["c", "a"]);
    assert_eq!(taken[1].bytes, bench.state.series_state("a").unwrap());
    assert_eq!(bench.state.take_dirty(10, usize::MAX), []);
    // One that is larger than asked for is taken all the same, and no other with it.
    for sensor in ["a", "b", "c"] {
        bench.state.mark_dirty(sensor);
    }
    assert_eq!(ids(&bench.state.take_dirty(10, 1)), ["a"]);
    assert_eq!(ids(&bench.state.take_dirty(10, taken[0].bytes.len() + 2)), ["b", "c"]);
    assert_eq!(bench.state.series_state("nobody"), None);
}

#[test]
fn idle_series_without_an_alert_can_be_forgotten() {
    let mut bench = Bench::new(&rule("above = 40"));
    for (sensor, seconds, value) in
        [("old-b", 0, 1.0), ("old-a", 0, 1.0), ("hot", 0, 50.0), ("new", 100, 1.0)]
    {
        bench.give(&reading(sensor, seconds, value), at(seconds));
    }
    assert_eq!(bench.state.forget_idle(at(50)), ["old-a", "old-b"]);
    assert_eq!((bench.state.series_count(), bench.state.dirty()), (2, 2));
    assert_eq!(bench.state.applied_through("old-a"), None);
    assert_eq!(told(&bench.give(&reading("hot", 101, 1.0), at(101))), ["resolved@101"]);
    assert_eq!(bench.give(&reading("old-a", 102, 1.0), at(102)), []);
    assert_eq!(bench.state.series_count(), 3);
}

#[test]
fn series_can_be_forgotten_by_name_with_all_that_they_had() {
    let mut bench = Bench::new(&rule("above = 40"));
    for sensor in ["a", "b", "c"] {
        bench.give(&reading(sensor, 0, 50.0), at(0));
    }
    bench.state.forget(&["a", "c", "nobody"].map(str::to_owned).into());
    assert_eq!((bench.state.series_count(), bench.state.applied_through("a")), (1, None));
    assert_eq!(told(&bench.give(&reading("a", 1, 50.0), at(1))), ["fired@1"], "it is a new series");
    assert_eq!(told(&bench.give(&reading("b", 1, 1.0), at(1))), ["resolved@1"]);
}

#[test]
fn states_of_other_kinds_are_not_mixed_up() {
    let mut bench = Bench::new(&rule("above = 40"));
    bench.values(&[(0, 1.0)]);
    let bytes = bench.state.series_state("s").unwrap();
    let mut other = PartitionState::new("sensor-data".into(), 3, rules(&rule("above = 40")));
    let error = other.restore(&bytes, at(0)).unwrap_err();
    assert_eq!(error.to_string(), "the saved state of `s` belongs to partition 2, not to 3");
}

#[test]
fn transitions_alternate_in_kind() {
    let mut bench = Bench::new(&rule("above = 40"));
    let out = bench.values(&[(0, 50.0), (1, 1.0), (2, 50.0)]);
    let kinds: Vec<_> = out.iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [TransitionKind::Fired, TransitionKind::Resolved, TransitionKind::Fired]);
}

#[test]
fn a_service_with_too_many_metrics_takes_room_from_nobody_and_its_outages_are_still_judged() {
    let text = "[[rule]]\nname = \"down\"\nselect = '{metric=\"available\"}'\nbelow = 0.5\n";
    let mut state = PartitionState::new("system-events".into(), 0, rules(text));
    let mut offset = 0;
    let mut tell = |state: &mut PartitionState, event_type, service: &str, data: serde_json::Value| {
        let event = farol_event::Event::new(uuid::Uuid::nil(), at(offset), event_type, service, &data);
        offset += 1;
        let crate::ServiceNews::Sample(sample) = crate::ServiceNews::of(&event).unwrap().unwrap() else {
            panic!("{event:?} is no sample")
        };
        state.apply(&sample.measurement(), offset, at(offset))
    };
    let metric =
        |request: usize| serde_json::json!({"nome": "calls", "valor": 1, "tags": {"request": request}});
    let collected = farol_event::EventType::METRIC_COLLECTED;
    for request in 0..MAX_SERIES_PER_SERVICE {
        tell(&mut state, collected.clone(), "talker", metric(request)).unwrap();
    }
    let refused = tell(&mut state, collected.clone(), "talker", metric(MAX_SERIES_PER_SERVICE)).unwrap_err();
    assert!(refused.to_string().starts_with("service `talker` has 1000 series already"), "{refused}");
    assert_eq!(state.counters().over_limit, 1);
    tell(&mut state, collected.clone(), "talker", metric(7)).unwrap();
    tell(&mut state, collected.clone(), "other", metric(0)).unwrap();
    let down = farol_event::EventType::SYSTEM_UNAVAILABLE;
    assert_eq!(tell(&mut state, down, "talker", serde_json::json!({})).unwrap().len(), 1);
    // What is forgotten makes room.
    state.forget(&BTreeSet::from(["calls{service=\"talker\",request=\"3\"}".to_owned()]));
    tell(&mut state, collected, "talker", metric(MAX_SERIES_PER_SERVICE)).unwrap();
}

#[test]
fn what_was_saved_of_a_service_beyond_its_bound_is_taken_back_and_its_alerts_end() {
    let text = "[[rule]]\nname = \"many\"\nselect = '{metric=\"calls\"}'\nabove = 5\n";
    let fresh = || PartitionState::new("system-events".into(), 0, rules(text));
    let tell = |state: &mut PartitionState, request: usize, value: u32, offset: i64| {
        let data = serde_json::json!({"nome": "calls", "valor": value, "tags": {"request": request}});
        let collected = farol_event::EventType::METRIC_COLLECTED;
        let event = farol_event::Event::new(uuid::Uuid::nil(), at(offset), collected, "talker", &data);
        let crate::ServiceNews::Sample(sample) = crate::ServiceNews::of(&event).unwrap().unwrap() else {
            panic!("{event:?} is no sample")
        };
        state.apply(&sample.measurement(), offset, at(offset))
    };
    // As if saved when the bound was a higher one.
    let mut saved = Vec::new();
    let mut many = fresh();
    for request in 0..MAX_SERIES_PER_SERVICE {
        tell(&mut many, request, 1, 1).unwrap();
    }
    saved.extend(many.take_dirty(usize::MAX, usize::MAX));
    let mut firing = fresh();
    assert_eq!(told(&tell(&mut firing, MAX_SERIES_PER_SERVICE, 9, 1).unwrap()), ["fired@1"]);
    saved.extend(firing.take_dirty(usize::MAX, usize::MAX));

    let mut state = fresh();
    for series in &saved {
        state.restore(&series.bytes, at(2)).unwrap();
    }
    assert_eq!(state.series_count(), MAX_SERIES_PER_SERVICE + 1);
    state.forget(&BTreeSet::from(["calls{service=\"talker\",request=\"3\"}".to_owned()]));
    assert_eq!(state.series_count(), MAX_SERIES_PER_SERVICE, "nothing else is forgotten with it");
    assert_eq!(told(&tell(&mut state, MAX_SERIES_PER_SERVICE, 1, 3).unwrap()), ["resolved@3"]);
    assert!(tell(&mut state, MAX_SERIES_PER_SERVICE + 1, 1, 4).is_err(), "new ones still find no room");
}
