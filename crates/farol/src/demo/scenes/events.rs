//! Handlers that hear events by type, by predicate, and all of them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use farol_event::{Event, EventType, Timestamp};
use farol_simulate::{EventStream, Followed};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::ORDERS as ORDERS_SERVICE;
use super::super::screen::Screen;
use super::super::world::{World, at};
use super::{PATIENCE, in_words};

/// Made-up orders, each an event.
const ORDERS: usize = 30;
/// From which value on an order is a large one.
const LARGE: u64 = 800;
/// The type of the made-up events.
const ORDERED: &str = "pedido_criado";

type Handler<'a> = (&'static str, Box<dyn FnMut(&Value) -> bool + 'a>);

pub async fn play(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        5,
        "Event communication: handlers by type, by predicate, for everything",
        "the feed of events shows pedido_criado beside metrics",
    );
    // Whatever the services send meanwhile is heard by the handler for everything.
    let mut stream = EventStream::new(world.farol.clone(), [("events", "event")]);
    // What is published from the stream's greeting on is heard.
    let greeting =
        tokio::time::timeout(PATIENCE, stream.next()).await.context("opening the live stream")??;
    if let Followed::Lost(reason) = greeting {
        bail!("the live stream can't be opened: {reason}");
    }

    let (mut by_type, mut large, mut all) = (0_usize, 0_usize, 0_usize);
    let mut first = None;
    let run = Uuid::now_v7().to_string();
    {
        let ours = |event: &Value| at(event, "/type") == ORDERED && at(event, "/data/demo") == run.as_str();
        let mut handlers: [Handler<'_>; 3] = [
            (
                "by type",
                Box::new(|event| {
                    ours(event) && {
                        by_type += 1;
                        true
                    }
                }),
            ),
            (
                "by predicate",
                Box::new(|event| {
                    let fits =
                        ours(event) && at(event, "/data/valor").as_u64().is_some_and(|value| value >= LARGE);
                    large += usize::from(fits);
                    fits
                }),
            ),
            (
                "everything",
                Box::new(|_| {
                    all += 1;
                    true
                }),
            ),
        ];
        publish(world, &run).await?;
        let deadline = Instant::now() + PATIENCE;
        let mut heard = 0;
        // Metrics keep coming, so that a further event proves that the handler for everything hears more than orders.
        let mut others = 0;
        while heard < ORDERS || others == 0 {
            let next = tokio::time::timeout_at(deadline, stream.next());
            let told = match next.await.context("the live stream told too little")?? {
                Followed::Event(told) if told.event == "event" => told,
                Followed::Event(_) => continue,
                Followed::Lost(reason) => bail!("the live stream ended: {reason}"),
            };
            let Ok(event) = serde_json::from_str::<Value>(&told.data) else { continue };
            for (_, handler) in &mut handlers {
                handler(&event);
            }
            if ours(&event) {
                heard += 1;
            } else {
                others += 1;
                first.get_or_insert_with(|| in_words(&event));
            }
        }
        let names: Vec<_> = handlers.iter().map(|(name, _)| *name).collect();
        screen.step(&format!("{ORDERS} events {ORDERED} were published; handlers: {}", names.join(", ")));
    }
    let expected_large = (0..ORDERS).filter(|number| value_of(*number) >= LARGE).count();
    ensure!(by_type == ORDERS, "the handler by type heard {by_type} of {ORDERS}");
    ensure!(large == expected_large, "the handler by predicate heard {large} of {expected_large}");
    ensure!(all > ORDERS, "the handler for everything heard {all}");
    screen.right(&format!("by type {ORDERED}: {by_type}"));
    screen.right(&format!("by predicate valor >= {LARGE}: {large}"));
    screen.right(&format!("everything: {all}, for example {}", first.unwrap_or_default()));
    Ok(format!("{by_type} events by type, {large} by predicate, {all} in all"))
}

fn value_of(number: usize) -> u64 {
    (number as u64 * 137) % 1000
}

async fn publish(world: &World, run: &str) -> anyhow::Result<()> {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let events: Vec<Event> = (0..ORDERS)
        .map(|number| {
            let data = json!({ "pedido": number, "valor": value_of(number), "demo": run });
            let time = now.saturating_add(Duration::from_micros(number as u64));
            Event::new(Uuid::now_v7(), time, EventType::new(ORDERED), ORDERS_SERVICE, &data)
        })
        .collect();
    world.publish(&events).await
}
