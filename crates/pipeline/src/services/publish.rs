//! Findings become events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_bus::{Bus, BusError, ProducerRecord, TransactionalProducer};
use farol_event::service::{CheckChanged, Metric, Reason, names};
use farol_event::{Event, EventType};
use farol_log::Trouble;
use farol_registry::record::{Content, KEPT, TOPIC};
use farol_registry::{Finding, FindingKind, Record};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::to_bus;
use crate::system_events::SystemEvents;
use crate::topics::SYSTEM_EVENTS;

/// How many bundles are published together at most.
const BUNDLES: usize = 64;
/// How long to wait before what the log refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The watch's transactions; a newer process with the same id fences an older one.
const TRANSACTIONAL_ID: &str = "service-watch";

pub(super) struct Publisher {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) events: SystemEvents,
}

/// Findings as records.
#[derive(Default)]
struct Out {
    events: Vec<ProducerRecord>,
    /// What must be kept together with the events.
    kept: Vec<ProducerRecord>,
}

impl Publisher {
    /// Publishes until there are no findings any more, or until it is told to stop.
    pub(super) async fn run(self, mut found: mpsc::Receiver<Vec<Finding>>, stop: CancellationToken) {
        let mut transactions: Option<Box<dyn TransactionalProducer>> = None;
        let mut bundles = Vec::new();
        let refused = Trouble::default();
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = found.recv_many(&mut bundles, BUNDLES) => received,
            };
            if received == 0 {
                return;
            }
            let mut out = Out::default();
            for finding in bundles.drain(..).flatten() {
                out.add(&finding);
            }
            loop {
                match self.publish(&mut transactions, &out).await {
                    Ok(()) => {
                        if refused.is_over() {
                            tracing::warn!("what checks found is recorded again");
                        }
                        break;
                    }
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        transactions = None;
                        if let Some(untold) = refused.again(Instant::now()) {
                            tracing::error!(%error, untold, retry_in = ?RETRY_PAUSE, "what checks found can't be recorded at present");
                        }
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
        }
    }

    async fn publish(
        &self,
        transactions: &mut Option<Box<dyn TransactionalProducer>>,
        out: &Out,
    ) -> Result<(), BusError> {
        if out.kept.is_empty() {
            return self.events.producer().send(SYSTEM_EVENTS, out.events.clone()).await.map(drop);
        }
        let producer = match transactions {
            Some(producer) => producer,
            None => transactions.insert(self.bus.transactional_producer(TRANSACTIONAL_ID).await?),
        };
        producer.begin()?;
        producer.send(SYSTEM_EVENTS, out.events.clone()).await?;
        producer.send(TOPIC, out.kept.clone()).await?;
        producer.commit().await
    }
}

impl Out {
    fn add(&mut self, finding: &Finding) {
        let event = event(finding);
        let key = Bytes::copy_from_slice(finding.service.as_str().as_bytes());
        self.events.push(ProducerRecord::new(key, event.to_json(), event.time));
        let content = match &finding.kind {
            FindingKind::CheckChanged { .. } | FindingKind::Measured { .. } => return,
            FindingKind::Unavailable { outage, .. } => Content::Outage(Some(outage.clone())),
            FindingKind::Recovered { .. } => Content::Outage(None),
            FindingKind::MaintenanceEnded => Content::Maintenance(None),
        };
        let record = Record { service: finding.service.clone(), content };
        self.kept.push(to_bus(&record, finding.at));
    }
}

/// What a finding is told as.
pub fn event(finding: &Finding) -> Event {
    match &finding.kind {
        FindingKind::CheckChanged { check, from, to, reason, doing, critical } => {
            let changed = CheckChanged {
                check: check.to_string(),
                from: *from,
                to: *to,
                reason: reason.clone(),
                kind: Some(*doing),
                critical: *critical,
                response_time_ms: None,
            };
            told(finding, EventType::CHECK_CHANGED, &changed)
        }
        FindingKind::Measured { check, response_time } => {
            let ms = response_time.as_secs_f64() * 1000.0;
            let metric = Metric::new(names::RESPONSE_TIME_MS, ms, "ms").with_tag("check", check.as_str());
            told(finding, EventType::METRIC_COLLECTED, &metric)
        }
        FindingKind::Unavailable { outage, reason } => {
            let reason = Reason { reason: Some(format!("{}: {reason}", outage.check)) };
            told(finding, EventType::SYSTEM_UNAVAILABLE, &reason)
        }
        FindingKind::Recovered { outage, reason } => {
            let lasted = finding.at.since(outage.since).as_secs_f64();
            let text = reason.map_or_else(|| format!("after {lasted:.1} s"), str::to_owned);
            told(finding, EventType::SYSTEM_RECOVERED, &Reason { reason: Some(text) })
        }
        FindingKind::MaintenanceEnded => {
            let reason = Reason { reason: Some("its time was up".to_owned()) };
            let mut event = told(finding, EventType::MAINTENANCE_ENDED, &reason);
            event.extensions.insert(KEPT.to_owned(), true.into());
            event
        }
    }
}

fn told(finding: &Finding, event_type: EventType, data: &impl Serialize) -> Event {
    Event::new(Uuid::now_v7(), finding.at, event_type, finding.service.as_str(), data)
}
