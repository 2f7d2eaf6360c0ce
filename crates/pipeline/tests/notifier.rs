//! Notifications to real webhooks on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod plant;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farol_alert::{DeliveryOutcome, NotificationPayload, RetrySchedule};
use farol_pipeline::{NotifierSettings, WebhookSettings};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plant::{Plant, eventually};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);

/// A webhook that answers with the statuses given, the last one for ever, and passes on what it was sent.
async fn webhook(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<NotificationPayload>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=secret", listener.local_addr().unwrap());
    let (received, receiver) = mpsc::unbounded_channel();
    let calls = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (received, calls) = (received.clone(), Arc::clone(&calls));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (received, calls) = (received.clone(), Arc::clone(&calls));
                async move {
                    assert!(request.headers().contains_key("idempotency-key"));
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    received.send(serde_json::from_slice(&body).unwrap()).unwrap();
                    let call = calls.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1);
                    let answer = Response::builder().status(statuses[call]).body(Full::new(Bytes::new()));
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
        retry: RetrySchedule {
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_millis(50),
            max_attempts,
            max_elapsed: Duration::from_secs(10),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_is_tried_again_until_it_takes_the_notification_and_each_attempt_is_recorded() {
    let (url, mut received) = webhook(&[503, 500, 204]).await;
    let notifier = NotifierSettings { log: true, webhooks: vec![settings("ops", &url, 5)] };
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
    let plant = Plant::with_notifier(NotifierSettings { log: false, webhooks }).await;
    for cycle in 0..5 {
        plant.send(&format!("k-{cycle}"), "kiln", &[50.0]).await;
        let told = tokio::time::timeout(LIMIT, received.recv()).await.unwrap().unwrap();
        assert_eq!(told.alert.series, format!("k-{cycle}"));
    }
    let given_up = eventually(LIMIT, async || {
        let deliveries = plant.deliveries_in_view("k-0").await;
        let dead: Vec<_> = deliveries.into_iter().filter(|d| d.channel == "dead").collect();
        (dead.len() == 3).then_some(dead)
    })
    .await;
    assert_eq!(given_up[2].outcome, DeliveryOutcome::GaveUp);
    plant.stop().await;
}
