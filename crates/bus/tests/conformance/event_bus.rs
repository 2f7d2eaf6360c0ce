//! The event bus over an engine.

use std::sync::Arc;

use farol_bus::event_bus::{Phase, StartFrom};
use farol_bus::{EventBus, EventBusSettings, Received, SubscriptionSettings};
use farol_event::{Event, EventType, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::{Engine, eventually, topic};

/// A subscription from the beginning reads the log, then changes over to what the common reader brings.
pub async fn an_event_bus_brings_the_past_and_what_comes_each_once_and_in_order(engine: &mut impl Engine) {
    const EVENTS: i64 = 300;
    let bus = engine.bus();
    let topic = topic(&bus, "event-bus", 1, &[]).await;
    let events = EventBus::start(bus, EventBusSettings::new(topic)).await.unwrap();
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let event = |n: i64| Event::new(Uuid::now_v7(), now, EventType::new("numbered"), "s", &json!({ "n": n }));
    let some: Vec<Event> = (0..EVENTS / 3).map(event).collect();
    events.publish_all(&some).await.unwrap();
    let seen: Arc<parking_lot::Mutex<Vec<i64>>> = Arc::default();
    let note = Arc::clone(&seen);
    let handler = move |received: Received| {
        let number = received.event().map(|event| event.data["n"].as_i64().unwrap());
        note.lock().push(number.unwrap());
        std::future::ready(())
    };
    let settings = SubscriptionSettings::types(["numbered"]).starting(StartFrom::Beginning);
    let subscription = events.subscribe(settings, handler).await.unwrap();
    for n in EVENTS / 3..EVENTS {
        events.publish(&event(n)).await.unwrap();
    }
    eventually("all events", || async {
        let all = seen.lock().len() as i64 >= EVENTS;
        (all && subscription.snapshot().phase == Phase::Live).then_some(())
    })
    .await;
    assert_eq!(*seen.lock(), (0..EVENTS).collect::<Vec<_>>());
    let numbers = subscription.unsubscribe().await;
    assert_eq!((numbers.delivered, numbers.dropped, numbers.lag_records), (EVENTS as u64, 0, 0));
    events.close().await;
}
