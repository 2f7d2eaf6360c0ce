use TransitionKind::{Acknowledged, Fired, Pending, Resolved};
use farol_event::TransitionKind;

use super::*;
use crate::fixture::{at, transition};

#[test]
fn one_alert_after_another_is_kept() {
    let mut book = AlertBook::new();
    for t in [
        transition(Pending, 0, 0),
        transition(Fired, 0, 10),
        transition(Resolved, 0, 20),
        transition(Fired, 30, 30),
    ] {
        book.apply(&t).unwrap();
    }
    assert_eq!(book.len(), 2);
    assert_eq!(book.active("hot", "temp-1").unwrap().began_at, at(30));
    assert_eq!(book.active("hot", "temp-2"), None);
    assert_eq!(book.all_active().count(), 1);
}

#[test]
fn a_second_active_alert_of_a_rule_and_series_is_refused() {
    let mut book = AlertBook::new();
    let first = book.apply(&transition(Fired, 0, 0)).unwrap().id;
    let second = transition(Fired, 5, 5);
    let refused = book.apply(&second).unwrap_err();
    assert_eq!(
        refused,
        BookError::SecondActive {
            new: second.alert.id,
            active: first,
            rule: "hot".into(),
            series: "temp-1".into()
        }
    );
    assert_eq!((book.len(), book.get(second.alert.id)), (1, None));
    // Of another series it is welcome.
    let mut elsewhere = second;
    elsewhere.alert.series = "temp-2".into();
    assert!(book.apply(&elsewhere).is_ok());
}

#[test]
fn refused_transitions_leave_the_book_as_it_was() {
    let mut book = AlertBook::new();
    book.apply(&transition(Fired, 0, 0)).unwrap();
    let before: Vec<_> = book.iter().cloned().collect();
    assert!(matches!(book.apply(&transition(Pending, 0, 3)), Err(BookError::Illegal(_))));
    assert!(matches!(book.apply(&transition(Resolved, 7, 8)), Err(BookError::Illegal(_))));
    assert!(book.iter().eq(before.iter()));
    let acknowledged = transition(Acknowledged, 0, 5);
    assert!(book.apply(&acknowledged).unwrap().acknowledgement.is_some());
    assert!(book.apply(&acknowledged).is_ok(), "a repeat is no refusal");
}

#[test]
fn ended_alerts_can_be_forgotten() {
    let mut book = AlertBook::new();
    for t in [transition(Fired, 0, 0), transition(Resolved, 0, 20), transition(Fired, 30, 30)] {
        book.apply(&t).unwrap();
    }
    book.forget_ended(at(20));
    assert_eq!(book.len(), 2);
    book.forget_ended(at(1000));
    assert_eq!(book.iter().map(|a| a.began_at).collect::<Vec<_>>(), [at(30)]);
    assert!(!book.is_empty());
}
