//! Time that never goes back.

use farol_event::Timestamp;
use tokio::time::Instant;

/// The wall clock at the start, moved forward by a monotonic clock: timeouts don't fire because somebody set the
/// machine's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: Timestamp::from_system_time(std::time::SystemTime::now()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.started_at.saturating_add(self.started.elapsed())
    }

    /// When `at` is, as the runtime's timers count.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.started_at)
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }
}
