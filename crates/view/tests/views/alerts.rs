//! Queries on alerts.

use farol_event::{AlertStatus, EventType, Severity, Timestamp};
use farol_view::ViewName;
use farol_view::query::alerts::{AlertFilter, DeliveryOutcome};
use serde_json::json;

use crate::support::{AlertLife, Log, TestStore, at};

/// Three alerts of sensor `oven` and one of `fan`.
async fn some_alerts(test: &TestStore) -> (Log, Vec<AlertLife>) {
    let mut log = Log::new();
    let lives = vec![
        AlertLife::new("hot", "oven", Severity::Critical, 100),
        AlertLife::new("warm", "oven", Severity::Warning, 200),
        AlertLife::new("hot", "fan", Severity::Error, 300),
        AlertLife::new("hot", "oven", Severity::Critical, 400),
    ];
    log.transition(&lives[0].pending(100));
    let evidence = log.reading("oven", 110, 41.5);
    log.transition(&lives[0].fired(110, vec![evidence]));
    log.transition(&lives[0].acknowledged(120, "ana"));
    log.transition(&lives[0].resolved(150));
    log.transition(&lives[1].fired(200, Vec::new()));
    log.transition(&lives[2].fired(300, Vec::new()));
    log.transition(&lives[3].pending(400));
    test.apply_all(log.batches()).await;
    (log, lives)
}

async fn rules(test: &TestStore, filter: AlertFilter) -> Vec<(String, AlertStatus)> {
    let page = test.ask(move |q| q.alerts(&filter)).await;
    assert_eq!(page.total, page.alerts.len() as u64);
    page.alerts.into_iter().map(|a| (format!("{}/{}", a.rule, a.series), a.status)).collect()
}

#[tokio::test]
async fn alerts_are_listed_newest_beginning_first_and_filtered() {
    let test = TestStore::new();
    some_alerts(&test).await;
    use AlertStatus::{Firing, Pending, Resolved};
    let named = |rule: &str, status| (rule.to_owned(), status);
    let all = rules(&test, AlertFilter::default()).await;
    let expected = [
        named("hot/oven", Pending),
        named("hot/fan", Firing),
        named("warm/oven", Firing),
        named("hot/oven", Resolved),
    ];
    assert_eq!(all, expected);
    let firing = AlertFilter { statuses: vec![Firing, Resolved], ..Default::default() };
    assert_eq!(rules(&test, firing).await.len(), 3);
    let severe = AlertFilter { severities: vec![Severity::Warning, Severity::Error], ..Default::default() };
    assert_eq!(rules(&test, severe).await, expected[1..3]);
    let of_oven = AlertFilter { source: Some("oven".into()), rule: Some("hot".into()), ..Default::default() };
    assert_eq!(rules(&test, of_oven).await.len(), 2);
    let acknowledged = AlertFilter { acknowledged: Some(true), ..Default::default() };
    assert_eq!(rules(&test, acknowledged).await, expected[3..]);
    let ranged = AlertFilter { from: Some(at(200)), to: Some(at(300)), ..Default::default() };
    assert_eq!(rules(&test, ranged).await, expected[1..3]);

    let counts = test.ask(|q| q.alert_counts()).await;
    assert_eq!((counts.firing.error, counts.firing.warning, counts.firing.critical), (1, 1, 0));
    assert_eq!((counts.pending, counts.unacknowledged), (1, 2));
    assert_eq!(test.ask(|q| q.alerts_fired_since(at(110))).await, 2);
}

#[tokio::test]
async fn alerts_as_of_an_instant_are_as_they_stood_then() {
    let test = TestStore::new();
    some_alerts(&test).await;
    let as_of = |seconds: i64| AlertFilter { at: Some(at(seconds)), ..Default::default() };
    let status = async |seconds: i64| {
        let filter = as_of(seconds);
        let page = test.ask(move |q| q.alerts(&filter)).await;
        assert_eq!(page.total, page.alerts.len() as u64);
        page.alerts
    };
    assert!(status(99).await.is_empty());
    let then = status(105).await;
    assert_eq!((then.len(), then[0].status, then[0].fired_at), (1, AlertStatus::Pending, None));
    assert!(then[0].summary.ends_with("(Pending)"), "{}", then[0].summary);
    let then = status(115).await;
    assert_eq!((then[0].status, then[0].fired_at), (AlertStatus::Firing, Some(at(110))));
    assert!(then[0].acknowledgement.is_none());
    assert_eq!(status(125).await[0].acknowledgement.as_ref().unwrap().by, "ana");
    let then = status(150).await;
    assert_eq!((then[0].status, then[0].ended_at), (AlertStatus::Resolved, Some(at(150))));
    // The filters apply to what was, not to what is.
    let firing = AlertFilter { statuses: vec![AlertStatus::Firing], ..as_of(130) };
    assert_eq!(rules(&test, firing).await, [("hot/oven".to_owned(), AlertStatus::Firing)]);
    let unacknowledged = AlertFilter { acknowledged: Some(false), ..as_of(115) };
    assert_eq!(rules(&test, unacknowledged).await.len(), 1);
    assert_eq!(status(1000).await, test.ask(|q| q.alerts(&AlertFilter::default())).await.alerts);
}

#[tokio::test]
async fn one_alert_tells_its_whole_story() {
    let test = TestStore::new();
    let (mut log, lives) = some_alerts(&test).await;
    let id = lives[0].alert.id;
    for (attempt, outcome) in [(1, "failed"), (2, "delivered")] {
        let data = json!({"alert_id": id, "transition": "fired", "channel": "webhook", "target": "http://pager",
            "attempt": attempt, "outcome": outcome, "status": 503});
        log.system_event(EventType::NOTIFICATION_ATTEMPTED, "oven", 111 + attempt, &data);
    }
    test.apply_all(log.batches()).await;
    let detail = test.ask(move |q| q.alert_detail(id)).await.unwrap();
    assert_eq!(detail.alert.status, AlertStatus::Resolved);
    assert_eq!(detail.alert.rule_definition, lives[0].alert.rule_definition);
    let kinds: Vec<Timestamp> = detail.transitions.iter().map(|t| t.at).collect();
    assert_eq!(kinds, [at(100), at(110), at(120), at(150)]);
    assert_eq!(detail.transitions[2].acknowledgement.as_ref().unwrap().comment.as_deref(), Some("on it"));
    assert_eq!(detail.evidence_readings.len(), 1);
    let reading = detail.evidence_readings[0].reading.as_ref().unwrap();
    assert_eq!((reading.value, &reading.position), (41.5, &detail.evidence_readings[0].position));
    let outcomes: Vec<_> = detail.deliveries.iter().map(|d| (d.attempt, d.outcome, d.status)).collect();
    assert_eq!(
        outcomes,
        [(1, DeliveryOutcome::Failed, Some(503)), (2, DeliveryOutcome::Delivered, Some(503))]
    );
    let nobody = AlertLife::new("no", "no", Severity::Info, 0).alert.id;
    assert!(test.ask(move |q| q.alert_detail(nobody)).await.is_none());
}

#[tokio::test]
async fn repeated_transitions_change_nothing_and_illegal_ones_are_counted() {
    let test = TestStore::new();
    let mut log = Log::new();
    let life = AlertLife::new("hot", "oven", Severity::Critical, 0);
    log.transition(&life.fired(0, Vec::new()));
    log.transition(&life.fired(0, Vec::new()));
    log.transition(&life.resolved(10));
    log.transition(&life.pending(20));
    log.transition(&AlertLife::new("hot", "oven", Severity::Critical, 50).resolved(60));
    test.apply_all(log.batches()).await;
    let id = life.alert.id;
    let detail = test.ask(move |q| q.alert_detail(id)).await.unwrap();
    assert_eq!((detail.alert.status, detail.transitions.len()), (AlertStatus::Resolved, 2));
    assert_eq!(test.ask(|q| q.alerts(&AlertFilter::default())).await.total, 1);
    assert_eq!(test.store.stats()[&ViewName::Alerts].skipped["a transition that can't follow"], 2);
}

#[tokio::test]
async fn pages_give_every_alert_once() {
    let test = TestStore::new();
    let mut log = Log::new();
    for index in 0..25 {
        // Several begin at the same instant.
        let life = AlertLife::new(&format!("rule-{index}"), "oven", Severity::Info, index / 4);
        log.transition(&life.fired(index / 4, Vec::new()));
    }
    test.apply_all(log.batches()).await;
    let mut filter = AlertFilter { limit: Some(4), ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let asked = filter.clone();
        let page = test.ask(move |q| q.alerts(&asked)).await;
        assert_eq!(page.total, 25);
        seen.extend(page.alerts.into_iter().map(|a| (a.began_at, a.id.to_string())));
        let Some(cursor) = page.next_cursor else { break };
        filter.cursor = Some(cursor);
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted_by(|a, b| a > b));
}
