//! A service that is a program of its own: it announces itself, takes orders from events, pays them at a gateway that
//! fails for a while, and tells what became of them. The calls are protected by farol-resilience.
//!
//! ```text
//! farol run                                                       in one terminal
//! cargo run -p farol-bus --example checkout -- 127.0.0.1:9092     in another
//! farol events --follow --source checkout                         in a third
//! ```
//!
//! An order is an event `transacao_iniciada`. For three of the twelve seconds nobody listens at the gateway: five calls fail, the
//! breaker opens (`disjuntor_aberto`), orders fail at once instead of being tried, and a probe every two seconds finds out when
//! the gateway is up again (`disjuntor_fechado`). Nobody else waits meanwhile: the handler is one subscription, the log keeps its orders.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farol_bus::kafka::{KafkaBus, KafkaOptions};
use farol_bus::{EventBus, EventBusSettings, Received, SubscriptionSettings};
use farol_event::service::{BreakerMoved, BreakerState, Reason};
use farol_event::{Event, EventType, Timestamp};
use farol_resilience::{CircuitBreaker, Pipeline, Retry, Timeout};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const SERVICE: &str = "checkout";
const ORDERS: u32 = 60;
const PACE: Duration = Duration::from_millis(200);
/// While these orders come, the gateway is away.
const OUTAGE: std::ops::Range<u32> = 15..30;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let brokers = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let bus = KafkaBus::new(KafkaOptions::new(brokers, SERVICE))?;
    let events = EventBus::start(bus, EventBusSettings::new("system-events")).await?;
    events.publish(&event(EventType::SERVICE_STARTED, &json!({ "version": "1.0" }))).await?;

    let gateway = Gateway::open().await?;
    let breaker = CircuitBreaker::builder("gateway").open_for(Duration::from_secs(2)).build()?;
    let telling = tokio::spawn(tell_of_breaker(events.clone(), breaker.clone()));
    let calls =
        Pipeline::outermost(Retry::idempotent("gateway").initial_delay(Duration::from_millis(20)).build())
            .then(breaker)
            .then(Timeout::new("gateway", Duration::from_millis(500)));

    let orders = SubscriptionSettings::of_type(&EventType::TRANSACTION_STARTED)
        .and(|received| received.event().is_ok_and(|event| event.source == SERVICE))
        .named("orders");
    let (answers, address) = (events.clone(), gateway.address.clone());
    let subscription = events
        .subscribe(orders, move |received: Received| {
            let (answers, calls, address) = (answers.clone(), calls.clone(), address.clone());
            async move {
                let order = received.event().map_err(ToString::to_string)?;
                let paid = calls.call(|| pay(address.clone())).await;
                let (event_type, data) = match &paid {
                    Ok(receipt) => (EventType::TRANSACTION_COMPLETED, json!({ "recibo": receipt })),
                    Err(error) => (EventType::TRANSACTION_FAILED, json!({ "reason": error.to_string() })),
                };
                let answer = Event { correlationid: order.correlationid, ..event(event_type, &data) };
                answers.publish(&answer).await.map_err(|error| error.to_string())?;
                paid.map(|_| ()).map_err(|error| error.to_string())
            }
        })
        .await?;

    for number in 0..ORDERS {
        gateway.set_open(!OUTAGE.contains(&number)).await?;
        let order = event(EventType::TRANSACTION_STARTED, &json!({ "pedido": number, "valor": 12.5 }));
        events.publish(&Event { correlationid: Some(Uuid::now_v7()), ..order }).await?;
        tokio::time::sleep(PACE).await;
    }
    while subscription.snapshot().delivered < u64::from(ORDERS) {
        tokio::time::sleep(PACE).await;
    }
    let numbers = subscription.unsubscribe().await;
    println!("{} orders, {} of them failed", numbers.delivered, numbers.failed);
    telling.abort();
    let stopped = Reason { reason: Some("no more orders".to_owned()) };
    events.publish(&event(EventType::SERVICE_STOPPED, &json!(stopped))).await?;
    events.close().await;
    Ok(())
}

fn event(event_type: EventType, data: &Value) -> Event {
    let now = Timestamp::from_system_time(SystemTime::now());
    Event::new(Uuid::now_v7(), now, event_type, SERVICE, data)
}

/// The call that is protected: an amount goes out, a receipt comes back.
async fn pay(address: Arc<str>) -> std::io::Result<String> {
    let mut gateway = TcpStream::connect(&*address).await?;
    gateway.write_all(b"12.50\n").await?;
    gateway.shutdown().await?;
    let mut receipt = String::new();
    gateway.read_to_string(&mut receipt).await?;
    Ok(receipt)
}

/// Publishes what the breaker does.
async fn tell_of_breaker(events: EventBus, breaker: CircuitBreaker) {
    let mut changes = breaker.changes().subscribe();
    while let Ok(change) = changes.recv().await {
        let state = |word: &str| match word {
            "open" => BreakerState::Open,
            "half_open" => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        };
        let moved = BreakerMoved {
            caller: SERVICE.to_owned(),
            name: change.name.to_string(),
            service: Some("gateway".to_owned()),
            from: state(change.from),
            to: state(change.to),
            cause: Some(change.cause),
            counters: Default::default(),
        };
        println!("breaker: {} -> {}", change.from, change.to);
        if let Err(error) = events.publish(&event(moved.to.event_type(), &json!(moved))).await {
            println!("the breaker's move could not be told: {error}");
        }
    }
}

/// The other side of the calls, which can go away.
struct Gateway {
    address: Arc<str>,
    serving: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Gateway {
    async fn open() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string().into();
        Ok(Self { address, serving: Some(tokio::spawn(serve(listener))).into() })
    }

    async fn set_open(&self, open: bool) -> std::io::Result<()> {
        let mut serving = self.serving.lock().await;
        if open && serving.is_none() {
            *serving = Some(tokio::spawn(serve(TcpListener::bind(&*self.address).await?)));
        } else if !open && let Some(task) = serving.take() {
            task.abort();
        }
        Ok(())
    }
}

async fn serve(listener: TcpListener) {
    for receipt in 1_u64.. {
        let Ok((mut caller, _)) = listener.accept().await else { return };
        let mut amount = String::new();
        if caller.read_to_string(&mut amount).await.is_ok() {
            // The caller may have given up.
            let _ = caller.write_all(format!("{} #{receipt}", amount.trim()).as_bytes()).await;
        }
    }
}
