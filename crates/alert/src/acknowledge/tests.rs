use super::*;
use crate::fixture::{alert, at};
use crate::lifecycle::{Folded, fold};

#[test]
fn a_firing_alert_is_acknowledged() {
    let alert = alert(0);
    let transition = acknowledge(&alert, "  ana ", Some(" on my way\n"), at(60)).unwrap();
    assert_eq!((transition.kind, transition.at), (TransitionKind::Acknowledged, at(60)));
    let Ok(Folded::Changed(after)) = fold(Some(&alert), &transition) else { panic!("it folds") };
    let given = after.acknowledgement.clone().unwrap();
    assert_eq!((given.by.as_str(), given.comment.as_deref(), given.at), ("ana", Some("on my way"), at(60)));
    assert_eq!(*after, transition.alert);
    let refused = acknowledge(&after, "rui", None, at(61)).unwrap_err();
    assert_eq!(refused, AcknowledgeRefused::Already { id: alert.id, first: given });
    assert!(refused.to_string().contains("was acknowledged by ana at 2023-11-14T22:14:20.000000Z"));
}

#[test]
fn pending_alerts_can_be_acknowledged_and_ended_ones_can_not() {
    let with = |status| Alert { status, ..alert(0) };
    assert!(acknowledge(&with(AlertStatus::Pending), "ana", None, at(1)).is_ok());
    for status in [AlertStatus::Resolved, AlertStatus::Dismissed] {
        let refused = acknowledge(&with(status), "ana", None, at(1));
        assert_eq!(refused, Err(AcknowledgeRefused::Ended { id: alert(0).id, status }));
    }
}

#[test]
fn names_and_comments_are_bounded() {
    let by = |by: &str| acknowledge(&alert(0), by, None, at(1));
    for refused in ["", "  ", "a\u{7}b", "a\nb", &"x".repeat(129)] {
        assert_eq!(by(refused), Err(AcknowledgeRefused::By), "{refused:?}");
    }
    assert!(by(&"x".repeat(128)).is_ok());
    let comment = |comment: &str| acknowledge(&alert(0), "ana", Some(comment), at(1));
    for refused in ["a\u{0}", &"x".repeat(4097)] {
        assert_eq!(comment(refused), Err(AcknowledgeRefused::Comment));
    }
    assert!(comment(&"x".repeat(4096)).is_ok());
    assert_eq!(comment(" \t\n").unwrap().acknowledgement.unwrap().comment, None);
}
