//! Publishing events about Farol itself to topic `system-events`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use farol_bus::{Bus, BusError, Producer, ProducerRecord};
use farol_event::{Event, EventType, Timestamp};
use farol_log::Trouble;
use serde::Serialize;
use uuid::Uuid;

use crate::topics::SYSTEM_EVENTS;

/// The system's clock, read in shells only.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

/// Publishes events about Farol itself. Cheap to clone.
#[derive(Clone)]
pub struct SystemEvents {
    producer: Arc<dyn Producer>,
    announced: Arc<Recording>,
}

impl SystemEvents {
    /// A publisher over a producer of its own.
    ///
    /// # Errors
    /// When the bus gives no producer.
    pub async fn new(bus: &dyn Bus) -> Result<Self, BusError> {
        let announced = Arc::new(Recording::of("system events"));
        Ok(Self { producer: bus.producer("system-events").await?, announced })
    }

    /// The producer behind it, for other records that stand alone.
    pub(crate) fn producer(&self) -> &Arc<dyn Producer> {
        &self.producer
    }

    /// Publishes one event and waits until it is durable.
    ///
    /// # Errors
    /// When the bus refuses it.
    pub async fn publish(&self, event: &Event) -> Result<(), BusError> {
        self.publish_all(std::slice::from_ref(event)).await
    }

    /// Publishes events at once and waits until all are durable.
    ///
    /// # Errors
    /// When the bus refuses them; some may have been taken.
    pub async fn publish_all(&self, events: &[Event]) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        let record = |event: &Event| {
            ProducerRecord::new(event.source.clone().into_bytes(), Bytes::from(event.to_json()), event.time)
        };
        self.producer.send(SYSTEM_EVENTS, events.iter().map(record).collect()).await.map(|_| ())
    }

    /// Publishes an event that happens now. A refusal is logged and not returned: what the event tells of has happened
    /// all the same.
    pub async fn announce(&self, event_type: EventType, source: &str, data: &impl Serialize) {
        let event = Event::new(Uuid::now_v7(), now(), event_type, source, data);
        let outcome = self.publish(&event).await;
        self.announced.note(&outcome, format_args!("{} of {source}", event.event_type));
    }
}

/// What is recorded again and again and given up if the bus refuses it, as a full disk makes it do for as long as it lasts: that is
/// told when it begins, once a minute, and when it is over.
pub(crate) struct Recording {
    what: &'static str,
    refused: Trouble,
}

impl Recording {
    /// `what` is the plural of what is recorded.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, refused: Trouble::default() }
    }

    /// Takes note of how it went with `which` of them.
    pub(crate) fn note(&self, outcome: &Result<(), BusError>, which: impl Display) {
        let what = self.what;
        match outcome {
            Ok(()) if self.refused.is_over() => tracing::warn!("{what} are recorded again"),
            Ok(()) => {}
            Err(error) => {
                if let Some(untold) = self.refused.again(Instant::now()) {
                    tracing::warn!(%error, %which, untold, "{what} are not recorded");
                }
            }
        }
    }
}
