use super::*;
use crate::fixture::{alert, at};

fn asked(matchers: &str, starts: i64, ends: i64) -> NewSilence<'static> {
    NewSilence {
        matchers: matchers.parse().unwrap(),
        starts_at: at(starts),
        ends_at: at(ends),
        created_by: " ana ",
        comment: "belt is being changed",
    }
}

fn id(number: u128) -> SilenceId {
    SilenceId(Uuid::from_u128(number))
}

#[test]
fn silence_holds_from_its_start_to_its_end() {
    let silence = create(asked("unit=\"°C\",severity=critical", 100, 200), id(1), at(0)).unwrap();
    assert_eq!(silence.created_by, "ana");
    for (now, state) in [
        (99, SilenceState::Pending),
        (100, SilenceState::Active),
        (199, SilenceState::Active),
        (200, SilenceState::Expired),
    ] {
        assert_eq!(silence.state(at(now)), state, "{now}");
        assert_eq!(silence.silences(&alert(0), at(now)), state == SilenceState::Active);
    }
    let other = create(asked("unit=bar", 100, 200), id(2), at(0)).unwrap();
    assert!(!other.silences(&alert(0), at(150)));
    let late = create(asked("unit=bar", 100, 200), id(2), at(150)).unwrap();
    assert_eq!(late.starts_at, at(150), "the past can't be silenced");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |asked: NewSilence<'_>| create(asked, id(1), at(0)).unwrap_err();
    for everything in ["{}", "a=~\".*\"", "a!=b", "a=\"\",b!~c"] {
        assert_eq!(refused(asked(everything, 0, 10)), SilenceRefused::MatchesEverything, "{everything}");
    }
    assert!(matches!(refused(asked("a=b", 10, 10)), SilenceRefused::Ended { .. }));
    assert!(matches!(refused(asked("a=b", -20, -10)), SilenceRefused::Ended { .. }));
    assert_eq!(refused(asked("a=b", 0, 367 * 86_400)), SilenceRefused::TooLong);
    assert_eq!(refused(NewSilence { created_by: " ", ..asked("a=b", 0, 10) }), SilenceRefused::By);
    assert_eq!(refused(NewSilence { created_by: "a\nb", ..asked("a=b", 0, 10) }), SilenceRefused::By);
    assert_eq!(refused(NewSilence { comment: "", ..asked("a=b", 0, 10) }), SilenceRefused::Comment);
    assert_eq!(refused(NewSilence { comment: "\0", ..asked("a=b", 0, 10) }), SilenceRefused::Comment);
    let long = "x".repeat(MAX_COMMENT_BYTES + 1);
    let refused = create(NewSilence { comment: &long, ..asked("a=b", 0, 10) }, id(1), at(0));
    assert_eq!(refused, Err(SilenceRefused::Comment));
}

#[test]
fn facts_travel_as_events_and_fold_to_the_same_book_however_often_they_are_read() {
    let created = create(asked("unit=\"°C\"", 0, 1000), id(1), at(0)).unwrap();
    let expired = expire(&created, Some("bo"), at(50)).unwrap();
    let facts = [SilenceFact::Created(created), expired];
    let mut book = SilenceBook::default();
    for fact in facts.iter().chain(&facts) {
        let event = fact.to_event(Uuid::from_u128(7), at(0));
        assert_eq!((event.source.as_str(), event.subject.as_deref()), (SOURCE, Some(&*id(1).to_string())));
        let read = Event::parse_kept(&event.to_json()).unwrap();
        let read = SilenceFact::of_event(&read).unwrap().unwrap();
        assert_eq!(&read, fact);
        book.apply(&read);
    }
    let kept = book.get(id(1)).unwrap();
    assert_eq!((kept.ends_at, kept.expired_by.as_deref()), (at(50), Some("bo")));
    assert_eq!(book.silencing(&alert(0), at(49)), [id(1)]);
    assert!(book.silencing(&alert(0), at(50)).is_empty());
    assert!(matches!(expire(kept, None, at(60)), Err(SilenceRefused::Over { .. })));
    assert!(book.forget_ended(at(50)).is_empty());
    assert_eq!(book.forget_ended(at(51)), [id(1)]);
}

#[test]
fn pending_silence_that_is_expired_never_holds() {
    let created = create(asked("unit=\"°C\"", 100, 200), id(1), at(0)).unwrap();
    let fact = expire(&created, None, at(10)).unwrap();
    let after = folded(Some(&created), &fact).unwrap();
    assert_eq!((after.starts_at, after.ends_at), (at(10), at(10)));
    assert!((0..300).all(|second| !after.silences(&alert(0), at(second))));
}

#[test]
fn other_events_are_none_of_a_silence_and_broken_ones_say_why() {
    let other = Event::new(Uuid::nil(), at(0), EventType::RULES_CHANGED, "x", &serde_json::json!({}));
    assert_eq!(SilenceFact::of_event(&other), Ok(None));
    let data = serde_json::json!({ "id": "no" });
    let broken = Event::new(Uuid::nil(), at(0), EventType::SILENCE_EXPIRED, SOURCE, &data);
    assert!(SilenceFact::of_event(&broken).is_err());
    let newer = Event { dataversion: 2, ..broken };
    assert!(SilenceFact::of_event(&newer).unwrap_err().contains("newer"));
}

#[test]
fn maintenance_of_a_service_is_a_silence_of_its_alerts() {
    let told = |event_type: EventType, service: &str, seconds: i64, data: serde_json::Value| {
        Event::new(Uuid::nil(), at(seconds), event_type, service, &data)
    };
    let mut book = SilenceBook::default();
    let mut apply = |event: &Event| {
        let fact = SilenceFact::of_event(event).unwrap();
        fact.is_some_and(|fact| book.apply(&fact).is_some()).then(|| book.clone())
    };
    let begun = told(
        EventType::MAINTENANCE_STARTED,
        "shop \"1\"",
        10,
        serde_json::json!({"by": "ana", "reason": "new disk", "until": at(100)}),
    );
    let known = apply(&begun).unwrap();
    let silence = known.get(SilenceId::of_maintenance("shop \"1\"")).unwrap().clone();
    assert_eq!((silence.created_by.as_str(), silence.comment.as_str()), ("ana", "maintenance: new disk"));
    assert_eq!((silence.starts_at, silence.ends_at), (at(10), at(100)));
    let mut its = alert(0);
    its.labels.insert("service".into(), "shop \"1\"".into());
    assert!(silence.silences(&its, at(99)) && !silence.silences(&its, at(100)));
    assert!(!silence.silences(&alert(0), at(50)), "an alert of something else");
    assert_eq!(apply(&begun).map(|_| ()), None, "read again it changes nothing");

    let ended = told(EventType::MAINTENANCE_ENDED, "shop \"1\"", 50, serde_json::json!({}));
    assert!(apply(&ended).unwrap().silencing(&its, at(51)).is_empty());
    let endless = told(EventType::MAINTENANCE_STARTED, "shop \"1\"", 60, serde_json::json!({}));
    let known = apply(&endless).unwrap();
    assert_eq!(known.silencing(&its, at(1_000_000)).len(), 1);

    let nonsense = told(EventType::MAINTENANCE_STARTED, "shop", 70, serde_json::json!({"until": "soon"}));
    assert_eq!(SilenceFact::of_event(&nonsense), Ok(None));
    let forged = told(EventType::SILENCE_CREATED, "shop", 70, serde_json::json!(silence));
    assert_eq!(SilenceFact::of_event(&forged), Ok(None), "silences have a source of their own");
}
