//! Notifications to real webhooks on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod plant;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farol_alert::silence::{self, NewSilence};
use farol_alert::{
    DeliveryOutcome, GroupBy, GroupTiming, NotificationPayload, Route, Routes, SilenceFact, SilenceId,
};
use farol_pipeline::{NotifierSettings, WebhookSettings};
use farol_resilience::retry::{Backoff, Jitter, Schedule};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plant::{Plant, eventually, now};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);

/// A webhook that answers with the statuses given, the last one for ever, and passes on what it was sent.
async fn webhook(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<NotificationPayload>) {
    let (url, mut raw) = raw_webhook(statuses).await;
    let (received, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some((_, json)) = raw.recv().await {
            received.send(serde_json::from_value(json).unwrap()).unwrap();
        }
    });
    (url, receiver)
}

/// What a webhook was posted: the idempotency key and the body.
type Posted = (String, serde_json::Value);

/// The same for any body.
async fn raw_webhook(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Posted>) {
    answering(move |call, _| statuses[call.min(statuses.len() - 1)]).await
}

/// The same, answering as the number of the call and its body tell.
async fn answering(
    status: impl Fn(usize, &serde_json::Value) -> u16 + Send + Sync + 'static,
) -> (String, mpsc::UnboundedReceiver<Posted>) {
    let status = Arc::new(status);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=secret", listener.local_addr().unwrap());
    let (received, receiver) = mpsc::unbounded_channel();
    let calls = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (received, calls, status) = (received.clone(), Arc::clone(&calls), Arc::clone(&status));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (received, calls, status) = (received.clone(), Arc::clone(&calls), Arc::clone(&status));
                async move {
                    let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    let status = status(calls.fetch_add(1, Ordering::Relaxed), &body);
                    received.send((key, body)).unwrap();
                    let answer = Response::builder().status(status).body(Full::new(Bytes::new()));
                    Ok::<_, std::convert::Infallible>(answer.unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (url, receiver)
}

fn settings(name: &str, url: &str, max_attempts: u32) -> WebhookSettings {
    WebhookSettings {
        name: name.into(),
        url: url.into(),
        headers: vec![("authorization".into(), "Bearer s3cret".into())],
        timeout: Duration::from_millis(300),
        retry: Schedule {
            backoff: Backoff {
                initial: Duration::from_millis(10),
                max: Duration::from_millis(50),
                ..Backoff::default()
            },
            max_tries: max_attempts,
            max_elapsed: Some(Duration::from_secs(10)),
            ..Schedule::default()
        },
        send_resolved: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_is_tried_again_until_it_takes_the_notification_and_each_attempt_is_recorded() {
    let (url, mut received) = webhook(&[503, 500, 204]).await;
    let notifier =
        NotifierSettings { webhooks: vec![settings("ops", &url, 5)], ..NotifierSettings::default() };
    let plant = Plant::with_notifier(notifier).await;
    plant.send("k-1", "kiln", &[50.0]).await;
    let (first, second, third) =
        (received.recv().await.unwrap(), received.recv().await.unwrap(), received.recv().await.unwrap());
    assert_eq!((first.id, second.id), (second.id, third.id));
    let deliveries = eventually(LIMIT, async || {
        let deliveries = plant.deliveries_in_view("k-1").await;
        (deliveries.len() == 3).then_some(deliveries)
    })
    .await;
    let outcomes: Vec<_> = deliveries.iter().map(|d| (d.attempt, d.outcome, d.status)).collect();
    assert_eq!(
        outcomes,
        [
            (1, DeliveryOutcome::Failed, Some(503)),
            (2, DeliveryOutcome::Failed, Some(500)),
            (3, DeliveryOutcome::Delivered, Some(204))
        ]
    );
    assert!(deliveries.iter().all(|d| !d.target.contains("secret")), "{deliveries:?}");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_webhook_delays_only_itself() {
    // Accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}/", silent.local_addr().unwrap());
    let (url, mut received) = webhook(&[200]).await;
    let webhooks = vec![settings("dead", &dead, 3), settings("ops", &url, 3)];
    let plant =
        Plant::with_notifier(NotifierSettings { log: false, webhooks, ..NotifierSettings::default() }).await;
    for cycle in 0..5 {
        plant.send(&format!("k-{cycle}"), "kiln", &[50.0]).await;
        let told = tokio::time::timeout(LIMIT, received.recv()).await.unwrap().unwrap();
        assert_eq!(told.alert.series, format!("k-{cycle}"));
    }
    // After five failures its breaker keeps everybody from trying, so that the last try may have been the second.
    eventually(LIMIT, async || {
        let deliveries = plant.deliveries_in_view("k-0").await;
        let mut dead = deliveries.into_iter().filter(|d| d.channel == "dead");
        dead.any(|delivery| delivery.outcome == DeliveryOutcome::GaveUp).then_some(())
    })
    .await;
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alert_that_a_webhook_does_not_take_holds_up_no_other() {
    let (url, mut received) =
        answering(|_, body| if body["alert"]["series"] == "poison" { 500 } else { 200 }).await;
    // Seldom enough for the breaker to stay closed.
    let pause = Duration::from_secs(2);
    let backoff = Backoff { initial: pause, max: pause, jitter: Jitter::None, ..Backoff::default() };
    let retry = Schedule { backoff, max_tries: 1000, ..settings("ops", &url, 1).retry };
    let settings = WebhookSettings { retry, ..settings("ops", &url, 1) };
    let notifier = NotifierSettings { log: false, webhooks: vec![settings], ..NotifierSettings::default() };
    let plant = Plant::with_notifier(notifier).await;
    plant.send("poison", "kiln", &[50.0]).await;
    let mut posts_of = async |series: &str| {
        let posted = async {
            loop {
                let (_, body) = received.recv().await.unwrap();
                if body["alert"]["series"] == series {
                    return body;
                }
            }
        };
        tokio::time::timeout(LIMIT, posted).await.unwrap()
    };
    posts_of("poison").await;
    for cycle in 0..3 {
        let series = format!("k-{cycle}");
        plant.send(&series, "kiln", &[50.0]).await;
        posts_of(&series).await;
    }
    posts_of("poison").await;
    plant.stop().await;
}

/// Everything to one webhook, in groups by rule that are due soon.
fn routed(url: &str) -> NotifierSettings {
    let timing = GroupTiming {
        wait: Duration::from_millis(300),
        interval: Duration::from_millis(500),
        repeat: Duration::from_secs(3600),
    };
    let route = Route {
        matchers: "severity=~\"warning|critical\"".parse().unwrap(),
        receivers: vec!["ops".into()],
        goes_on: false,
        group_by: GroupBy::default(),
        timing,
    };
    NotifierSettings {
        log: false,
        webhooks: vec![settings("ops", url, 3)],
        routes: Routes(vec![route]),
        ..NotifierSettings::default()
    }
}

fn silence(matchers: &str) -> SilenceFact {
    let asked = NewSilence {
        matchers: matchers.parse().unwrap(),
        starts_at: now(),
        ends_at: now().saturating_add(Duration::from_secs(3600)),
        created_by: "ana",
        comment: "being repaired",
    };
    SilenceFact::Created(silence::create(asked, SilenceId(uuid::Uuid::now_v7()), now()).unwrap())
}

fn series(posted: &serde_json::Value) -> Vec<String> {
    let alerts = posted["alerts"].as_array().unwrap();
    let series = alerts.iter().map(|alert| alert["labels"]["sensor_id"].as_str().unwrap().to_owned());
    let mut series: Vec<String> = series.collect();
    series.sort();
    series
}

async fn next(received: &mut mpsc::UnboundedReceiver<Posted>) -> Posted {
    tokio::time::timeout(LIMIT, received.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_a_route_are_told_in_one_notification_and_their_end_in_another() {
    let (url, mut received) = raw_webhook(&[503, 200]).await;
    let plant = Plant::with_notifier(routed(&url)).await;
    for sensor in ["k-1", "k-2", "k-3"] {
        plant.send(sensor, "kiln", &[50.0]).await;
    }
    let (first_key, first) = next(&mut received).await;
    let (again_key, again) = next(&mut received).await;
    assert_eq!((&first_key, &first), (&again_key, &again), "the 503 is tried again");
    assert_eq!((first["version"].as_str(), first["status"].as_str()), (Some("4"), Some("firing")));
    let mut told = series(&first);
    while told.len() < 3 {
        // Readings that came after the first look are in the next notification, with those before them.
        told = series(&next(&mut received).await.1);
    }
    assert_eq!(told.len(), 3);
    for sensor in ["k-1", "k-2", "k-3"] {
        plant.send(sensor, "kiln", &[1.0]).await;
    }
    let mut resolved = Vec::new();
    while resolved.len() < 3 {
        let (_, posted) = next(&mut received).await;
        let alerts = posted["alerts"].as_array().unwrap().clone();
        resolved.extend(alerts.into_iter().filter(|alert| alert["status"] == "resolved"));
    }
    let deliveries = eventually(LIMIT, async || {
        let deliveries = plant.deliveries_in_view("k-2").await;
        deliveries.iter().any(|d| d.transition == farol_event::TransitionKind::Resolved).then_some(deliveries)
    })
    .await;
    assert!(deliveries.iter().all(|d| d.channel == "ops"), "{deliveries:?}");
    let policies = plant.outgoing().snapshots();
    let names: Vec<_> = policies.iter().map(|policy| (policy.kind.as_str(), policy.name.as_ref())).collect();
    assert_eq!(
        names,
        [
            ("circuit_breaker", "notify-ops"),
            ("retry", "bus"),
            ("retry", "notify-ops:retry"),
            ("bulkhead", "notify-ops:bulkhead"),
            ("timeout", "notify-ops:timeout")
        ]
    );
    assert!(policies[2].count("successful_without_retry").unwrap() > 0, "{policies:?}");
    assert_eq!(policies[2].count("successful_with_retry"), Some(1), "the 503");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_not_told_again_after_a_restart_and_what_came_meanwhile_is() {
    let (url, mut received) = raw_webhook(&[200]).await;
    let plant = Plant::with_notifier(routed(&url)).await;
    plant.send("k-1", "kiln", &[50.0]).await;
    assert_eq!(series(&next(&mut received).await.1), ["k-1"]);
    eventually(LIMIT, async || (!plant.deliveries_in_view("k-1").await.is_empty()).then_some(())).await;
    let plant = plant.restart_with(routed(&url)).await;
    plant.send("k-2", "kiln", &[50.0]).await;
    let (_, posted) = next(&mut received).await;
    assert_eq!(series(&posted), ["k-1", "k-2"], "a change of the group that was there, not one of a new one");
    plant.send("k-1", "kiln", &[1.0]).await;
    let (_, posted) = next(&mut received).await;
    let ended =
        posted["alerts"].as_array().unwrap().iter().find(|alert| alert["status"] == "resolved").unwrap();
    assert_eq!(ended["labels"]["sensor_id"], "k-1");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silenced_alerts_reach_neither_routes_nor_webhooks_without_one_and_the_record_says_why() {
    let (routed_url, mut by_route) = raw_webhook(&[200]).await;
    let (direct_url, mut at_once) = webhook(&[200]).await;
    let mut notifier = routed(&routed_url);
    notifier.webhooks.push(settings("direct", &direct_url, 3));
    let plant = Plant::with_notifier(notifier).await;
    let fact = silence("sensor_id=k-1");
    plant.append_silence(&fact).await;
    eventually(LIMIT, async || plant.notifier_knows_the_silences().await.then_some(())).await;
    plant.send("k-1", "kiln", &[50.0]).await;
    plant.send("k-2", "kiln", &[50.0]).await;
    let told = tokio::time::timeout(LIMIT, at_once.recv()).await.unwrap().unwrap();
    assert_eq!(told.alert.series, "k-2");
    assert_eq!(series(&next(&mut by_route).await.1), ["k-2"]);
    let held = eventually(LIMIT, async || {
        let deliveries = plant.deliveries_in_view("k-1").await;
        (deliveries.len() == 2).then_some(deliveries)
    })
    .await;
    for delivery in &held {
        assert_eq!(delivery.outcome, DeliveryOutcome::HeldBack);
        assert_eq!(delivery.error, Some(format!("silenced by {}", fact.id())));
    }
    let SilenceFact::Created(made) = &fact else { panic!("it was just made") };
    let expired = silence::expire(made, Some("ana"), now()).unwrap();
    plant.append_silence(&expired).await;
    let (_, posted) = next(&mut by_route).await;
    assert_eq!(series(&posted), ["k-1", "k-2"], "it still fires, and now it is told");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_receiver_of_a_route_delays_no_other_and_its_breaker_opens() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}/", silent.local_addr().unwrap());
    let (url, mut received) = raw_webhook(&[200]).await;
    let mut notifier = routed(&url);
    notifier.webhooks.push(settings("dead", &dead, 50));
    notifier.routes.0[0].receivers.insert(0, "dead".into());
    notifier.routes.0[0].group_by = GroupBy::EveryAlert;
    let plant = Plant::with_notifier(notifier).await;
    for cycle in 0..20 {
        plant.send(&format!("k-{cycle}"), "kiln", &[50.0]).await;
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 20 {
        told.extend(series(&next(&mut received).await.1));
    }
    eventually(LIMIT, async || {
        let open = |policy: &farol_resilience::PolicySnapshot| policy.state == Some("open");
        plant.outgoing().snapshots().iter().any(open).then_some(())
    })
    .await;
    plant.stop().await;
}

#[tokio::test]
async fn names_that_are_taken_or_lead_nowhere_are_refused() {
    let mut twice = routed("http://127.0.0.1:1/");
    twice.webhooks.push(settings("ops", "http://127.0.0.1:2/", 1));
    let mut nowhere = routed("http://127.0.0.1:1/");
    nowhere.routes.0[0].receivers.push("nobody".into());
    for (notifier, part) in [(twice, "`ops`: the name is taken"), (nowhere, "`nobody`: a route leads to it")]
    {
        let error = Plant::refused(notifier).await;
        assert!(error.contains(part), "{error}");
    }
}
