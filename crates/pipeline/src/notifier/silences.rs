//! The silences in force, for channels that tell at once. One processor follows them; the others look.
//!
//! Until the processor has read them they wait, but not for longer than [`LONGEST_WAIT`] after the start: should it be unable to, an
//! alert too many is told rather than none at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farol_alert::{SilenceBook, SilenceId};
use farol_event::{Alert, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long after the start alerts wait for silences to be known.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Silences as the processor last saw them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SharedSilences(Arc<Shared>);

struct Shared {
    known: watch::Sender<Option<Arc<SilenceBook>>>,
    /// Until when to wait for them to be known.
    wait_until: Instant,
    /// Whether it has been logged that nobody waits any more.
    told: AtomicBool,
}

impl Default for SharedSilences {
    fn default() -> Self {
        Self::waiting(LONGEST_WAIT)
    }
}

impl SharedSilences {
    /// None are known, which is waited for so long from now on.
    fn waiting(limit: Duration) -> Self {
        let (known, wait_until) = (watch::Sender::new(None), Instant::now() + limit);
        Self(Arc::new(Shared { known, wait_until, told: AtomicBool::new(false) }))
    }

    /// These are known from now on.
    pub(super) fn replace(&self, book: &SilenceBook) {
        self.0.known.send_replace(Some(Arc::new(book.clone())));
    }

    /// The silences that hold `alert` back at `now`. At the start it waits for them to be known; none do if they aren't in time.
    pub(super) async fn silencing(&self, alert: &Alert, now: Timestamp) -> Vec<SilenceId> {
        let mut known = self.0.known.subscribe();
        let waited = tokio::time::timeout_at(self.0.wait_until, known.wait_for(Option::is_some)).await;
        let Ok(book) = waited else {
            if !self.0.told.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    "silences could not be read in time; webhooks without a route are told as if there were none"
                );
            }
            return Vec::new();
        };
        // Otherwise nobody is left who could tell.
        let book = book.ok().and_then(|book| book.clone());
        book.map_or_else(Vec::new, |book| book.silencing(alert, now))
    }
}

/// How long a silence that is over is kept in the processor's state.
pub(super) const KEEP_ENDED: Duration = Duration::from_secs(3600);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use farol_alert::SilenceFact;
    use farol_alert::silence::{self, NewSilence};
    use farol_event::{AlertId, AlertStatus, Severity};

    use super::*;

    fn alert() -> Alert {
        Alert {
            id: AlertId::derive("hot", "temp-1", Timestamp::EPOCH),
            rule: "hot".into(),
            rule_definition: serde_json::json!({ "name": "hot" }),
            series: "temp-1".into(),
            labels: BTreeMap::new(),
            severity: Severity::Critical,
            status: AlertStatus::Firing,
            summary: "hot".into(),
            value: None,
            began_at: Timestamp::EPOCH,
            fired_at: Some(Timestamp::EPOCH),
            ended_at: None,
            acknowledgement: None,
        }
    }

    fn silenced_by_everything() -> (SilenceBook, SilenceId) {
        let now = Timestamp::EPOCH;
        let asked = NewSilence {
            matchers: "series=~\".+\"".parse().unwrap(),
            starts_at: now,
            ends_at: now.saturating_add(Duration::from_secs(60)),
            created_by: "ana",
            comment: "being repaired",
        };
        let id = SilenceId(uuid::Uuid::from_u128(7));
        let mut book = SilenceBook::default();
        book.apply(&SilenceFact::Created(silence::create(asked, id, now).unwrap()));
        (book, id)
    }

    #[tokio::test]
    async fn silences_that_never_become_known_are_not_waited_for_for_ever_and_hold_once_they_are() {
        let silences = SharedSilences::waiting(Duration::from_millis(20));
        let alert = alert();
        let waited =
            tokio::time::timeout(Duration::from_secs(20), silences.silencing(&alert, Timestamp::EPOCH));
        assert_eq!(waited.await, Ok(Vec::new()));
        let (book, id) = silenced_by_everything();
        silences.replace(&book);
        assert_eq!(silences.silencing(&alert, Timestamp::EPOCH).await, [id]);
    }

    #[tokio::test]
    async fn alert_of_the_first_moments_waits_for_silences() {
        let silences = SharedSilences::default();
        let (book, id) = silenced_by_everything();
        let alert = alert();
        let (held, ()) = tokio::join!(silences.silencing(&alert, Timestamp::EPOCH), async {
            tokio::task::yield_now().await;
            silences.replace(&book);
        });
        assert_eq!(held, [id]);
    }
}
