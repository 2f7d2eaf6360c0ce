//! Retention of the views: old rows are deleted in slices, so that nobody waits for long.

use std::time::Duration;

use farol_event::Timestamp;
use farol_view::{Retention, Store};
use tokio_util::sync::CancellationToken;

use crate::system_events::now;

/// How long the views keep what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRetention {
    /// Readings, by when they were measured; `None` keeps them (old series that were replayed would go at once).
    pub readings: Option<Duration>,
    /// Events, dead letters, rebalances, and consumers and producers that are long gone. Alerts are kept.
    pub history: Option<Duration>,
}

impl Default for ViewRetention {
    fn default() -> Self {
        Self { readings: None, history: Some(Duration::from_secs(30 * 24 * 3600)) }
    }
}

impl ViewRetention {
    fn at(&self, now: Timestamp) -> Retention {
        let before = |keep: Option<Duration>| keep.map(|keep| now.saturating_sub(keep));
        Retention {
            readings_before: before(self.readings),
            history_before: before(self.history),
            metric_events_before: before(self.history.map(|history| history.min(METRIC_EVENTS_KEPT))),
        }
    }
}

/// How long collected metrics and measured policies stay among the events: they come every few seconds from everybody, and what becomes
/// of them stands in tables of their own. (In the log they stay as long as the topic's retention says.)
const METRIC_EVENTS_KEPT: Duration = Duration::from_secs(3600);

/// How often retention is applied.
const INTERVAL: Duration = Duration::from_secs(60);

/// Deletes what is older than the views keep, until told to stop.
pub(crate) async fn prune(store: Store, retention: ViewRetention, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        match store.prune(retention.at(now())).await {
            Ok(pruned) => tracing::debug!(?pruned, "retention applied to the views"),
            Err(error) => {
                tracing::warn!(%error, "retention could not be applied to the views; it will be tried again")
            }
        }
    }
}
