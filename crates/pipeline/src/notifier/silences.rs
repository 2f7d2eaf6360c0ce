//! The silences in force, for channels that tell at once. One processor follows them; the others look.

use std::sync::Arc;

use farol_alert::{SilenceBook, SilenceId};
use farol_event::{Alert, Timestamp};
use tokio::sync::watch;

/// Silences as the processor last saw them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SharedSilences(Arc<watch::Sender<Option<Arc<SilenceBook>>>>);

impl Default for SharedSilences {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl SharedSilences {
    /// These are known from now on.
    pub(super) fn replace(&self, book: &SilenceBook) {
        self.0.send_replace(Some(Arc::new(book.clone())));
    }

    /// The silences that hold `alert` back at `now`. Waits until silences are known at all: at the start, for a moment.
    pub(super) async fn silencing(&self, alert: &Alert, now: Timestamp) -> Vec<SilenceId> {
        let mut known = self.0.subscribe();
        let book = match known.wait_for(Option::is_some).await {
            Ok(book) => book.clone(),
            // Nobody is left who could tell.
            Err(_) => None,
        };
        book.map_or_else(Vec::new, |book| book.silencing(alert, now))
    }
}

/// How long a silence that is over is kept in the processor's state.
pub(super) const KEEP_ENDED: std::time::Duration = std::time::Duration::from_secs(3600);
