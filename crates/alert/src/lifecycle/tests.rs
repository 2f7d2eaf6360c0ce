use TransitionKind::{Acknowledged, Dismissed, Fired, Pending, Resolved};
use proptest::prelude::*;

use super::*;
use crate::fixture::{at, transition};

/// Folds transitions of the alert that began at second 0, and stops at the first refusal.
fn folded(steps: &[(TransitionKind, i64)]) -> Result<Alert, Illegal> {
    let mut alert: Option<Alert> = None;
    for (kind, seconds) in steps {
        if let Folded::Changed(next) = fold(alert.as_ref(), &transition(*kind, 0, *seconds))? {
            alert = Some(*next);
        }
    }
    Ok(alert.expect("the first transition begins the alert"))
}

#[test]
fn a_whole_life_is_folded() {
    let alert = folded(&[(Pending, 0), (Fired, 10), (Acknowledged, 15), (Resolved, 20)]).unwrap();
    assert_eq!(alert.status, AlertStatus::Resolved);
    assert_eq!((alert.began_at, alert.fired_at, alert.ended_at), (at(0), Some(at(10)), Some(at(20))));
    assert_eq!(alert.acknowledgement.unwrap().by, "ana", "although the detector knows nothing of it");
    let dismissed = folded(&[(Pending, 0), (Dismissed, 5)]).unwrap();
    assert_eq!(
        (dismissed.status, dismissed.fired_at, dismissed.ended_at),
        (AlertStatus::Dismissed, None, Some(at(5)))
    );
}

#[test]
fn repeated_transitions_change_nothing() {
    let life = [(Pending, 0), (Fired, 10), (Acknowledged, 15), (Resolved, 20)];
    for so_far in 1..=life.len() {
        let alert = folded(&life[..so_far]).unwrap();
        for (kind, seconds) in &life[..so_far] {
            let again = fold(Some(&alert), &transition(*kind, 0, *seconds));
            assert_eq!(again, Ok(Folded::Unchanged), "{kind:?} after {so_far} steps");
        }
    }
}

#[test]
fn the_first_acknowledgement_counts() {
    let mut second = transition(Acknowledged, 0, 16);
    second.acknowledgement = Some(Acknowledgement { by: "rui".into(), at: at(16), comment: None });
    let alert = folded(&[(Fired, 0), (Acknowledged, 15)]).unwrap();
    assert_eq!(fold(Some(&alert), &second), Ok(Folded::Unchanged));
    let pending = folded(&[(Pending, 0), (Acknowledged, 5)]).unwrap();
    assert_eq!((pending.status, pending.acknowledgement.unwrap().at), (AlertStatus::Pending, at(5)));
}

#[test]
fn what_can_not_follow_is_refused() {
    for (steps, kind, seconds) in [
        (&[(Pending, 0)][..], Resolved, 5),
        (&[(Fired, 0)], Dismissed, 5),
        (&[(Fired, 0)], Pending, 5),
        (&[(Fired, 0)], Fired, 5),
        (&[(Fired, 0), (Resolved, 5)], Fired, 6),
        (&[(Fired, 0), (Resolved, 5)], Resolved, 6),
        (&[(Fired, 0), (Resolved, 5)], Acknowledged, 6),
        (&[(Pending, 0), (Dismissed, 5)], Fired, 6),
        (&[(Pending, 0), (Dismissed, 5)], Acknowledged, 6),
    ] {
        let alert = folded(steps).unwrap();
        let refused = fold(Some(&alert), &transition(kind, 0, seconds));
        assert_eq!(
            refused,
            Err(Illegal::Transition { id: alert.id, from: alert.status, kind }),
            "{steps:?} {kind:?}"
        );
    }
    for kind in [Resolved, Dismissed, Acknowledged] {
        let first = transition(kind, 0, 5);
        assert_eq!(fold(None, &first), Err(Illegal::Beginning { id: first.alert.id, kind }));
    }
    let (alert, other) = (folded(&[(Fired, 0)]).unwrap(), transition(Resolved, 1, 5));
    assert_eq!(fold(Some(&alert), &other), Err(Illegal::OtherAlert { id: alert.id, given: other.alert.id }));
    let nobody = AlertTransition { acknowledgement: None, ..transition(Acknowledged, 0, 5) };
    assert_eq!(fold(Some(&alert), &nobody), Err(Illegal::NoAcknowledgement { id: alert.id }));
}

#[test]
fn an_alert_is_recomputed_as_it_stood() {
    let life =
        [(Pending, 0), (Fired, 10), (Acknowledged, 15), (Resolved, 20)].map(|(k, s)| transition(k, 0, s));
    let status =
        |seconds| as_of(&life, at(seconds)).unwrap().map(|a| (a.status, a.acknowledgement.is_some()));
    assert_eq!(status(-1), None);
    assert_eq!(status(0), Some((AlertStatus::Pending, false)));
    assert_eq!(status(9), Some((AlertStatus::Pending, false)));
    assert_eq!(status(10), Some((AlertStatus::Firing, false)));
    assert_eq!(status(15), Some((AlertStatus::Firing, true)));
    assert_eq!(status(20), Some((AlertStatus::Resolved, true)));
    let before_the_end = as_of(&life, at(19)).unwrap().unwrap();
    assert_eq!(before_the_end.ended_at, None);
}

#[test]
fn an_acknowledgement_in_another_time_does_not_stand_in_the_way() {
    // A replay of old readings, acknowledged today: the alert began, was acknowledged and ended in that order of the topic.
    let life = [(Fired, 0), (Acknowledged, 1_000_000), (Resolved, 20)].map(|(k, s)| transition(k, 0, s));
    assert_eq!(as_of(&life, at(20)).unwrap().unwrap().acknowledgement, None);
    assert!(as_of(&life, at(1_000_000)).unwrap().unwrap().acknowledgement.is_some());
}

proptest! {
    /// Whatever is folded: an alert never leaves its end, its instants agree with its status, and the whole is the same if every
    /// record is read twice.
    #[test]
    fn alerts_stay_whole_whatever_is_folded(
        steps in prop::collection::vec((prop::sample::select(vec![Pending, Fired, Resolved, Dismissed, Acknowledged]), 0i64..6), 0..20),
    ) {
        let (mut once, mut twice): (Option<Alert>, Option<Alert>) = (None, None);
        for (kind, seconds) in steps {
            let transition = transition(kind, 0, seconds);
            let before = once.clone();
            if let Ok(Folded::Changed(next)) = fold(once.as_ref(), &transition) {
                once = Some(*next);
            }
            for _ in 0..2 {
                if let Ok(Folded::Changed(next)) = fold(twice.as_ref(), &transition) {
                    twice = Some(*next);
                }
            }
            prop_assert_eq!(&once, &twice);
            if let Some(alert) = &once {
                let ended = matches!(alert.status, AlertStatus::Resolved | AlertStatus::Dismissed);
                let fired = matches!(alert.status, AlertStatus::Firing | AlertStatus::Resolved);
                prop_assert_eq!((alert.ended_at.is_some(), alert.fired_at.is_some()), (ended, fired));
                if before.as_ref().is_some_and(|b| b.ended_at.is_some()) {
                    prop_assert_eq!(&once, &before);
                }
            }
        }
    }
}
