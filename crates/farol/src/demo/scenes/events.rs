//! Handlers on an event bus: by type, by predicate, for everything; and three that misbehave, of which nobody else notices.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use farol_bus::event_bus::{Overflow, QueueBounds, SubscriptionNumbers};
use farol_bus::{EventBus, EventBusSettings, Received, Subscription, SubscriptionSettings};
use farol_event::{Event, EventType, Timestamp};
use farol_pipeline::topics::SYSTEM_EVENTS;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::super::ORDERS as ORDERS_SERVICE;
use super::super::screen::Screen;
use super::super::world::{CALLER, World, eventually};
use super::PATIENCE;

/// Made-up orders, each an event.
const ORDERS: u64 = 30;
/// From which value on an order is a large one.
const LARGE: u64 = 800;
/// Below which value one handler fails.
const SMALL: u64 = 100;
/// The order at which one handler panics.
const CURSED: u64 = 7;
/// How many orders may wait for the slow handler.
const SLOW_QUEUE: usize = 5;
/// The type of the made-up events.
const ORDERED: &str = "pedido_criado";

const BY_TYPE: &str = "by type";
const BY_PREDICATE: &str = "by predicate";
const EVERYTHING: &str = "everything";
const FAILING: &str = "one that fails";
const PANICKING: &str = "one that panics";
const SLOW: &str = "one that is slow";

pub async fn play(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        5,
        "Event communication: handlers by type, by predicate, for everything; a bad one harms nobody else",
        "the feed of events shows pedido_criado beside metrics; the handlers' counts are on /metrics of a Farol of its own",
    );
    let settings = EventBusSettings::new(SYSTEM_EVENTS).named(CALLER);
    let bus = EventBus::start(Arc::clone(&world.bus), settings).await?;
    let outcome = communicate(world, screen, &bus).await;
    tokio::time::timeout(PATIENCE, bus.close()).await.context("a handler of the event bus does not end")?;
    outcome
}

async fn communicate(world: &World, screen: &mut Screen, bus: &EventBus) -> anyhow::Result<String> {
    // Another demonstration may publish orders, too.
    let run = Uuid::now_v7().to_string();
    let (worth, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let Handlers { by_type, others } = subscribe(bus, &run, &worth, &gate).await?;
    let events: Vec<Event> = (0..ORDERS).map(|number| order(number, &run)).collect();
    bus.publish_all(&events).await?;
    screen.step(&format!("{ORDERS} events {ORDERED} are published; six handlers have subscribed"));

    let numbers = bus.numbers();
    let heard = |name: &str| numbers.by_name().get(name).copied().unwrap_or_default();
    let large = (0..ORDERS).filter(|number| value_of(*number) >= LARGE).count() as u64;
    eventually("the handlers did not hear every order", async || {
        let all = [BY_TYPE, FAILING, PANICKING].iter().all(|name| heard(name).delivered >= ORDERS);
        // Metrics keep coming, so one more event proves that the handler for everything hears more than orders.
        let is_through =
            all && heard(BY_PREDICATE).delivered >= large && heard(EVERYTHING).delivered > ORDERS;
        Ok((is_through && heard(SLOW).dropped > 0).then_some(()))
    })
    .await?;
    let while_slow = heard(SLOW);
    ensure!(while_slow.delivered == 0, "the slow handler was not to be through with anything yet");
    let expected_worth: u64 = (0..ORDERS).map(value_of).sum();
    let worth = worth.load(Ordering::Relaxed);
    ensure!(
        worth == expected_worth,
        "the orders are worth {expected_worth}, and its handler made it {worth}"
    );
    screen.right(&format!("by type {ORDERED}: {}, worth {worth}", heard(BY_TYPE).delivered));
    screen.right(&format!("by predicate valor >= {LARGE}: {}", heard(BY_PREDICATE).delivered));
    screen.right(&format!("everything: {}", heard(EVERYTHING).delivered));
    screen.right(&format!(
        "meanwhile one handler failed {} times, one panicked, one has yet to finish its first order",
        heard(FAILING).failed
    ));
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    eventually("the slow handler did not come to its end", async || {
        let slow = heard(SLOW);
        Ok((slow.delivered + slow.dropped >= ORDERS).then_some(()))
    })
    .await?;
    unsubscribed_hears_nothing(bus, by_type, &run, &heard).await?;
    screen.right("one handler has unsubscribed, and an order more did not reach it");

    let counts = numbers.by_name();
    show(screen, &counts);
    check(&counts, large)?;
    on_the_farol(world, bus, screen).await?;
    drop(others);
    Ok(format!(
        "{ORDERS} events by type, {large} by predicate, {} in all; {} failures and a panic stayed where they happened",
        heard(EVERYTHING).delivered,
        heard(FAILING).failed
    ))
}

/// Who listens.
struct Handlers {
    by_type: Subscription,
    others: Vec<Subscription>,
}

async fn subscribe(
    bus: &EventBus,
    run: &str,
    worth: &Arc<AtomicU64>,
    gate: &Arc<Semaphore>,
) -> anyhow::Result<Handlers> {
    let ordered = EventType::new(ORDERED);
    let orders = |name: &str| {
        let run = run.to_owned();
        SubscriptionSettings::of_type(&ordered)
            .and(move |received| text(received, "demo").as_deref() == Some(run.as_str()))
            .named(name)
    };
    let worth = Arc::clone(worth);
    let by_type = bus
        .subscribe(orders(BY_TYPE), move |received: Received| {
            let worth = Arc::clone(&worth);
            async move {
                worth.fetch_add(number(&received, "valor").ok_or("no `valor`")?, Ordering::Relaxed);
                Ok::<_, &str>(())
            }
        })
        .await?;
    let is_large = |received: &Received| number(received, "valor") >= Some(LARGE);
    let by_predicate = bus.subscribe(orders(BY_PREDICATE).and(is_large), |_| async {}).await?;
    let everything =
        bus.subscribe(SubscriptionSettings::everything().named(EVERYTHING), |_| async {}).await?;
    let failing = bus
        .subscribe(orders(FAILING), |received: Received| async move {
            match number(&received, "valor") {
                Some(value) if value < SMALL => Err(format!("an order of {value} is not worth while")),
                _ => Ok(()),
            }
        })
        .await?;
    let panicking = bus
        .subscribe(orders(PANICKING), |received: Received| async move {
            if number(&received, "pedido") == Some(CURSED) {
                // A panic without the report and backtrace of its own: the event bus tells of it.
                resume_unwind(Box::new(format!("the handler can't bear order {CURSED}")));
            }
        })
        .await?;
    let gate = Arc::clone(gate);
    let bounds = QueueBounds { records: SLOW_QUEUE, ..QueueBounds::default() };
    let slow = bus
        .subscribe(orders(SLOW).queue(bounds).on_overflow(Overflow::DropNewest), move |_| {
            let gate = Arc::clone(&gate);
            // The gate is never closed; if it were, there would be nothing to wait for.
            async move { gate.acquire().await.map(drop) }
        })
        .await?;
    Ok(Handlers { by_type, others: vec![by_predicate, everything, failing, panicking, slow] })
}

/// Unsubscribes, publishes one more, and waits until another handler has it.
async fn unsubscribed_hears_nothing(
    bus: &EventBus,
    by_type: Subscription,
    run: &str,
    heard: &impl Fn(&str) -> SubscriptionNumbers,
) -> anyhow::Result<()> {
    let before = by_type.unsubscribe().await.delivered;
    bus.publish(&order(ORDERS, run)).await?;
    eventually("the handlers that are left did not hear the last order", async || {
        let slow = heard(SLOW);
        let through = [heard(FAILING), heard(PANICKING)].iter().all(|of| of.delivered > ORDERS);
        Ok((through && slow.delivered + slow.dropped > ORDERS).then_some(()))
    })
    .await?;
    let after = heard(BY_TYPE).delivered;
    ensure!(after == before, "the handler by type heard {after} orders, {} after its end", after - before);
    Ok(())
}

/// What each handler counted.
fn show(screen: &mut Screen, counts: &BTreeMap<String, SubscriptionNumbers>) {
    screen.step(&format!(
        "  {:<18} {:>9} {:>7} {:>9} {:>8} {:>8}",
        "handler", "delivered", "failed", "panicked", "dropped", "waiting"
    ));
    for name in [BY_TYPE, BY_PREDICATE, EVERYTHING, FAILING, PANICKING, SLOW] {
        let of = counts.get(name).copied().unwrap_or_default();
        screen.step(&format!(
            "  {name:<18} {:>9} {:>7} {:>9} {:>8} {:>8}",
            of.delivered, of.failed, of.panicked, of.dropped, of.queued
        ));
    }
}

fn check(counts: &BTreeMap<String, SubscriptionNumbers>, large: u64) -> anyhow::Result<()> {
    let small = (0..ORDERS).filter(|number| value_of(*number) < SMALL).count() as u64;
    for (name, delivered, failed, panicked) in [
        (BY_TYPE, ORDERS, 0, 0),
        (BY_PREDICATE, large, 0, 0),
        (FAILING, ORDERS + 1, small, 0),
        (PANICKING, ORDERS + 1, 0, 1),
    ] {
        let of = counts.get(name).copied().unwrap_or_default();
        let counted = (of.delivered, of.failed, of.panicked, of.dropped);
        ensure!(counted == (delivered, failed, panicked, 0), "the handler {name} counted {of:?}");
    }
    let slow = counts.get(SLOW).copied().unwrap_or_default();
    ensure!(slow.delivered + slow.dropped == ORDERS + 1, "the slow handler counted {slow:?}");
    Ok(())
}

/// The events are on the dashboard's Farol; the counts are on its `/metrics`, if it is one of its own.
async fn on_the_farol(world: &World, bus: &EventBus, screen: &mut Screen) -> anyhow::Result<()> {
    let query = format!("source={ORDERS_SERVICE}&type={ORDERED}");
    world.event(&query, |_| true).await.context(
        "the Farol does not know the orders: does --brokers name the Kafka port of the one that --server names?",
    )?;
    if let Some(shown) = &world.event_buses {
        shown.show(bus.numbers());
        let line = format!(
            "farol_event_bus_delivered_records_total{{bus=\"{CALLER}\",subscription=\"{BY_TYPE}\"}} {ORDERS}"
        );
        let text = world.text("/metrics").await?;
        ensure!(text.lines().any(|found| found == line), "/metrics does not say {line}");
        screen.right(&format!("/metrics says {line}"));
    }
    Ok(())
}

/// A made-up order.
fn order(number: u64, run: &str) -> Event {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let data = json!({ "pedido": number, "valor": value_of(number), "demo": run });
    let time = now.saturating_add(Duration::from_micros(number));
    Event::new(Uuid::now_v7(), time, EventType::new(ORDERED), ORDERS_SERVICE, &data)
}

fn value_of(number: u64) -> u64 {
    (number * 137) % 1000
}

/// A number of an event's data.
fn number(received: &Received, name: &str) -> Option<u64> {
    received.event().ok()?.data.get(name)?.as_u64()
}

/// A text of an event's data.
fn text(received: &Received, name: &str) -> Option<String> {
    received.event().ok()?.data.get(name)?.as_str().map(str::to_owned)
}
