//! Publishing events about Farol itself to topic `system-events`.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use farol_bus::{Bus, BusError, Producer, ProducerRecord};
use farol_event::{Event, EventType, Timestamp};
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
}

impl SystemEvents {
    /// A publisher over a producer of its own.
    ///
    /// # Errors
    /// When the bus gives no producer.
    pub async fn new(bus: &dyn Bus) -> Result<Self, BusError> {
        Ok(Self { producer: bus.producer("system-events").await? })
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
        if let Err(error) = self.publish(&event).await {
            tracing::warn!(%error, event_type = %event.event_type, source, "a system event was not recorded");
        }
    }
}
