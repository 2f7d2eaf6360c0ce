//! The event bus over the embedded engine: handlers that are slow, fail, panic, come late and go early.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::event_bus::numbers::{MAX_NAMES, OTHER};
use farol_bus::event_bus::{EndReason, Overflow, Phase, QueueBounds, StartFrom, SubscriptionSnapshot};
use farol_bus::{
    Bus, BusError, EventBus, EventBusSettings, Partitioning, ProducerRecord, Received, Subscription,
    SubscriptionSettings, TopicPartition, TopicSpec,
};
use farol_event::{Event, EventType, Timestamp};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);
const TOPIC: &str = "system-events";

struct World {
    bus: Arc<EmbeddedBus>,
    events: EventBus,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(partitions: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path())).unwrap();
        let config = [("farol.sync".to_owned(), "never".to_owned())].into();
        bus.create_topic(TopicSpec { name: TOPIC.into(), partitions, config }).await.unwrap();
        let events = EventBus::start(bus.clone(), EventBusSettings::new(TOPIC)).await.unwrap();
        Self { bus, events, _dir: dir }
    }

    /// Publishes numbered events of one type, one after the other.
    async fn publish(&self, event_type: &str, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.events.publish(&event(event_type, "s", number)).await.unwrap();
        }
    }
}

fn event(event_type: &str, source: &str, number: u64) -> Event {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    Event::new(Uuid::now_v7(), now, EventType::new(event_type), source, &json!({ "n": number }))
}

fn number(received: &Received) -> u64 {
    received.event().unwrap().data["n"].as_u64().unwrap()
}

/// What a handler got, and a handler that writes it down.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u64>>>);

impl Seen {
    fn handler(&self) -> impl FnMut(Received) -> std::future::Ready<()> + Send + 'static {
        let seen = Arc::clone(&self.0);
        move |received| {
            seen.lock().push(number(&received));
            std::future::ready(())
        }
    }

    /// A handler that needs a permit for each record.
    fn gated(
        &self,
        gate: &Arc<Semaphore>,
    ) -> impl FnMut(Received) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static {
        let (seen, gate) = (Arc::clone(&self.0), Arc::clone(gate));
        move |received| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                seen.lock().push(number(&received));
            })
        }
    }

    fn get(&self) -> Vec<u64> {
        self.0.lock().clone()
    }

    async fn until(&self, count: usize) -> Vec<u64> {
        eventually(|| self.0.lock().len() >= count).await;
        self.get()
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until(
    subscription: &Subscription,
    fits: impl Fn(&SubscriptionSnapshot) -> bool,
) -> SubscriptionSnapshot {
    eventually(|| fits(&subscription.snapshot())).await;
    subscription.snapshot()
}

fn queue_of(records: usize) -> QueueBounds {
    QueueBounds { records, ..QueueBounds::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_get_what_they_subscribed_to_and_nothing_else() {
    let world = World::start(1).await;
    world.publish("a", 0..1).await;
    let (one_type, two_types, some, all, raw) =
        (Seen::default(), Seen::default(), Seen::default(), Seen::default(), Arc::new(AtomicU64::new(0)));
    let events = &world.events;
    let first = events.subscribe_type(&EventType::new("a"), one_type.handler()).await.unwrap();
    let _second =
        events.subscribe(SubscriptionSettings::types(["a", "b"]), two_types.handler()).await.unwrap();
    let even = SubscriptionSettings::of_type(&EventType::new("c")).and(|r| number(r).is_multiple_of(2));
    let _third = events.subscribe(even, some.handler()).await.unwrap();
    let valid = SubscriptionSettings::matching(|received| received.event().is_ok());
    let _fourth = events.subscribe(valid, all.handler()).await.unwrap();
    let counter = Arc::clone(&raw);
    let everything = events
        .subscribe_all(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        })
        .await
        .unwrap();
    for event_type in ["a", "b", "c", "d"] {
        world.publish(event_type, 1..4).await;
    }
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let producer = world.bus.producer("other").await.unwrap();
    producer.send(TOPIC, vec![ProducerRecord::new("k", "no event", now)]).await.unwrap();
    world.publish("a", 4..5).await;
    assert_eq!(one_type.until(4).await, [1, 2, 3, 4], "nothing from before it subscribed");
    assert_eq!(two_types.until(7).await, [1, 2, 3, 1, 2, 3, 4]);
    assert_eq!(all.until(13).await, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4]);
    assert_eq!(some.get(), [2]);
    eventually(|| raw.load(Ordering::Relaxed) == 14).await;
    let snapshot = until(&everything, |s| s.delivered == 14).await;
    assert_eq!((snapshot.phase, snapshot.queued, snapshot.lag_records), (Phase::Live, 0, 0));
    assert_eq!((snapshot.dropped, snapshot.failed, snapshot.panicked), (0, 0, 0));
    assert_eq!(snapshot.lag(now), Duration::ZERO);
    assert_eq!(first.snapshot().name, "a");
    assert_eq!(events.snapshots().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_panics_are_counted_and_disturb_nobody() {
    let world = World::start(1).await;
    let quiet = Seen::default();
    let events = &world.events;
    let failing = events
        .subscribe_all(|received| async move {
            if number(&received).is_multiple_of(2) { Err("even") } else { Ok(()) }
        })
        .await
        .unwrap();
    let panicking = events
        .subscribe_all(|received| async move {
            tokio::task::yield_now().await;
            assert!(!number(&received).is_multiple_of(5), "a multiple of five");
        })
        .await
        .unwrap();
    let panics_at_once = events
        .subscribe_all(|received| {
            assert!(number(&received) != 3, "three");
            std::future::ready(())
        })
        .await
        .unwrap();
    let seen = Seen::default();
    let predicate = SubscriptionSettings::matching(|received| {
        assert!(number(received) != 7, "seven");
        number(received) < 9
    });
    let picky = events.subscribe(predicate, seen.handler()).await.unwrap();
    let _quiet = events.subscribe_all(quiet.handler()).await.unwrap();
    world.publish("a", 0..10).await;
    assert_eq!(quiet.until(10).await, (0..10).collect::<Vec<_>>());
    let of = async |subscription: &Subscription, delivered| {
        let s = until(subscription, |s| s.delivered == delivered).await;
        (s.failed, s.panicked, s.phase)
    };
    assert_eq!(of(&failing, 10).await, (5, 0, Phase::Live));
    assert_eq!(of(&panicking, 10).await, (0, 2, Phase::Live));
    assert_eq!(of(&panics_at_once, 10).await, (0, 1, Phase::Live));
    assert_eq!(of(&picky, 8).await, (0, 1, Phase::Live));
    assert_eq!(seen.get(), [0, 1, 2, 3, 4, 5, 6, 8]);
}

/// A slow handler with this policy and room for ten, beside a quick one, while 100 events are published. Gives what the slow one
/// saw and how it stood before and after its gate was opened.
async fn slow_beside_quick(overflow: Overflow) -> (Vec<u64>, SubscriptionSnapshot, SubscriptionSnapshot) {
    let world = World::start(1).await;
    let (slow, quick, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let settings = SubscriptionSettings::everything().named("slow").on_overflow(overflow).queue(queue_of(10));
    let subscription = world.events.subscribe(settings, slow.gated(&gate)).await.unwrap();
    let _quick = world.events.subscribe_all(quick.handler()).await.unwrap();
    world.publish("a", 0..1).await;
    // The first one has come and is in the handler, so it is not the queue's.
    quick.until(1).await;
    until(&subscription, |s| s.queued == 0).await;
    world.publish("a", 1..100).await;
    assert_eq!(quick.until(100).await.len(), 100, "the quick one gets everything meanwhile");
    let before = subscription.snapshot();
    gate.add_permits(1000);
    let after = until(&subscription, |s| {
        s.queued == 0 && s.delivered + s.dropped == 100 && s.phase != Phase::CatchingUp
    })
    .await;
    if let Phase::Ended(_) = after.phase {
        subscription.ended().await;
    }
    let after = subscription.snapshot();
    world.events.close().await;
    (slow.get(), before, after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_drop_oldest_a_slow_handler_gets_the_newest() {
    let (seen, before, after) = slow_beside_quick(Overflow::DropOldest).await;
    assert_eq!(seen, [vec![0], (90..100).collect()].concat());
    assert_eq!((before.queued, before.dropped, after.delivered), (10, 89, 11));
    assert!(before.waiting_since.is_some() && before.queued_bytes > 1000, "{before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_drop_newest_a_slow_handler_keeps_what_waits() {
    let (seen, before, after) = slow_beside_quick(Overflow::DropNewest).await;
    assert_eq!(seen, (0..11).collect::<Vec<_>>());
    assert_eq!((before.queued, before.dropped, after.phase), (10, 89, Phase::Live));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_catch_up_a_slow_handler_gets_everything_from_the_log() {
    let (seen, before, after) = slow_beside_quick(Overflow::CatchUp).await;
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!((before.phase, before.queued, before.dropped), (Phase::CatchingUp, 10, 0));
    assert_eq!((after.phase, after.fell_behind, after.dropped), (Phase::Live, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_disconnect_a_slow_handler_ends_after_what_waits() {
    let world = World::start(1).await;
    let (slow, quick, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let settings = SubscriptionSettings::everything().on_overflow(Overflow::Disconnect).queue(queue_of(10));
    let subscription = world.events.subscribe(settings, slow.gated(&gate)).await.unwrap();
    let _quick = world.events.subscribe_all(quick.handler()).await.unwrap();
    world.publish("a", 0..1).await;
    quick.until(1).await;
    until(&subscription, |s| s.queued == 0).await;
    world.publish("a", 1..100).await;
    quick.until(100).await;
    gate.add_permits(1000);
    assert_eq!(subscription.ended().await, EndReason::Overflowed);
    assert_eq!(slow.get(), (0..11).collect::<Vec<_>>());
    // What was read together with the first that did not fit; what came afterwards was not for it.
    assert!((1..=89).contains(&subscription.snapshot().dropped));
    assert_eq!(world.events.snapshots().len(), 1, "its place is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_block_everybody_waits_for_the_slow_one_and_nobody_misses_anything() {
    let world = World::start(1).await;
    let (slow, quick, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let settings =
        SubscriptionSettings::everything().on_overflow(Overflow::Block { limit: LIMIT }).queue(queue_of(10));
    let subscription = world.events.subscribe(settings, slow.gated(&gate)).await.unwrap();
    let _quick = world.events.subscribe_all(quick.handler()).await.unwrap();
    world.publish("a", 0..1).await;
    quick.until(1).await;
    until(&subscription, |s| s.queued == 0).await;
    // Publishing doesn't wait; reading does.
    world.publish("a", 1..100).await;
    // What is read together goes to both before the reader waits: from here on it does, as the slow one has no room for 11.
    quick.until(12).await;
    world.publish("a", 100..110).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(quick.get().iter().all(|number| *number < 100), "the quick one waits too");
    assert_eq!(subscription.snapshot().queued, 10);
    gate.add_permits(1000);
    assert_eq!(slow.until(110).await, (0..110).collect::<Vec<_>>());
    assert_eq!(quick.until(110).await, (0..110).collect::<Vec<_>>());
    assert_eq!(subscription.snapshot().phase, Phase::Live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_block_a_handler_that_is_stuck_is_given_up_after_the_limit() {
    let world = World::start(1).await;
    let (stuck, quick, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let limit = Duration::from_millis(50);
    let settings =
        SubscriptionSettings::everything().on_overflow(Overflow::Block { limit }).queue(queue_of(10));
    let subscription = world.events.subscribe(settings, stuck.gated(&gate)).await.unwrap();
    let _quick = world.events.subscribe_all(quick.handler()).await.unwrap();
    world.publish("a", 0..100).await;
    assert_eq!(quick.until(100).await.len(), 100);
    let snapshot = subscription.snapshot();
    assert_eq!(snapshot.phase, Phase::Ended(EndReason::Overflowed));
    assert!(snapshot.dropped > 0);
    gate.add_permits(1000);
    assert_eq!(subscription.ended().await, EndReason::Overflowed);
    let seen = stuck.get();
    assert_eq!(
        seen,
        (0..u64::try_from(seen.len()).unwrap()).collect::<Vec<_>>(),
        "a beginning, without gaps"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_handlers_are_waited_for_together_and_not_one_after_the_other() {
    let world = World::start(1).await;
    let (first, second, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let limit = Duration::from_secs(3600);
    let blocks =
        SubscriptionSettings::everything().on_overflow(Overflow::Block { limit }).queue(queue_of(10));
    let patient = SubscriptionSettings::everything().on_overflow(Overflow::CatchUp).queue(queue_of(10));
    let first_subscription = world.events.subscribe(blocks, first.gated(&gate)).await.unwrap();
    let second_subscription = world.events.subscribe(patient, second.gated(&gate)).await.unwrap();
    world.publish("a", 0..100).await;
    // The reader still waits for the first one, and not any more for the second.
    until(&second_subscription, |s| s.fell_behind == 1).await;
    assert_eq!(first_subscription.snapshot().phase, Phase::Live);
    gate.add_permits(1000);
    for seen in [first, second] {
        assert_eq!(seen.until(100).await, (0..100).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_unsubscribing_the_handler_does_nothing_more() {
    let world = World::start(1).await;
    let (entered, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let done = Arc::new(AtomicU64::new(0));
    let subscription = world
        .events
        .subscribe_all({
            let (entered, gate, done) = (Arc::clone(&entered), Arc::clone(&gate), Arc::clone(&done));
            move |_| {
                let (entered, gate, done) = (Arc::clone(&entered), Arc::clone(&gate), Arc::clone(&done));
                async move {
                    entered.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await
        .unwrap();
    world.publish("a", 0..50).await;
    eventually(|| entered.load(Ordering::SeqCst) == 1).await;
    let unsubscribing = tokio::spawn(subscription.unsubscribe());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!unsubscribing.is_finished(), "the call under way is let run to its end");
    gate.add_permits(100);
    let numbers = unsubscribing.await.unwrap();
    assert_eq!((entered.load(Ordering::SeqCst), done.load(Ordering::SeqCst)), (1, 1));
    assert_eq!((numbers.delivered, numbers.queued), (1, 0));
    assert_eq!(numbers.phase, Phase::Ended(EndReason::Unsubscribed));
    assert!(world.events.snapshots().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_drop_its_own_handle_and_others_go_by_id() {
    let world = World::start(1).await;
    let (own, rest) = (Arc::new(Mutex::new(None::<Subscription>)), Seen::default());
    let seen = Seen::default();
    let handler = {
        let (own, mut note) = (Arc::clone(&own), seen.handler());
        move |received: Received| {
            let is_last = number(&received) == 2;
            let noted = note(received);
            if is_last {
                drop(own.lock().take());
            }
            noted
        }
    };
    let subscription = world.events.subscribe_all(handler).await.unwrap();
    *own.lock() = Some(subscription);
    let detached = world.events.subscribe_all(rest.handler()).await.unwrap().detach();
    world.publish("a", 0..10).await;
    assert_eq!(rest.until(10).await.len(), 10);
    assert_eq!(seen.get(), [0, 1, 2]);
    assert!(world.events.unsubscribe(detached));
    eventually(|| world.events.snapshots().is_empty()).await;
    assert!(!world.events.unsubscribe(detached));
    // With nobody there the reader sleeps; whoever comes then gets what comes then.
    world.publish("a", 10..20).await;
    let late = Seen::default();
    let _late = world.events.subscribe_all(late.handler()).await.unwrap();
    world.publish("a", 20..25).await;
    assert_eq!(late.until(5).await, (20..25).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_starts_where_it_is_told() {
    let world = World::start(2).await;
    for n in 0..20 {
        world.events.publish(&event("a", &format!("s{n}"), n)).await.unwrap();
    }
    let (beginning, offsets) = (Seen::default(), Seen::default());
    let from_beginning = SubscriptionSettings::everything().starting(StartFrom::Beginning);
    let first = world.events.subscribe(from_beginning, beginning.handler()).await.unwrap();
    let from = BTreeMap::from([(TopicPartition::new(TOPIC, 0), 3)]);
    let from_offsets = SubscriptionSettings::everything().starting(StartFrom::Offsets(from));
    let _second = world.events.subscribe(from_offsets, offsets.handler()).await.unwrap();
    beginning.until(20).await;
    offsets.until(17).await;
    until(&first, |s| s.phase == Phase::Live && s.lag_records == 0).await;
    world.publish("a", 20..30).await;
    let mut all = beginning.until(30).await;
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    assert_eq!(offsets.until(27).await.len(), 27);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_too() {
    let world = World::start(1).await;
    let seen = Seen::default();
    let _subscription = world.events.subscribe_all(seen.handler()).await.unwrap();
    world.publish("a", 0..1).await;
    seen.until(1).await;
    world.bus.broker().add_partitions(TOPIC, 4).unwrap();
    for n in 1..40 {
        world.events.publish(&event("a", &format!("s{n}"), n)).await.unwrap();
    }
    let mut all = seen.until(40).await;
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_lets_handlers_finish_what_waits_for_them() {
    let world = World::start(1).await;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let subscription = world.events.subscribe_all(seen.gated(&gate)).await.unwrap();
    world.publish("a", 0..20).await;
    until(&subscription, |s| s.queued == 19).await;
    let events = world.events.clone();
    let closing = tokio::spawn(async move { events.close().await });
    gate.add_permits(100);
    closing.await.unwrap();
    assert_eq!(seen.get().len(), 20);
    assert_eq!(subscription.ended().await, EndReason::Closed);
    let refused = world.events.subscribe_all(seen.handler()).await.unwrap_err();
    assert!(matches!(refused, BusError::Closed), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_bus_ends_subscriptions_and_refuses_events() {
    let world = World::start(1).await;
    let seen = Seen::default();
    let live = world.events.subscribe_all(seen.handler()).await.unwrap();
    world.publish("a", 0..1).await;
    seen.until(1).await;
    world.bus.close().await.unwrap();
    assert_eq!(live.ended().await, EndReason::Closed);
    assert!(matches!(world.events.publish(&event("a", "s", 1)).await, Err(BusError::Closed)));
    assert!(world.events.subscribe_all(seen.handler()).await.is_err());
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_refused_by_name() {
    let world = World::start(1).await;
    let settings = EventBusSettings::new(TOPIC).also_reading("alerts");
    let Err(refused) = EventBus::start(world.bus.clone(), settings).await else { panic!("it started") };
    assert!(refused.to_string().contains("alerts"), "{refused}");
}

/// Handlers of every kind and speed while several tasks publish: with policies that lose nothing, each sees each event that it
/// wants once and in the order of its partition, wherever it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_handler_sees_every_event_that_it_wants_once_and_in_order() {
    const EVENTS: u64 = 600;
    const PARTITIONS: i32 = 3;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::start(PARTITIONS).await;
    // Where each event was stored, by number.
    let stored: Arc<Mutex<BTreeMap<(i32, i64), u64>>> = Arc::default();
    let publish = |numbers: Vec<Vec<u64>>| {
        let (bus, stored) = (world.bus.clone(), Arc::clone(&stored));
        async move {
            let producer = bus.producer("p").await.unwrap();
            for batch in numbers {
                let now = Timestamp::from_system_time(std::time::SystemTime::now());
                let records = batch.iter().map(|n| {
                    let json = event(if n.is_multiple_of(3) { "third" } else { "other" }, "s", *n).to_json();
                    let partitioning = Partitioning::Explicit(i32::try_from(n % 7).unwrap() % PARTITIONS);
                    ProducerRecord { partitioning, ..ProducerRecord::new("k", json, now) }
                });
                let placed = producer.send(TOPIC, records.collect()).await.unwrap();
                let places = placed.iter().zip(&batch).map(|(at, n)| ((at.partition, at.offset), *n));
                stored.lock().extend(places);
            }
        }
    };
    let mut cut = |numbers: std::ops::Range<u64>| {
        let mut rest: Vec<u64> = numbers.collect();
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let more = rest.split_off(random.random_range(1..40).min(rest.len()));
            batches.push(std::mem::replace(&mut rest, more));
        }
        batches
    };
    publish(cut(0..EVENTS / 3)).await;
    let first_batches: Vec<_> = [EVENTS / 3..EVENTS / 2, EVENTS / 2..EVENTS].map(&mut cut).into();

    let mut handlers = Vec::new();
    for index in 0..30 {
        let only_third = random.random_bool(0.4);
        let from_beginning = random.random_bool(0.5);
        let (pause_at, pause) =
            (random.random_range(5..60), Duration::from_millis(random.random_range(1..8)));
        let overflow =
            if random.random_bool(0.5) { Overflow::Block { limit: LIMIT } } else { Overflow::CatchUp };
        let settings = if only_third {
            SubscriptionSettings::types(["third"])
        } else {
            SubscriptionSettings::everything()
        };
        let settings = settings
            .named(format!("handler-{index}"))
            .on_overflow(overflow)
            .queue(queue_of(random.random_range(1..50)))
            .starting(if from_beginning { StartFrom::Beginning } else { StartFrom::Now });
        let seen: Arc<Mutex<Vec<(i32, i64)>>> = Arc::default();
        let note = Arc::clone(&seen);
        let mut calls = 0;
        let handler = move |received: Received| {
            calls += 1;
            note.lock().push((received.partition().partition, received.offset));
            let is_slow = calls % pause_at == 0;
            async move {
                if is_slow {
                    tokio::time::sleep(pause).await;
                }
            }
        };
        let subscription = world.events.subscribe(settings, handler).await.unwrap();
        handlers.push((subscription, seen, only_third, from_beginning));
    }
    let publishing: Vec<_> =
        first_batches.into_iter().map(|batches| tokio::spawn(publish(batches))).collect();
    for task in publishing {
        task.await.unwrap();
    }
    let stored = stored.lock().clone();
    assert_eq!(stored.len() as u64, EVENTS);
    for (subscription, seen, only_third, from_beginning) in handlers {
        let wanted: Vec<(i32, i64)> = stored
            .iter()
            .filter(|(_, n)| (!only_third || n.is_multiple_of(3)) && (from_beginning || **n >= EVENTS / 3))
            .map(|(place, _)| *place)
            .collect();
        let delivered = u64::try_from(wanted.len()).unwrap();
        let snapshot = until(&subscription, |s| s.delivered >= delivered).await;
        assert_eq!((snapshot.dropped, snapshot.panicked), (0, 0), "{snapshot:?}");
        let seen = seen.lock().clone();
        for partition in 0..PARTITIONS {
            let of = |list: &[(i32, i64)]| -> Vec<i64> {
                list.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset).collect()
            };
            assert_eq!(of(&seen), of(&wanted), "{} in partition {partition}", snapshot.name);
        }
    }
}

/// Two subscriptions of one name, one of which ends, beside one that fails and panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_by_name_and_outlive_subscriptions() {
    let world = World::start(1).await;
    let named = |name: &str| SubscriptionSettings::everything().named(name);
    let (first, second) = (Seen::default(), Seen::default());
    let leaving = world.events.subscribe(named("twice"), first.handler()).await.unwrap();
    let _staying = world.events.subscribe(named("twice"), second.handler()).await.unwrap();
    let faulty = move |received: Received| async move {
        match number(&received) {
            1 => Err("one"),
            2 => panic!("two"),
            _ => Ok(()),
        }
    };
    let faulty = world.events.subscribe(named("faulty"), faulty).await.unwrap();
    world.publish("a", 0..4).await;
    first.until(4).await;
    leaving.unsubscribe().await;
    world.publish("a", 4..5).await;
    second.until(5).await;
    until(&faulty, |s| s.delivered == 5).await;
    let numbers = world.events.numbers();
    eventually(|| numbers.by_name()["twice"].delivered == 9).await;
    let by_name = numbers.by_name();
    assert_eq!((by_name["twice"].subscriptions, by_name["twice"].queued), (1, 0));
    let faulty = by_name["faulty"];
    assert_eq!((faulty.delivered, faulty.failed, faulty.panicked, faulty.dropped), (5, 1, 1, 0));
    assert_eq!(numbers.bus(), "event-bus");
}

#[tokio::test]
async fn names_beyond_the_bound_count_together_and_nothing_is_lost() {
    let world = World::start(1).await;
    let mut subscriptions = Vec::new();
    for index in 0..MAX_NAMES + 3 {
        let settings = SubscriptionSettings::everything().named(format!("name-{index}"));
        subscriptions.push(world.events.subscribe(settings, |_| std::future::ready(())).await.unwrap());
    }
    world.publish("a", 0..2).await;
    let numbers = world.events.numbers();
    eventually(|| numbers.by_name().values().map(|n| n.delivered).sum::<u64>() == 2 * (MAX_NAMES as u64 + 3))
        .await;
    let by_name = numbers.by_name();
    assert_eq!(by_name.len(), MAX_NAMES + 1);
    assert_eq!((by_name[OTHER].subscriptions, by_name[OTHER].delivered), (3, 6));
    assert_eq!(by_name["name-0"].delivered, 2);
    drop(subscriptions);
    eventually(|| numbers.by_name().values().all(|n| n.subscriptions == 0)).await;
    assert_eq!(numbers.by_name()[OTHER].delivered, 6);
}

#[cfg(feature = "prometheus")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_every_number_of_every_subscription() {
    use farol_bus::event_bus::SubscriptionCollector;

    let world = World::start(1).await;
    let seen = Seen::default();
    let settings = SubscriptionSettings::of_type(&EventType::new("a"));
    let subscription = world.events.subscribe(settings, seen.handler()).await.unwrap();
    world.publish("a", 0..3).await;
    until(&subscription, |s| s.delivered == 3).await;
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(SubscriptionCollector::new([world.events.numbers()])));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels = r#"{bus="event-bus",subscription="a"}"#;
    let expected = [
        ("subscriptions", 1),
        ("delivered_records_total", 3),
        ("failed_records_total", 0),
        ("panics_total", 0),
        ("dropped_records_total", 0),
        ("fell_behind_total", 0),
        ("queued_records", 0),
        ("lag_records", 0),
    ];
    assert_eq!(samples, expected.map(|(name, value)| format!("farol_event_bus_{name}{labels} {value}")));
}
