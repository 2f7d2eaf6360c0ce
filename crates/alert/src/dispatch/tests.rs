use std::time::Duration;

use farol_event::Severity;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::fixture::{alert, at};
use crate::route::GroupBy;
use crate::silence::{NewSilence, SilenceId, create, expire};

const WAIT: i64 = 30;
const INTERVAL: i64 = 300;

fn routes(group_by: &GroupBy) -> Routes {
    let route = |matchers: &str, receiver: &str, goes_on| Route {
        matchers: matchers.parse().unwrap(),
        receivers: vec![receiver.into()],
        goes_on,
        group_by: group_by.clone(),
        timing: GroupTiming::default(),
    };
    Routes(vec![route("severity=critical", "pager", true), route("{}", "mail", false)])
}

fn dispatcher() -> Dispatcher {
    dispatcher_by(&GroupBy::default())
}

fn dispatcher_by(group_by: &GroupBy) -> Dispatcher {
    let rules = ReceiverRules { send_resolved: true };
    let receivers = BTreeMap::from([("pager".into(), rules), ("mail".into(), rules)]);
    Dispatcher::new(routes(group_by), InhibitRule::defaults(), receivers)
}

/// The alert of a rule and a series that begins at `began`.
fn of(rule: &str, series: &str, severity: Severity, began: i64) -> Alert {
    let id = AlertId::derive(rule, series, at(began));
    Alert { id, rule: rule.into(), series: series.into(), severity, ..alert(began) }
}

fn transition(alert: &Alert, kind: TransitionKind, now: i64) -> AlertTransition {
    let mut alert = alert.clone();
    if kind == TransitionKind::Resolved {
        (alert.status, alert.ended_at) = (AlertStatus::Resolved, Some(at(now)));
    }
    AlertTransition { kind, at: at(now), evidence: None, acknowledgement: None, alert }
}

fn everything(_: &str) -> usize {
    usize::MAX
}

/// What is due, delivered at once: receiver, firing, resolved.
fn told(dispatcher: &mut Dispatcher, now: i64) -> Vec<(String, usize, usize)> {
    let due = dispatcher.due(at(now), everything);
    let told = due.notifications.iter().map(|n| (n.group.receiver.clone(), n.firing.len(), n.resolved.len()));
    let mut told: Vec<_> = told.collect();
    told.sort();
    for notification in due.notifications {
        dispatcher.ended(&notification.group, Ended::Delivered, at(now));
    }
    told
}

fn restarted(saved: &BTreeMap<String, Vec<u8>>, now: i64) -> Dispatcher {
    let mut next = dispatcher();
    saved.values().for_each(|value| next.restore(value).unwrap());
    next.restored(at(now));
    next
}

fn save(dispatcher: &mut Dispatcher, saved: &mut BTreeMap<String, Vec<u8>>) {
    for SavedRecord { key, value } in dispatcher.take_changed() {
        match value {
            Some(value) => saved.insert(key, value),
            None => saved.remove(&key),
        };
    }
}

#[test]
fn alerts_reach_the_receivers_of_their_routes_in_groups() {
    let mut dispatcher = dispatcher();
    for series in ["a", "b"] {
        let alert = of("hot-critical", series, Severity::Critical, 0);
        dispatcher.apply(&transition(&alert, TransitionKind::Fired, 0), at(0)).unwrap();
    }
    let warning = of("cpu-warning", "c", Severity::Warning, 0);
    dispatcher.apply(&transition(&warning, TransitionKind::Fired, 10), at(10)).unwrap();
    assert_eq!(dispatcher.next_due(everything), Some(at(WAIT)));
    assert_eq!(dispatcher.next_due(|_| 0), None);
    assert_eq!(told(&mut dispatcher, 29), []);
    assert_eq!(told(&mut dispatcher, 30), [("mail".into(), 2, 0), ("pager".into(), 2, 0)]);
    assert_eq!(told(&mut dispatcher, 40), [("mail".into(), 1, 0)]);
    dispatcher.apply(&transition(&warning, TransitionKind::Resolved, 50), at(50)).unwrap();
    assert_eq!(told(&mut dispatcher, 340), [("mail".into(), 0, 1)]);
    assert_eq!(dispatcher.alerts(), 2, "what is over and told is forgotten");
}

#[test]
fn a_receiver_without_room_waits_and_nobody_else_does() {
    let mut dispatcher = dispatcher_by(&GroupBy::EveryAlert);
    for series in 0..5 {
        let alert = of("hot", &series.to_string(), Severity::Critical, 0);
        let mut fired = transition(&alert, TransitionKind::Fired, 0);
        fired.alert.labels.insert("sensor_id".into(), series.to_string());
        dispatcher.apply(&fired, at(0)).unwrap();
    }
    let due = dispatcher.due(at(WAIT), |receiver| if receiver == "pager" { 2 } else { 100 });
    let of = |receiver: &str| due.notifications.iter().filter(|n| n.group.receiver == receiver).count();
    assert_eq!((of("pager"), of("mail")), (2, 5));
    assert_eq!(dispatcher.due(at(WAIT), everything).notifications.len(), 3, "the rest stayed due");
}

#[test]
fn inhibited_and_silenced_alerts_are_held_back_and_it_is_said_by_what() {
    let mut dispatcher = dispatcher();
    let critical = of("hot-critical", "a", Severity::Critical, 0);
    let warning = of("hot-warning", "a", Severity::Warning, 0);
    for alert in [&critical, &warning] {
        dispatcher.apply(&transition(alert, TransitionKind::Fired, 0), at(0)).unwrap();
    }
    let asked = NewSilence {
        matchers: "alertname=hot-critical".parse().unwrap(),
        starts_at: at(0),
        ends_at: at(200),
        created_by: "ana",
        comment: "known",
    };
    let silence = create(asked, SilenceId(Uuid::from_u128(9)), at(0)).unwrap();
    assert!(dispatcher.apply_silence(&SilenceFact::Created(silence.clone())));
    assert_eq!(dispatcher.active_silences(at(10)), 1);
    let due = dispatcher.due(at(WAIT), everything);
    assert_eq!(due.notifications, []);
    let mut held: Vec<_> =
        due.held_back.iter().map(|h| (h.receiver.as_str(), h.alert.id, h.suppression.clone())).collect();
    held.sort_by_key(|(receiver, id, _)| (*receiver, *id != critical.id));
    let silenced = Suppression { silenced_by: vec![silence.id], inhibited_by: vec![] };
    let inhibited = Suppression { silenced_by: vec![], inhibited_by: vec![critical.id] };
    assert_eq!(
        held,
        [
            ("mail", critical.id, silenced.clone()),
            ("mail", warning.id, inhibited),
            ("pager", critical.id, silenced)
        ],
        "once for each receiver that would have been told"
    );
    dispatcher.apply_silence(&expire(&silence, None, at(100)).unwrap());
    assert_eq!(told(&mut dispatcher, 30 + INTERVAL), [("mail".into(), 1, 0), ("pager".into(), 1, 0)]);
    dispatcher.apply(&transition(&critical, TransitionKind::Resolved, 400), at(400)).unwrap();
    let after = told(&mut dispatcher, 30 + 2 * INTERVAL);
    assert_eq!(after, [("mail".into(), 0, 1), ("mail".into(), 1, 0), ("pager".into(), 0, 1)]);
}

#[test]
fn groups_beyond_the_bound_join_their_routes_own() {
    let mut dispatcher = dispatcher();
    for number in 0..=MAX_GROUPS {
        let alert = of(&format!("r{number}"), "a", Severity::Warning, 0);
        dispatcher.apply(&transition(&alert, TransitionKind::Fired, 0), at(0)).unwrap();
    }
    let extra = of("one-more", "a", Severity::Warning, 0);
    dispatcher.apply(&transition(&extra, TransitionKind::Fired, 0), at(0)).unwrap();
    let due = dispatcher.due(at(WAIT), everything);
    assert_eq!(due.notifications.len(), MAX_GROUPS + 1);
    let together = due.notifications.iter().find(|n| n.group.labels.is_empty()).unwrap();
    assert_eq!(together.firing.len(), 2);
}

#[test]
fn damaged_and_newer_state_is_refused_with_the_reason() {
    let mut dispatcher = dispatcher();
    assert!(dispatcher.restore(b"{}").is_err());
    assert!(dispatcher.restore(br#"{"version":1,"alert":{}}"#).is_err());
    let newer = br#"{"version":2,"group":{"key":{"route":"{}","receiver":"a","labels":{}},"told":{"at":null,"sequence":1,"firing":[]}}}"#;
    assert!(dispatcher.restore(newer).unwrap_err().contains("version 2"));
}

#[test]
fn a_group_that_no_route_makes_any_more_is_forgotten() {
    let (mut first, mut saved) = (dispatcher(), BTreeMap::new());
    let hot = of("hot", "a", Severity::Critical, 0);
    first.apply(&transition(&hot, TransitionKind::Fired, 0), at(0)).unwrap();
    assert_eq!(told(&mut first, WAIT).len(), 2);
    save(&mut first, &mut saved);
    assert_eq!(saved.keys().filter(|key| key.starts_with("g:")).count(), 2);
    let mut next = Dispatcher::new(Routes::default(), Vec::new(), BTreeMap::new());
    saved.values().for_each(|value| next.restore(value).unwrap());
    next.restored(at(60));
    save(&mut next, &mut saved);
    assert_eq!(saved.keys().filter(|key| key.starts_with("g:")).count(), 0);
    assert_eq!(next.alerts(), 1, "it still fires, and may hold others back");
}

/// What happens in a random story.
#[derive(Debug, Clone)]
enum Step {
    Fire(usize),
    Resolve(usize),
    Silence(usize),
    Unsilence,
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..6).prop_map(Step::Fire),
        3 => (0usize..6).prop_map(Step::Resolve),
        1 => (0usize..6).prop_map(Step::Silence),
        1 => Just(Step::Unsilence),
        4 => (1i64..400).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens, restarts included: nobody hears of an end before a beginning, nothing is told twice, two notifications of a
    /// group are an interval apart, and once it is quiet everybody has been told how things stand.
    #[test]
    fn everybody_learns_how_things_stand_and_nothing_twice(steps in prop::collection::vec(step(), 1..80)) {
        let (mut dispatcher, mut saved, mut now) = (dispatcher(), BTreeMap::new(), 0);
        let mut firing: BTreeMap<usize, Alert> = BTreeMap::new();
        let mut silence: Option<Silence> = None;
        let mut silences = 0;
        let mut known: BTreeMap<String, BTreeSet<AlertId>> = BTreeMap::new();
        let mut last: BTreeMap<GroupKey, i64> = BTreeMap::new();
        let end = [Step::Unsilence, Step::Pass(700)];
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Fire(n) if !firing.contains_key(&n) => {
                    let severity = if n < 3 { Severity::Critical } else { Severity::Warning };
                    now += 1;
                    let alert = of(["r", "s"][n % 2], &n.to_string(), severity, now);
                    dispatcher.apply(&transition(&alert, TransitionKind::Fired, now), at(now)).unwrap();
                    firing.insert(n, alert);
                }
                Step::Resolve(n) => if let Some(alert) = firing.remove(&n) {
                    dispatcher.apply(&transition(&alert, TransitionKind::Resolved, now), at(now)).unwrap();
                },
                Step::Silence(n) if silence.is_none() => {
                    silences += 1;
                    let asked = NewSilence {
                        matchers: format!("series={n}").parse().unwrap(),
                        starts_at: at(now), ends_at: at(now + 1_000_000), created_by: "ana", comment: "x",
                    };
                    let made = create(asked, SilenceId(Uuid::from_u128(silences)), at(now)).unwrap();
                    dispatcher.apply_silence(&SilenceFact::Created(made.clone()));
                    silence = Some(made);
                }
                Step::Unsilence => if let Some(made) = silence.take() {
                    now += 1;
                    dispatcher.apply_silence(&expire(&made, None, at(now)).unwrap());
                },
                Step::Restart => {
                    save(&mut dispatcher, &mut saved);
                    dispatcher = restarted(&saved, now);
                }
                Step::Pass(seconds) => for _ in 0..seconds {
                    now += 1;
                    let due = dispatcher.due(at(now), everything);
                    for notification in due.notifications {
                        let group = &notification.group;
                        if let Some(before) = last.insert(group.clone(), now) {
                            // A group whose alerts were all over begins anew, with its wait.
                            prop_assert!(now - before >= INTERVAL || notification.reason == crate::group::Reason::First);
                        }
                        let heard = known.entry(group.receiver.clone()).or_default();
                        let news = notification.firing.iter().filter(|alert| heard.insert(alert.id)).count();
                        prop_assert!(news > 0 || !notification.resolved.is_empty(), "{:?}", notification.reason);
                        for alert in &notification.resolved {
                            prop_assert!(heard.remove(&alert.id), "an end without a beginning");
                        }
                        if let Some(silence) = &silence {
                            let silenced = |alert: &Alert| silence.silences(alert, at(now));
                            prop_assert!(!notification.firing.iter().chain(&notification.resolved).any(silenced));
                        }
                        dispatcher.ended(group, Ended::Delivered, at(now));
                    }
                },
                Step::Fire(_) | Step::Silence(_) => {}
            }
        }
        for alert in firing.values() {
            prop_assert!(known.get("mail").is_some_and(|heard| heard.contains(&alert.id)), "somebody was not told");
            let paged = known.get("pager").is_some_and(|heard| heard.contains(&alert.id));
            prop_assert_eq!(paged, alert.severity == Severity::Critical);
        }
        prop_assert_eq!(dispatcher.alerts(), firing.len(), "what is over is forgotten");
    }
}

#[test]
fn restart_repeats_only_what_was_on_its_way_under_the_same_id() {
    let (mut first, mut saved) = (dispatcher(), BTreeMap::new());
    let hot = of("hot", "a", Severity::Warning, 0);
    first.apply(&transition(&hot, TransitionKind::Fired, 0), at(0)).unwrap();
    save(&mut first, &mut saved);
    let on_its_way = first.due(at(WAIT), everything).notifications.remove(0);
    save(&mut first, &mut saved);
    let mut second = restarted(&saved, 40);
    assert_eq!(second.next_due(everything), Some(at(40 + WAIT)));
    let again = second.due(at(40 + WAIT), everything).notifications.remove(0);
    assert_eq!(again.id, on_its_way.id);
    second.ended(&again.group, Ended::Delivered, at(80));
    save(&mut second, &mut saved);
    let mut third = restarted(&saved, 90);
    assert!(third.due(at(90 + INTERVAL), everything).notifications.is_empty());
    let repeat = Duration::from_secs(4 * 3600);
    assert_eq!(third.due(at(80).saturating_add(repeat), everything).notifications.len(), 1);
}
