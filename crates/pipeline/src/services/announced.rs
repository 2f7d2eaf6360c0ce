//! What services say of themselves on `system-events` reaches the watch: heartbeats, and work on them.
//!
//! A heartbeat that comes as an event (`servico_pulsou`) is heard like one of the API. Work that is announced or ended by an event
//! (`servico_em_manutencao`, `servico_em_operacao`) becomes a record of topic `services`, which the watch follows and which survives a
//! restart. What has its record already, because the API or the watch itself told it, carries [`KEPT`] and is passed over.
//!
//! Its place is kept as offsets of group [`GROUP`], committed after the records are durable: an event counts at least once, and counting
//! it twice changes nothing. Of services that are not watched only the maintenance matters here. Events in another partition than their
//! key's come in the order in which they are met. A failure is logged, and reading goes on where it was committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_bus::{
    Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, Polled, TopicPartition,
};
use farol_event::{Event, EventHead, EventType, ServiceFact};
use farol_registry::record::{Content, KEPT};
use farol_registry::{Catalogue, Command, Maintenance, Record, ServiceId, Watch};
use tokio_util::sync::CancellationToken;

use super::{POLL, POLL_BYTES, RESTART_PAUSE, append};
use crate::supervision::caught;
use crate::system_events::{SystemEvents, now};
use crate::topics::SYSTEM_EVENTS;

/// The consumer group.
const GROUP: &str = "service-watch";
/// Who works on a service when the event doesn't say.
const NOBODY_IN_PARTICULAR: &str = "an event";

pub(super) struct Announced {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) events: SystemEvents,
    pub(super) watch: Watch,
    pub(super) catalogue: Arc<Catalogue>,
}

impl Announced {
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = caught(self.follow()) => outcome,
            };
            match outcome {
                Ok(()) | Err(BusError::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, retry_in = ?RESTART_PAUSE, "heartbeats and maintenance that come as events are held up");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    /// Follows until the watch has ended.
    async fn follow(&self) -> Result<(), BusError> {
        let settings = ConsumerSettings {
            max_bytes: POLL_BYTES,
            offset_reset: OffsetReset::Earliest,
            ..ConsumerSettings::member(GROUP, GROUP)
        };
        let mut consumer = self.bus.consumer(settings).await?;
        consumer.subscribe(&[SYSTEM_EVENTS]).await?;
        loop {
            // What was assigned or revoked matters not: whose partition an event stands in is nothing to the watch.
            let Polled::Records(batches) = consumer.poll(POLL).await? else { continue };
            let mut next = BTreeMap::new();
            for batch in &batches {
                for record in &batch.records {
                    if !self.take(record).await? {
                        return Ok(());
                    }
                }
                next.insert(batch.partition.clone(), batch.next_offset);
            }
            self.commit(consumer.as_mut(), next).await?;
        }
    }

    async fn commit(
        &self,
        consumer: &mut dyn Consumer,
        next: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), BusError> {
        match consumer.commit(next).await {
            // The partition has moved meanwhile: whoever has it meets the events again.
            Err(BusError::Fenced(_)) => Ok(()),
            other => other,
        }
    }

    /// Takes in one record; whether the watch still runs.
    async fn take(&self, record: &ConsumedRecord) -> Result<bool, BusError> {
        let Some((service, fact)) = announced(record) else { return Ok(true) };
        let concerns_us = match fact {
            ServiceFact::MaintenanceStarted(_) => self.catalogue.may_maintain(&service).is_ok(),
            ServiceFact::MaintenanceEnded(_) => true,
            _ => self.catalogue.get(&service).is_some(),
        };
        if !concerns_us {
            return Ok(true);
        }
        let maintenance = match fact {
            ServiceFact::Heartbeat => {
                // The sender's clock may run ahead; his heartbeat lasts no longer for it.
                let beat = Command::Beat { id: service, at: record.timestamp().min(now()) };
                return Ok(self.watch.apply(beat).await.is_ok());
            }
            ServiceFact::MaintenanceStarted(told) => Some(Maintenance {
                by: told.by.unwrap_or_else(|| NOBODY_IN_PARTICULAR.to_owned()),
                reason: told.reason,
                until: told.until,
            }),
            // Told also if there seems to be none: what began just before it may not have reached the catalogue yet.
            ServiceFact::MaintenanceEnded(_) => None,
            _ => return Ok(true),
        };
        append(&self.events, &Record { service, content: Content::Maintenance(maintenance) }).await?;
        Ok(true)
    }
}

/// What the record says that the watch has to know, and of which service.
fn announced(record: &ConsumedRecord) -> Option<(ServiceId, ServiceFact)> {
    let value = record.value.as_deref()?;
    let head = EventHead::parse(value)?;
    [EventType::SERVICE_HEARTBEAT, EventType::MAINTENANCE_STARTED, EventType::MAINTENANCE_ENDED]
        .iter()
        .find(|claims| claims.as_str() == head.event_type)?;
    let event = Event::parse(value, record.timestamp()).ok()?;
    if event.extensions.contains_key(KEPT) {
        return None;
    }
    let service = event.source.parse().ok()?;
    ServiceFact::of(&event)?.ok().map(|fact| (service, fact))
}
