use super::*;
use crate::fixture::transition;

#[test]
fn fired_and_resolved_are_notified_by_default() {
    let wanted: Vec<_> = [
        TransitionKind::Pending,
        TransitionKind::Fired,
        TransitionKind::Resolved,
        TransitionKind::Dismissed,
        TransitionKind::Acknowledged,
    ]
    .into_iter()
    .filter(|kind| NotifyOn::default().wants(*kind))
    .collect();
    assert_eq!(wanted, [TransitionKind::Fired, TransitionKind::Resolved]);
    let quiet: NotifyOn = serde_json::from_str(r#"{"resolved":false,"acknowledged":true}"#).unwrap();
    assert!(quiet.wants(TransitionKind::Fired) && !quiet.wants(TransitionKind::Resolved));
    assert!(quiet.wants(TransitionKind::Acknowledged));
    assert!(serde_json::from_str::<NotifyOn>(r#"{"fierd":true}"#).is_err());
}

#[test]
fn the_payload_is_the_documented_one() {
    let url = "http://127.0.0.1:5000/alerts/1".to_owned();
    let payload = NotificationPayload::new(&transition(TransitionKind::Fired, 0, 5), Some(url));
    let golden = include_str!("../../tests/golden/webhook.json");
    assert_eq!(serde_json::to_string_pretty(&payload).unwrap(), golden.trim_end());
    assert_eq!(serde_json::from_str::<NotificationPayload>(golden).unwrap(), payload);
    assert_eq!(serde_json::from_slice::<NotificationPayload>(&payload.to_json()).unwrap(), payload);
    let record = crate::record::to_event(&transition(TransitionKind::Fired, 0, 5), None);
    assert_eq!(payload.id.to_string(), record.id);
    let ended = NotificationPayload::new(&transition(TransitionKind::Resolved, 0, 9), None);
    assert_eq!((ended.level, ended.alert.severity), (Severity::Info, Severity::Critical));
}

#[test]
fn outcomes_are_classified() {
    let answered = |status| classify(&Attempt::Answered { status, retry_after: None });
    let again = Verdict::Retry { not_before: None };
    for (status, verdict) in [
        (200, Verdict::Delivered),
        (204, Verdict::Delivered),
        (299, Verdict::Delivered),
        (301, Verdict::GiveUp),
        (400, Verdict::GiveUp),
        (401, Verdict::GiveUp),
        (404, Verdict::GiveUp),
        (408, again),
        (410, Verdict::GiveUp),
        (429, again),
        (500, again),
        (503, again),
        (599, again),
        (600, Verdict::GiveUp),
        (101, Verdict::GiveUp),
    ] {
        assert_eq!(answered(status), verdict, "{status}");
    }
    let asked = Attempt::Answered { status: 429, retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(classify(&asked), Verdict::Retry { not_before: Some(Duration::from_secs(7)) });
    for (code, verdict) in [
        (250, Verdict::Delivered),
        (421, again),
        (451, again),
        (550, Verdict::GiveUp),
        (354, Verdict::GiveUp),
    ] {
        assert_eq!(classify(&Attempt::Replied { code, text: String::new() }), verdict, "{code}");
    }
    let open = Attempt::Rejected { retry_after: Some(Duration::from_secs(9)) };
    assert_eq!(classify(&open), Verdict::Retry { not_before: Some(Duration::from_secs(9)) });
    assert_eq!(classify(&Attempt::TimedOut), again);
    assert_eq!(classify(&Attempt::Unreachable("refused".into())), again);
    assert_eq!(classify(&Attempt::Impossible("no such scheme".into())), Verdict::GiveUp);
}

#[test]
fn attempts_are_recorded_in_words() {
    let fired = transition(TransitionKind::Fired, 0, 5);
    let record = |attempt: &Attempt, again| {
        DeliveryRecord::new((&fired).into(), &[], ("webhook", "http://a/b"), 3, attempt, again)
    };
    let delivered = record(&Attempt::Answered { status: 200, retry_after: None }, false);
    assert_eq!(
        (delivered.outcome, delivered.status, delivered.error),
        (DeliveryOutcome::Delivered, Some(200), None)
    );
    let failed = record(&Attempt::Answered { status: 503, retry_after: None }, true);
    assert_eq!(
        serde_json::to_value(&failed).unwrap(),
        serde_json::json!({
            "alert_id": fired.alert.id, "transition": "fired", "channel": "webhook", "target": "http://a/b",
            "attempt": 3, "outcome": "failed", "status": 503, "error": "the receiver answered 503",
        })
    );
    let refused = record(&Attempt::Replied { code: 550, text: "no such user".into() }, true);
    assert_eq!(
        (refused.outcome, refused.error.as_deref()),
        (DeliveryOutcome::GaveUp, Some("the mail server replied 550 no such user"))
    );
    let silenced =
        Suppression { silenced_by: vec![crate::SilenceId(uuid::Uuid::nil())], ..Default::default() };
    let held = DeliveryRecord::held_back((&fired).into(), "ops", &silenced);
    assert_eq!((held.outcome, held.attempt), (DeliveryOutcome::HeldBack, 0));
    assert!(held.error.unwrap().starts_with("silenced by 0000"));
    let gone = record(&Attempt::Answered { status: 404, retry_after: None }, true);
    assert_eq!(gone.outcome, DeliveryOutcome::GaveUp, "whatever the schedule says");
    let late = record(&Attempt::TimedOut, false);
    assert_eq!((late.outcome, late.error.as_deref()), (DeliveryOutcome::GaveUp, Some("no answer in time")));
    let long = record(&Attempt::Unreachable("é".repeat(1000)), true).error.unwrap();
    assert!(long.starts_with("no connection: é") && long.len() < MAX_ERROR_BYTES + 20);
}
