//! An event bus for programs: handlers in this process that get what is appended to topics.
//!
//! ```
//! use std::sync::Arc;
//!
//! use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
//! use farol_bus::{Bus, EventBus, EventBusSettings, Received, SubscriptionSettings, TopicSpec};
//! use farol_event::{Event, EventType, Timestamp};
//! use serde_json::json;
//! use uuid::Uuid;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path()))?;
//! # bus.create_topic(TopicSpec { name: "system-events".into(), partitions: 3, config: Default::default() }).await?;
//! let event_bus = EventBus::start(bus.clone(), EventBusSettings::new("system-events")).await?;
//!
//! // event_bus.subscrever(TipoEvento.METRICA_COLETADA.value, handler_metricas)
//! let (sender, mut values) = tokio::sync::mpsc::unbounded_channel();
//! let metrics = event_bus
//!     .subscribe_type(&EventType::METRIC_COLLECTED, move |received: Received| {
//!         let sender = sender.clone();
//!         async move {
//!             let event = received.event().map_err(|error| error.to_string())?;
//!             let value = event.data.get("valor").and_then(|valor| valor.as_f64()).ok_or("no `valor`")?;
//!             sender.send(value).map_err(|_| "nobody listens")?;
//!             Ok::<_, String>(())
//!         }
//!     })
//!     .await?;
//!
//! // event_bus.subscrever_global(handler_logging)
//! let logging = event_bus
//!     .subscribe_all(|received: Received| async move {
//!         println!("{} at {}", received.event_type().unwrap_or("no event"), received.offset);
//!     })
//!     .await?;
//! let logging = logging.detach();
//!
//! // if evento.dados.get('valor', 0) > limite: gerar_alerta_customizado(evento)
//! let above_limit = SubscriptionSettings::of_type(&EventType::METRIC_COLLECTED)
//!     .and(|received| match received.event() {
//!         Ok(event) => event.data.get("valor").and_then(|value| value.as_f64()) > Some(90.0),
//!         Err(_) => false,
//!     });
//! let alerts = event_bus.subscribe(above_limit.named("alerts"), |_| async { /* … */ }).await?;
//!
//! // evento = EventoSistema(tipo=TipoEvento.METRICA_COLETADA, origem="api"); event_bus.publicar(evento)
//! let now = Timestamp::from_system_time(std::time::SystemTime::now());
//! let data = json!({"nome": "cpu_percent", "valor": 42.0, "unidade": "%"});
//! let event = Event::new(Uuid::now_v7(), now, EventType::METRIC_COLLECTED, "api", &data);
//! let stored = event_bus.publish(&event).await?;
//! assert_eq!(stored.offset, 0, "durable, and the first of its partition");
//! assert_eq!(values.recv().await, Some(42.0));
//!
//! // event_bus.desinscrever(subscription_id)
//! let numbers = metrics.unsubscribe().await;
//! assert_eq!((numbers.delivered, numbers.failed), (1, 0));
//! assert!(event_bus.unsubscribe(logging));
//! # drop(alerts);
//! # event_bus.close().await;
//! # bus.close().await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! # What holds
//!
//! * Publishing is appending to the log: [`EventBus::publish`] returns when the event is durable, and handlers get it from the
//!   log, so never one that could still be lost. Nobody waits for handlers.
//! * A handler gets every record that its subscription wants once and in the order of its partition, one at a time, from
//!   where it starts ([`settings::StartFrom`]): unless its queue overflows under a policy that loses some
//!   ([`settings::Overflow`]), which is counted. Between partitions there is no order. A subscription lives as long as
//!   the process; one whose place must outlive it is a consumer group.
//! * One reader reads for all (`reader`); a record is read and parsed once and shared. A subscription that starts in the past,
//!   or falls behind, reads for itself until it meets the reader, and changes over without a gap (`registry`).
//! * An error or a panic of a handler, or of its predicate, is counted and logged, and the next record follows. What a handler
//!   was in the middle of when it panicked is its own concern.
//!
//! # Limits
//!
//! Each subscription's queue is bounded by records and bytes ([`queue::QueueBounds`]); the reader holds one poll of 256 KiB,
//! one that catches up 1 MiB. Handlers that are slow make the reader wait 20 ms at most, however many they are, and then go their own
//! ways, unless their policy is `Block`. A handler that blocks its thread instead of awaiting takes that thread from everybody:
//! such work belongs on [`tokio::task::spawn_blocking`].
//!
//! # Numbers
//!
//! [`EventBus::snapshots`] says how each subscription stands; [`EventBus::numbers`] sums by name what they have counted, those
//! that have ended too, and `SubscriptionCollector` (feature `prometheus`, on by default) shows that to Prometheus.
//!
//! # Failures
//!
//! When the log can't be read, the reader tries again every second from where it was ([`EventBus::problem`]). When the bus
//! is closed, subscriptions end after what they have queued. Records that retention deletes before a subscription that
//! is behind comes to them are gone for it; the engine counts and logs that.

mod handler;
pub mod numbers;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod queue;
mod reader;
mod received;
mod registry;
mod runner;
pub mod settings;
pub mod subscription;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use farol_event::envelope::MAX_EVENT_BYTES;
use farol_event::{Event, EventType, Timestamp};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::{Bus, BusError, OffsetSpec, Producer};
use crate::record::{ProducerRecord, RecordMetadata};
pub use handler::Outcome;
pub use numbers::{Numbers, SubscriptionNumbers};
#[cfg(feature = "prometheus")]
pub use prometheus::SubscriptionCollector;
pub use queue::QueueBounds;
pub use received::Received;
pub use settings::{EndReason, Overflow, StartFrom, SubscriptionSettings};
pub use subscription::{Phase, Subscription, SubscriptionId, SubscriptionSnapshot};

use reader::Reader;
use registry::Registry;
use runner::Runner;
use subscription::{Positions, State};

/// How many subscriptions one event bus may have.
pub const MAX_SUBSCRIPTIONS: usize = 10_000;

/// What an event bus reads, and where it publishes.
#[derive(Debug, Clone)]
pub struct EventBusSettings {
    /// Events are published to this topic. It is read, too.
    pub topic: Arc<str>,
    /// Further topics that are read.
    pub also: Vec<Arc<str>>,
    /// A name for people and for metrics.
    pub client_id: String,
}

impl EventBusSettings {
    /// One topic, for publishing and reading.
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), also: Vec::new(), client_id: "event-bus".to_owned() }
    }

    /// A name for people and for metrics; `event-bus` without it.
    #[must_use]
    pub fn named(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// Reads another topic as well.
    #[must_use]
    pub fn also_reading(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.also.push(topic.into());
        self
    }
}

/// An event bus. Cheap to clone; when the last clone is dropped, its subscriptions end.
#[derive(Clone)]
pub struct EventBus {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Arc<dyn Bus>,
    producer: Arc<dyn Producer>,
    topic: Arc<str>,
    topics: Vec<Arc<str>>,
    name: Arc<str>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl EventBus {
    /// Starts over the topics of the settings, which must be there. Reads nothing before somebody subscribes.
    ///
    /// # Errors
    /// [`BusError::UnknownTopicOrPartition`] if a topic isn't there; whatever else the bus says.
    pub async fn start(bus: Arc<dyn Bus>, settings: EventBusSettings) -> Result<Self, BusError> {
        let known = bus.topics().await?;
        let mut topics = vec![Arc::clone(&settings.topic)];
        topics.extend(settings.also.iter().filter(|topic| **topic != settings.topic).cloned());
        if let Some(missing) = topics.iter().find(|topic| !known.iter().any(|k| k.name == **topic)) {
            return Err(BusError::UnknownTopicOrPartition(format!("topic `{missing}`")));
        }
        let producer = bus.producer(&settings.client_id).await?;
        let (registry, shutdown) = (Arc::new(Registry::new()), CancellationToken::new());
        let name: Arc<str> = settings.client_id.as_str().into();
        let reader = Reader {
            bus: Arc::clone(&bus),
            client_id: settings.client_id,
            topics: topics.clone(),
            registry: Arc::clone(&registry),
            shutdown: shutdown.clone(),
        };
        let reader = Mutex::new(Some(tokio::spawn(reader.run())));
        let topic = settings.topic;
        Ok(Self { inner: Arc::new(Inner { bus, producer, topic, topics, name, registry, shutdown, reader }) })
    }

    /// Subscribes to one type of event, from now on.
    ///
    /// # Errors
    /// As [`EventBus::subscribe`].
    pub async fn subscribe_type<H, F>(
        &self,
        event_type: &EventType,
        handler: H,
    ) -> Result<Subscription, BusError>
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        self.subscribe(SubscriptionSettings::of_type(event_type), handler).await
    }

    /// Subscribes to everything, from now on.
    ///
    /// # Errors
    /// As [`EventBus::subscribe`].
    pub async fn subscribe_all<H, F>(&self, handler: H) -> Result<Subscription, BusError>
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        self.subscribe(SubscriptionSettings::everything(), handler).await
    }

    /// Subscribes. The handler is called with one record at a time, in a task of its own. With [`StartFrom::Now`], it gets
    /// everything that is published after this returns, and nothing that was acknowledged before the call.
    ///
    /// # Errors
    /// [`BusError::Closed`], [`BusError::InvalidState`] when there are [`MAX_SUBSCRIPTIONS`] already, and what the bus says when
    /// it is asked for its partitions.
    pub async fn subscribe<H, F>(
        &self,
        settings: SubscriptionSettings,
        handler: H,
    ) -> Result<Subscription, BusError>
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        let inner = &self.inner;
        if inner.registry.list().len() >= MAX_SUBSCRIPTIONS {
            return Err(BusError::InvalidState(format!(
                "the event bus has {MAX_SUBSCRIPTIONS} subscriptions already"
            )));
        }
        let (start, is_now) = inner.start_of(&settings.start).await?;
        let state = inner.registry.add(|id| State::new(id, settings)).ok_or(BusError::Closed)?;
        let is_live = is_now && inner.registry.join(&state, &start);
        let runner = Runner {
            bus: Arc::clone(&inner.bus),
            topics: inner.topics.clone(),
            registry: Arc::clone(&inner.registry),
            state: Arc::clone(&state),
            handler,
            in_a_row: 0,
        };
        tokio::spawn(runner.run((!is_live).then_some(start)));
        Ok(Subscription::new(state))
    }

    /// Ends a subscription by its id, as dropping its handle does. `false` if there is none.
    pub fn unsubscribe(&self, id: SubscriptionId) -> bool {
        let list = self.inner.registry.list();
        let found = list.iter().find(|state| state.id == id);
        found.inspect(|state| state.end(EndReason::Unsubscribed)).is_some()
    }

    /// Appends an event to the topic; its source is the key. Returns when it is durable, with where it stands.
    ///
    /// # Errors
    /// [`BusError::TooLarge`] for an event that its readers would not take; otherwise as [`Producer::send`].
    pub async fn publish(&self, event: &Event) -> Result<RecordMetadata, BusError> {
        let stored = self.publish_all(std::slice::from_ref(event)).await?;
        stored.into_iter().next().ok_or_else(|| {
            BusError::Unavailable("the bus did not say where the event came to stand".to_owned())
        })
    }

    /// Appends events, those of one source in order. Returns when all are durable.
    ///
    /// # Errors
    /// As [`EventBus::publish`].
    pub async fn publish_all(&self, events: &[Event]) -> Result<Vec<RecordMetadata>, BusError> {
        let now = Timestamp::from_system_time(SystemTime::now());
        let records: Result<Vec<_>, _> = events.iter().map(|event| record(event, now)).collect();
        self.inner.producer.send(&self.inner.topic, records?).await
    }

    /// Every subscription, in the order in which they came.
    pub fn snapshots(&self) -> Vec<SubscriptionSnapshot> {
        self.inner.registry.list().iter().map(|state| state.snapshot()).collect()
    }

    /// What the subscriptions count, by name and for metrics: those that there are, and those that there were.
    pub fn numbers(&self) -> Numbers {
        Numbers::new(Arc::clone(&self.inner.name), Arc::clone(&self.inner.registry))
    }

    /// Why the topics can't be read at present.
    pub fn problem(&self) -> Option<String> {
        self.inner.registry.problem()
    }

    /// Stops reading, and waits until every handler is through with what is queued for it. It takes as long as they do:
    /// bound it with a timeout.
    pub async fn close(&self) {
        self.inner.shutdown.cancel();
        let list = self.inner.registry.list();
        let reader = self.inner.reader.lock().take();
        if let Some(reader) = reader
            && let Err(error) = reader.await
        {
            tracing::error!(%error, "the reader of an event bus ended badly");
        }
        self.inner.registry.close();
        for state in list.iter() {
            state.until_ended().await;
        }
    }
}

impl Inner {
    /// Where to start, by partition, and whether that is at the end.
    async fn start_of(&self, start: &StartFrom) -> Result<(Positions, bool), BusError> {
        let partitions = reader::all_partitions(self.bus.as_ref(), &self.topics).await?;
        match start {
            StartFrom::Now => Ok((self.bus.offsets(&partitions, OffsetSpec::Latest).await?, true)),
            StartFrom::Beginning => Ok((self.bus.offsets(&partitions, OffsetSpec::Earliest).await?, false)),
            StartFrom::Offsets(offsets) => {
                let at = |partition| offsets.get(partition).copied().unwrap_or(0).max(0);
                Ok((partitions.iter().map(|partition| (partition.clone(), at(partition))).collect(), false))
            }
        }
    }
}

fn record(event: &Event, now: Timestamp) -> Result<ProducerRecord, BusError> {
    let json = event.to_json();
    if json.len() > MAX_EVENT_BYTES {
        return Err(BusError::TooLarge { what: "event", bytes: json.len(), limit: MAX_EVENT_BYTES });
    }
    Ok(ProducerRecord::new(Bytes::copy_from_slice(event.source.as_bytes()), json, now))
}
