//! What every handler can reach.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use farol_bus::{Bus, Producer, ProducerRecord, TopicPartition};
use farol_event::Timestamp;
use farol_view::{Store, ViewName, ViewTopics};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::guard::Guard;
use crate::ingest::body::{self, BodyBudget, HeldBytes};
use crate::ingest::producers::Producers;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rates::Rates;
use crate::settings::{About, Limits};
use crate::stream::Hub;
use crate::unread::Unread;

/// What every handler can reach; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) about: About,
    pub(crate) limits: Limits,
    pub(crate) topics: ViewTopics,
    pub(crate) guard: Guard,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) store: Store,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) producers: Arc<Producers>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) unread: Unread,
    pub(crate) bodies: BodyBudget,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) started_at: Timestamp,
    pub(crate) started: Instant,
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(crate) fn about(&self) -> &About {
        &self.0.about
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn topics(&self) -> &ViewTopics {
        &self.0.topics
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    pub(crate) fn bus(&self) -> &Arc<dyn Bus> {
        &self.0.bus
    }

    pub(crate) fn producer(&self) -> &Arc<dyn Producer> {
        &self.0.producer
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn control(&self) -> &Arc<dyn Control> {
        &self.0.control
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.0.producers
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    pub(crate) fn unread(&self) -> &Unread {
        &self.0.unread
    }

    /// A request's body of at most `limit` bytes, within the server's time and memory.
    pub(crate) async fn collect(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, HeldBytes), Problem> {
        body::collect(headers, body, limit, self.0.limits.request_timeout, &self.0.bodies).await
    }

    /// Appends a fact and waits until it is durable, then a bounded time for the view; whether the view shows it already.
    pub(crate) async fn append_for_view(
        &self,
        topic: &str,
        record: ProducerRecord,
        view: ViewName,
    ) -> Result<bool, Problem> {
        let stored = self.producer().send(topic, vec![record]).await?;
        let Some(stored) = stored.first() else { return Ok(false) };
        let position = TopicPartition::new(topic, stored.partition).at(stored.offset);
        Ok(self.store().wait_for(view, &position, self.limits().acknowledge_timeout).await)
    }

    pub(crate) fn requests(&self) -> &Arc<Semaphore> {
        &self.0.requests
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.0.started_at
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// The system's clock now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_system_time(std::time::SystemTime::now())
    }
}
