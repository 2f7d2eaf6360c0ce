//! What a consumer says of itself every few seconds: that it lives, what it owns, how far it has come.

use farol_event::EventType;
use serde::Serialize;

use crate::system_events::SystemEvents;

/// The `data` of a `consumidor_pulsou` event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Heartbeat<'a> {
    /// The consumer's group.
    pub(crate) group: &'a str,
    /// What it owns, as `topic/partition`.
    pub(crate) partitions: Vec<String>,
    /// Records since it started.
    pub(crate) records_processed: u64,
    /// Records a second since the heartbeat before.
    pub(crate) records_per_s: f64,
    /// Records between its position and the end of what it owns.
    pub(crate) lag_records: i64,
    /// How old the newest record is that it has processed, while there are newer ones.
    pub(crate) lag_ms: i64,
    /// How often it failed and was started again.
    pub(crate) errors: u64,
}

impl Heartbeat<'_> {
    /// Publishes it as an event of `consumer`.
    pub(crate) async fn publish(&self, events: &SystemEvents, consumer: &str) {
        events.announce(EventType::CONSUMER_HEARTBEAT, consumer, self).await;
    }
}
